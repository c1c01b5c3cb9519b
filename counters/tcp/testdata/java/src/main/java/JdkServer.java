import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import com.sun.net.httpserver.HttpsConfigurator;
import com.sun.net.httpserver.HttpsServer;
import java.io.IOException;
import java.io.OutputStream;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.URL;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.KeyFactory;
import java.security.KeyStore;
import java.security.PrivateKey;
import java.security.cert.Certificate;
import java.security.cert.CertificateFactory;
import java.security.spec.PKCS8EncodedKeySpec;
import java.util.Base64;
import java.util.concurrent.Executors;
import javax.net.ssl.KeyManagerFactory;
import javax.net.ssl.SSLContext;

/**
 * The app of the tests: java JdkServer PORT BACKEND. It asks the backend when it may answer.
 * TLS_CERT and TLS_KEY in the environment are PEM files for TLS.
 */
public class JdkServer {
    static String backend;

    public static void main(String[] args) throws Exception {
        backend = args[1];
        var address = new InetSocketAddress(InetAddress.getByName("127.0.0.1"), Integer.parseInt(args[0]));
        HttpServer server;
        if (System.getenv("TLS_CERT") != null) {
            HttpsServer secure = HttpsServer.create(address, 128);
            secure.setHttpsConfigurator(new HttpsConfigurator(tls(System.getenv("TLS_CERT"), System.getenv("TLS_KEY"))));
            server = secure;
        } else {
            server = HttpServer.create(address, 128);
        }
        server.setExecutor(Executors.newCachedThreadPool());
        server.createContext("/", JdkServer::handle);
        server.start();
    }

    /** Reads a certificate and its key (PKCS #8) from PEM files. */
    static SSLContext tls(String certificateFile, String keyFile) throws Exception {
        Certificate certificate;
        try (var in = Files.newInputStream(Path.of(certificateFile))) {
            certificate = CertificateFactory.getInstance("X.509").generateCertificate(in);
        }
        String text = Files.readString(Path.of(keyFile)).replaceAll("-----[A-Z ]*-----", "");
        var encoded = new PKCS8EncodedKeySpec(Base64.getMimeDecoder().decode(text));
        PrivateKey key = KeyFactory.getInstance(certificate.getPublicKey().getAlgorithm()).generatePrivate(encoded);
        KeyStore store = KeyStore.getInstance("PKCS12");
        store.load(null, null);
        store.setKeyEntry("server", key, new char[0], new Certificate[] {certificate});
        var keys = KeyManagerFactory.getInstance(KeyManagerFactory.getDefaultAlgorithm());
        keys.init(store, new char[0]);
        SSLContext tls = SSLContext.getInstance("TLS");
        tls.init(keys.getKeyManagers(), null, null);
        return tls;
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
