import jakarta.servlet.http.HttpServlet;
import jakarta.servlet.http.HttpServletRequest;
import jakarta.servlet.http.HttpServletResponse;
import jakarta.websocket.OnMessage;
import jakarta.websocket.server.ServerEndpoint;
import java.io.IOException;
import java.io.OutputStream;
import java.nio.file.Files;
import java.util.Set;
import org.apache.catalina.connector.Connector;
import org.apache.catalina.startup.Tomcat;
import org.apache.coyote.http2.Http2Protocol;
import org.apache.tomcat.util.net.SSLHostConfig;
import org.apache.tomcat.util.net.SSLHostConfigCertificate;
import org.apache.tomcat.websocket.server.WsSci;

/**
 * The app of the tests on Tomcat, as Spring Boot embeds it: TomcatServer PORT BACKEND.
 * TLS_CERT and TLS_KEY in the environment are PEM files for TLS. With HTTP1_ALONE it does not speak
 * HTTP/2.
 */
public class TomcatServer extends HttpServlet {
  private final Backend backend;

  TomcatServer(Backend backend) {
    this.backend = backend;
  }

  public static void main(String[] args) throws Exception {
    Tomcat tomcat = new Tomcat();
    tomcat.setBaseDir(Files.createTempDirectory("tomcat").toString());
    Connector connector = new Connector();
    connector.setPort(Integer.parseInt(args[0]));
    connector.setProperty("address", "127.0.0.1");
    connector.setProperty("connectionTimeout", "600000");
    if (System.getenv("HTTP1_ALONE") == null) {
      connector.addUpgradeProtocol(new Http2Protocol());
    }
    String certificate = System.getenv("TLS_CERT");
    if (certificate != null) {
      secure(connector, certificate, System.getenv("TLS_KEY"));
    }
    tomcat.setConnector(connector);
    var context = tomcat.addContext("", null);
    context.addServletContainerInitializer(new WsSci(), Set.of(Echo.class));
    Tomcat.addServlet(context, "app", new TomcatServer(new Backend(args[1])));
    context.addServletMappingDecoded("/", "app");
    tomcat.start();
    tomcat.getServer().await();
  }

  /** Has the connector speak TLS, by JSSE. */
  private static void secure(Connector connector, String certificate, String key) {
    connector.setSecure(true);
    connector.setScheme("https");
    connector.setProperty("SSLEnabled", "true");
    SSLHostConfig host = new SSLHostConfig();
    host.setProtocols("TLSv1.2+TLSv1.3");
    var pair = new SSLHostConfigCertificate(host, SSLHostConfigCertificate.Type.UNDEFINED);
    pair.setCertificateFile(certificate);
    pair.setCertificateKeyFile(key);
    host.addCertificate(pair);
    connector.addSslHostConfig(host);
  }

  /** Sends each message back. */
  @ServerEndpoint("/websocket")
  public static class Echo {
    @OnMessage
    public String echo(String message) {
      return message.startsWith("no answer") ? null : message;
    }
  }

  @Override
  protected void service(HttpServletRequest request, HttpServletResponse response) throws IOException {
    request.getInputStream().transferTo(OutputStream.nullOutputStream());
    var ids = Backend.ids(request.getQueryString());
    var out = response.getOutputStream();
    switch (request.getServletPath()) {
      case "/hold" -> {
        backend.await(ids.get(0));
        out.print("ok");
      }
      case "/download" -> {
        response.setContentLength(32 << 20);
        out.write(new byte[32 << 20]);
      }
      case "/stream" -> {
        out.print("tick\n");
        response.flushBuffer();
        for (String id : ids) {
          backend.await(id);
          out.print("tick\n");
          response.flushBuffer();
        }
      }
      default -> out.print("ok");
    }
  }
}
