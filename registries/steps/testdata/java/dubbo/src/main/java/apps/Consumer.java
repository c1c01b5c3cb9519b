package apps;

import com.sun.net.httpserver.HttpServer;
import java.net.InetSocketAddress;
import java.util.concurrent.Executors;
import org.apache.dubbo.config.ApplicationConfig;
import org.apache.dubbo.config.ReferenceConfig;
import org.apache.dubbo.config.RegistryConfig;
import org.apache.dubbo.config.bootstrap.DubboBootstrap;

/** Consumer ZOOKEEPER-PORT PORT: each GET of its HTTP port calls one provider, without retries. */
public final class Consumer {
    public static void main(String[] args) throws Exception {
        ApplicationConfig application = new ApplicationConfig("caller");
        application.setQosEnable(false);
        ReferenceConfig<Greeter> reference = new ReferenceConfig<>();
        reference.setInterface(Greeter.class);
        reference.setCheck(false);
        reference.setRetries(0);
        reference.setTimeout(3000);
        DubboBootstrap.getInstance()
                .application(application)
                .registry(new RegistryConfig("zookeeper://127.0.0.1:" + args[0]))
                .reference(reference)
                .start();
        Greeter greeter = reference.get();
        HttpServer http = HttpServer.create(new InetSocketAddress("127.0.0.1", Integer.parseInt(args[1])), 0);
        http.setExecutor(Executors.newFixedThreadPool(4));
        http.createContext("/", exchange -> {
            int code = 200;
            String text;
            try {
                text = greeter.who();
            } catch (RuntimeException e) {
                code = 500;
                text = String.valueOf(e.getMessage());
            }
            byte[] body = text.getBytes("UTF-8");
            exchange.sendResponseHeaders(code, body.length == 0 ? -1 : body.length);
            exchange.getResponseBody().write(body);
            exchange.close();
        });
        http.start();
    }
}
