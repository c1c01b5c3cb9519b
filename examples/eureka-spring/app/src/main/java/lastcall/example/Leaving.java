package lastcall.example;

import jakarta.servlet.AsyncEvent;
import jakarta.servlet.AsyncListener;
import jakarta.servlet.Filter;
import jakarta.servlet.FilterChain;
import jakarta.servlet.ServletException;
import jakarta.servlet.ServletOutputStream;
import jakarta.servlet.ServletRequest;
import jakarta.servlet.ServletResponse;
import jakarta.servlet.http.HttpServletResponse;
import jakarta.servlet.http.HttpServletResponseWrapper;
import java.io.IOException;
import java.io.PrintWriter;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.util.Optional;

/**
 * Asks the app's clients to disconnect while its pod drains, and reports to Lastcall how many
 * requests are in flight. Each path may be absent.
 */
class Leaving implements Filter {
  private final Optional<Path> draining; // LASTCALL_DRAINING_FILE
  private final Optional<Path> inFlight; // LASTCALL_FILE_PATH
  private long count;

  Leaving(Optional<Path> draining, Optional<Path> inFlight) {
    this.draining = draining;
    this.inFlight = inFlight;
    add(0); // write zero too: without the file the number is unknown
  }

  @Override
  public void doFilter(ServletRequest request, ServletResponse response, FilterChain chain)
      throws IOException, ServletException {
    add(1);
    try {
      Farewell answer = new Farewell((HttpServletResponse) response);
      chain.doFilter(request, answer);
      if (!request.isAsyncStarted()) {
        answer.bid(); // for an answer without a body
        answer.flushBuffer(); // the request is in flight until its answer is sent
      }
    } finally {
      if (request.isAsyncStarted()) {
        request.getAsyncContext().addListener(new Later());
      } else {
        add(-1);
      }
    }
  }

  /** Waits for an answer that is completed later, on any thread. */
  private class Later implements AsyncListener {
    @Override
    public void onComplete(AsyncEvent event) {
      add(-1);
    }

    @Override
    public void onStartAsync(AsyncEvent event) {
      event.getAsyncContext().addListener(this); // a restart drops the listeners
    }

    @Override
    public void onTimeout(AsyncEvent event) {} // onComplete follows

    @Override
    public void onError(AsyncEvent event) {} // onComplete follows
  }

  /** Adds Connection: close to an answer that begins during a drain. */
  private class Farewell extends HttpServletResponseWrapper {
    Farewell(HttpServletResponse response) {
      super(response);
    }

    @Override
    public ServletOutputStream getOutputStream() throws IOException {
      bid();
      return super.getOutputStream();
    }

    @Override
    public PrintWriter getWriter() throws IOException {
      bid();
      return super.getWriter();
    }

    /** Checks for the drain, in a few microseconds. It has no effect once the answer has begun. */
    void bid() {
      if (draining.filter(Files::exists).isPresent()) {
        setHeader("Connection", "close");
      }
    }
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
}
