import com.sun.net.httpserver.Filter;
import com.sun.net.httpserver.HttpExchange;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.util.Optional;

/**
 * Lets an app's clients leave while its pod drains, and tells Lastcall how many requests the app
 * works on. Add it to the contexts that do the app's work, and to none that probes ask.
 */
final class Leaving extends Filter {
  private final Optional<Path> draining = path("LASTCALL_DRAINING_FILE");
  private final Optional<Path> inFlight = path("LASTCALL_FILE_PATH");
  private long count;

  Leaving() {
    add(0); // zero is said too: without the file the number is not known
  }

  @Override
  public void doFilter(HttpExchange exchange, Chain chain) throws IOException {
    // A look that takes a few microseconds, so it is asked each time.
    if (draining.filter(Files::exists).isPresent()) {
      exchange.getResponseHeaders().set("Connection", "close");
    }
    add(1);
    try {
      chain.doFilter(exchange);
    } finally {
      add(-1); // the handler has sent its answer: it closes it before it returns
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

  /** Replaces the file whole: a reader sees the old number or the new one. */
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
