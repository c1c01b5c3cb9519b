package apps;

import com.alibaba.nacos.api.NacosFactory;
import com.alibaba.nacos.api.naming.NamingService;
import com.alibaba.nacos.api.naming.pojo.Instance;
import com.sun.net.httpserver.HttpServer;
import java.net.InetSocketAddress;

/**
 * Consumer SERVER SERVICE PORT: each GET of its HTTP port is answered with the instances that it
 * would call, ADDRESS:PORT WEIGHT in each line.
 */
public final class Consumer {
    public static void main(String[] args) throws Exception {
        NamingService naming = NacosFactory.createNamingService(args[0]);
        naming.subscribe(args[1], event -> {});
        HttpServer http = HttpServer.create(new InetSocketAddress("127.0.0.1", Integer.parseInt(args[2])), 0);
        http.createContext("/", exchange -> {
            StringBuilder text = new StringBuilder();
            int code = 200;
            try {
                for (Instance i : naming.selectInstances(args[1], true, true)) {
                    text.append(i.getIp()).append(':').append(i.getPort()).append(' ').append(i.getWeight()).append('\n');
                }
            } catch (Exception e) {
                e.printStackTrace();
                code = 500;
            }
            byte[] body = text.toString().getBytes("UTF-8");
            exchange.sendResponseHeaders(code, body.length == 0 ? -1 : body.length);
            exchange.getResponseBody().write(body);
            exchange.close();
        });
        http.start();
    }
}
