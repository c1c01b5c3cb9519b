package apps;

import com.alibaba.nacos.api.NacosFactory;
import com.alibaba.nacos.api.naming.NamingService;
import com.alibaba.nacos.api.naming.pojo.Instance;
import com.sun.net.httpserver.HttpServer;
import java.net.InetSocketAddress;
import java.util.Map;

/**
 * Provider SERVER SERVICE PORT WEIGHT: registers 127.0.0.1:PORT by a gRPC connection. Each POST to
 * its HTTP port registers it again.
 */
public final class Provider {
    public static void main(String[] args) throws Exception {
        NamingService naming = NacosFactory.createNamingService(args[0]);
        Instance instance = new Instance();
        instance.setIp("127.0.0.1");
        instance.setPort(Integer.parseInt(args[2]));
        instance.setWeight(Double.parseDouble(args[3]));
        instance.setMetadata(Map.of("version", "1"));
        naming.registerInstance(args[1], instance);
        HttpServer http = HttpServer.create(new InetSocketAddress("127.0.0.1", instance.getPort()), 0);
        http.createContext("/", exchange -> {
            int code = 200;
            try {
                if (exchange.getRequestMethod().equals("POST")) {
                    naming.deregisterInstance(args[1], instance);
                    naming.registerInstance(args[1], instance);
                }
            } catch (Exception e) {
                e.printStackTrace();
                code = 500;
            }
            exchange.sendResponseHeaders(code, -1);
            exchange.close();
        });
        http.start();
    }
}
