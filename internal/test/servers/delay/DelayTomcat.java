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

/** Answers /delay/MS after MS milliseconds: DelayTomcat PORTS TLSPORTS CERTIFICATE KEY [http2]. */
public class DelayTomcat extends HttpServlet {
  public static void main(String[] args) throws Exception {
    Tomcat tomcat = new Tomcat();
    tomcat.setBaseDir(Files.createTempDirectory("tomcat").toString());
    for (String port : args[0].split(",")) {
      tomcat.getService().addConnector(connector(port, args));
    }
    for (String port : args[1].split(",")) {
      Connector connector = connector(port, args);
      connector.setSecure(true);
      connector.setScheme("https");
      connector.setProperty("SSLEnabled", "true");
      SSLHostConfig host = new SSLHostConfig();
      SSLHostConfigCertificate certificate = new SSLHostConfigCertificate(host, SSLHostConfigCertificate.Type.UNDEFINED);
      certificate.setCertificateFile(args[2]);
      certificate.setCertificateKeyFile(args[3]);
      host.addCertificate(certificate);
      connector.addSslHostConfig(host);
      tomcat.getService().addConnector(connector);
    }
    var context = tomcat.addContext("", null);
    context.addServletContainerInitializer(new WsSci(), Set.of(Delay.class));
    Tomcat.addServlet(context, "app", new DelayTomcat());
    context.addServletMappingDecoded("/", "app");
    tomcat.start();
    tomcat.getServer().await();
  }

  private static Connector connector(String port, String[] args) {
    Connector connector = new Connector();
    connector.setPort(Integer.parseInt(port));
    connector.setProperty("minSpareThreads", "1");
    if (args.length > 4) {
      connector.addUpgradeProtocol(new Http2Protocol());
    }
    return connector;
  }

  /** Answers a message after the number of milliseconds that it contains. */
  @ServerEndpoint("/ws")
  public static class Delay {
    @OnMessage
    public String answer(String message) throws InterruptedException {
      Thread.sleep(Long.parseLong(message));
      return "done";
    }
  }

  @Override
  protected void service(HttpServletRequest request, HttpServletResponse response) throws IOException {
    request.getInputStream().transferTo(OutputStream.nullOutputStream());
    String path = request.getServletPath();
    if (path.startsWith("/delay/")) {
      try {
        Thread.sleep(Long.parseLong(path.substring("/delay/".length())));
      } catch (InterruptedException e) {
        throw new IOException(e);
      }
    }
    response.getOutputStream().print("done");
  }
}
