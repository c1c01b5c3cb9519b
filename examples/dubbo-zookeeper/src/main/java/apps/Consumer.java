package apps;

import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import java.io.IOException;
import java.net.InetSocketAddress;
import java.nio.charset.StandardCharsets;
import java.util.concurrent.Executors;
import org.apache.dubbo.config.ApplicationConfig;
import org.apache.dubbo.config.ReferenceConfig;
import org.apache.dubbo.config.RegistryConfig;
import org.apache.dubbo.config.bootstrap.DubboBootstrap;

/**
 * Consumer ZOOKEEPER PORT: each request to its HTTP port makes one call, without retries. The
 * answer is "done", with the provider's name in X-Pod. ?ms=300 sets how long the call takes.
 */
public final class Consumer {
    public static void main(String[] args) throws IOException {
        ApplicationConfig application = new ApplicationConfig("caller");
        application.setQosEnable(false);
        ReferenceConfig<Greeter> reference = new ReferenceConfig<>();
        reference.setInterface(Greeter.class);
        reference.setCheck(false);
        reference.setRetries(0);
        reference.setTimeout(30_000);
        DubboBootstrap.getInstance()
                .application(application)
                .registry(new RegistryConfig("zookeeper://" + args[0]))
                .reference(reference)
                .start();
        Greeter greeter = reference.get();
        HttpServer http = HttpServer.create(new InetSocketAddress(Integer.parseInt(args[1])), 0);
        http.setExecutor(Executors.newCachedThreadPool());
        http.createContext("/", exchange -> answer(exchange, greeter));
        http.start();
    }

    private static void answer(HttpExchange exchange, Greeter greeter) throws IOException {
        int code = 200;
        String text = "done";
        try {
            exchange.getRequestBody().readAllBytes();
            exchange.getResponseHeaders().set("X-Pod", greeter.greet(milliseconds(exchange.getRequestURI().getQuery())));
        } catch (RuntimeException e) {
            code = 500;
            text = String.valueOf(e.getMessage());
        }
        byte[] body = text.getBytes(StandardCharsets.UTF_8);
        exchange.sendResponseHeaders(code, body.length == 0 ? -1 : body.length);
        exchange.getResponseBody().write(body);
        exchange.close();
    }

    private static long milliseconds(String query) {
        for (String parameter : query == null ? new String[0] : query.split("&")) {
            if (parameter.startsWith("ms=")) {
                return Long.parseLong(parameter.substring("ms=".length()));
            }
        }
        return 0;
    }
}
