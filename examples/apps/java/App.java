import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import java.io.IOException;
import java.io.OutputStream;
import java.net.InetSocketAddress;
import java.util.concurrent.Executors;

/** Answers a POST when it has the whole body, and a GET at once. Leaving has what a drain needs. */
public final class App {
  public static void main(String[] args) throws IOException {
    int port = Integer.parseInt(System.getenv("PORT"));
    HttpServer server = HttpServer.create(new InetSocketAddress(port), 0);
    server.createContext("/", App::serve).getFilters().add(new Leaving());
    server.createContext("/ready", exchange -> answer(exchange, "ok\n")); // not counted as work
    server.setExecutor(Executors.newCachedThreadPool());
    server.start();
  }

  private static void serve(HttpExchange exchange) throws IOException {
    int n = exchange.getRequestBody().readAllBytes().length;
    answer(exchange, n + " bytes\n");
  }

  private static void answer(HttpExchange exchange, String text) throws IOException {
    byte[] body = text.getBytes();
    exchange.sendResponseHeaders(200, body.length);
    try (OutputStream out = exchange.getResponseBody()) {
      out.write(body);
    }
  }
}
