import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import java.io.IOException;
import java.io.OutputStream;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.URL;
import java.util.concurrent.Executors;

/** The app of the tests: java Server.java PORT BACKEND. It asks the backend when it may answer. */
public class Server {
    static String backend;

    public static void main(String[] args) throws IOException {
        backend = args[1];
        HttpServer server = HttpServer.create(
            new InetSocketAddress(InetAddress.getByName("127.0.0.1"), Integer.parseInt(args[0])), 128);
        server.setExecutor(Executors.newCachedThreadPool());
        server.createContext("/", Server::handle);
        server.start();
    }

    static void await(String id) throws IOException {
        try (var in = new URL("http://" + backend + "/hold?id=" + id).openStream()) {
            in.readAllBytes();
        }
    }

    static void handle(HttpExchange x) throws IOException {
        try (x) {
            x.getRequestBody().readAllBytes();
            String query = x.getRequestURI().getQuery();
            String[] ids = query == null ? new String[0] : query.replace("id=", "").split("&");
            OutputStream out = x.getResponseBody();
            switch (x.getRequestURI().getPath()) {
                case "/hold":
                    await(ids[0]);
                    break;
                case "/download":
                    x.sendResponseHeaders(200, 32 << 20);
                    out.write(new byte[32 << 20]);
                    return;
                case "/stream":
                    x.sendResponseHeaders(200, 0);
                    out.write("tick\n".getBytes());
                    out.flush();
                    for (String id : ids) {
                        await(id);
                        out.write("tick\n".getBytes());
                        out.flush();
                    }
                    return;
                default:
            }
            x.sendResponseHeaders(200, 2);
            out.write("ok".getBytes());
        }
    }
}
