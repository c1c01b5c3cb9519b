package recipes;

import jakarta.servlet.http.HttpServletRequest;
import java.io.InputStream;
import java.net.URI;
import java.util.concurrent.CompletableFuture;
import org.springframework.boot.SpringApplication;
import org.springframework.boot.autoconfigure.SpringBootApplication;
import org.springframework.web.bind.annotation.GetMapping;
import org.springframework.web.bind.annotation.RestController;
import org.springframework.web.servlet.mvc.method.annotation.StreamingResponseBody;

/** An app whose answers the test's backend holds back, see counters/prometheus/recipes_test.go. */
@SpringBootApplication(proxyBeanMethods = false)
@RestController
class App {
  public static void main(String[] args) {
    SpringApplication.run(App.class, args);
  }

  @GetMapping("/")
  String root() {
    return "ok";
  }

  @GetMapping("/hold")
  String hold(HttpServletRequest request) throws Exception {
    return ask(request.getQueryString());
  }

  /** The answer comes later: no thread of Tomcat's works on it meanwhile. */
  @GetMapping("/async/hold")
  CompletableFuture<String> async(HttpServletRequest request) {
    String query = request.getQueryString();
    return CompletableFuture.supplyAsync(() -> ask(query));
  }

  @GetMapping("/streaming/hold")
  StreamingResponseBody streaming(HttpServletRequest request) {
    String query = request.getQueryString();
    return out -> {
      out.write("begun\n".getBytes());
      out.flush();
      out.write(ask(query).getBytes());
    };
  }

  private static String ask(String query) {
    try (InputStream in = URI.create(System.getenv("BACKEND") + "/hold?" + query).toURL().openStream()) {
      return new String(in.readAllBytes());
    } catch (java.io.IOException e) {
      throw new java.io.UncheckedIOException(e);
    }
  }
}
