import com.sun.net.httpserver.Filter;
import com.sun.net.httpserver.HttpExchange;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.util.Optional;

/**
 * Asks an app's clients to disconnect while its pod drains, and reports to Lastcall how many
 * requests the app is handling. Add it to the contexts of the app's work, but not to those of probes.
 */
final class Leaving extends Filter {
  private final Optional<Path> draining = path("LASTCALL_DRAINING_FILE");
  private final Optional<Path> inFlight = path("LASTCALL_FILE_PATH");
  private long count;

  Leaving() {
    add(0); // write zero too: without the file the number is unknown
  }

  @Override
  public void doFilter(HttpExchange exchange, Chain chain) throws IOException {
    // This takes a few microseconds, so it can be checked for each request.
    if (draining.filter(Files::exists).isPresent()) {
      exchange.getResponseHeaders().set("Connection", "close");
    }
    add(1);
    try {
      chain.doFilter(exchange);
    } finally {
      add(-1); // the handler has sent its answer, because it closes it before it returns
    }
  }

  @Override
  public String description() {
    return "lets clients leave while the pod drains";
  }

  private synchronized void add(int n) {
    count += n;
    inFlight.ifPresent(this::write);
  }

  /** Replaces the file atomically: a reader sees either the old or the new number. */
  private void write(Path file) {
    Path next = file.resolveSibling("." + file.getFileName() + ".tmp");
    try {
      Files.writeString(next, count + "\n");
      Files.move(next, file, StandardCopyOption.ATOMIC_MOVE);
    } catch (IOException e) {
      throw new UncheckedIOException("telling Lastcall what is in flight", e);
    }
  }

  private static Optional<Path> path(String variable) {
    return Optional.ofNullable(System.getenv(variable)).filter(s -> !s.isEmpty()).map(Path::of);
  }
}
