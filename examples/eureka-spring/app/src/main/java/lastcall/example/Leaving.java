package lastcall.example;

import jakarta.servlet.Filter;
import jakarta.servlet.FilterChain;
import jakarta.servlet.ServletException;
import jakarta.servlet.ServletRequest;
import jakarta.servlet.ServletResponse;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;

/** Writes how many requests are in flight to a file, for Lastcall's counter "file". */
class InFlight implements Filter {
  private final Path file;
  private final Path next;
  private long count;

  InFlight(Path file) {
    this.file = file;
    this.next = file.resolveSibling("." + file.getFileName() + ".tmp");
    add(0); // zero is said too: without the file the number is not known
  }

  @Override
  public void doFilter(ServletRequest request, ServletResponse response, FilterChain chain)
      throws IOException, ServletException {
    add(1);
    try {
      chain.doFilter(request, response);
      response.flushBuffer(); // the request is in flight until its answer is sent
    } finally {
      add(-1);
    }
  }

  private synchronized void add(int n) {
    count += n;
    try {
      Files.writeString(next, count + "\n");
      Files.move(next, file, StandardCopyOption.ATOMIC_MOVE); // a reader sees the old number or the new one
    } catch (IOException e) {
      throw new UncheckedIOException("writing the number of requests in flight", e);
    }
  }
}
