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
 * Lets the app's clients leave while its pod drains, and tells Lastcall how many requests are in
 * flight. Each path may be absent.
 */
class Leaving implements Filter {
  private final Optional<Path> draining; // LASTCALL_DRAINING_FILE
  private final Optional<Path> inFlight; // LASTCALL_FILE_PATH
  private long count;

  Leaving(Optional<Path> draining, Optional<Path> inFlight) {
    this.draining = draining;
    this.inFlight = inFlight;
    add(0); // zero is said too: without the file the number is not known
  }

  @Override
  public void doFilter(ServletRequest request, ServletResponse response, FilterChain chain)
      throws IOException, ServletException {
    add(1);
    try {
      Farewell answer = new Farewell((HttpServletResponse) response);
      chain.doFilter(request, answer);
      if (!request.isAsyncStarted()) {
        answer.bid(); // for one without a body
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

  /** Waits for an answer that is given later, on whichever thread. */
  private class Later implements AsyncListener {
    @Override
    public void onComplete(AsyncEvent event) {
      add(-1);
    }

    @Override
    public void onStartAsync(AsyncEvent event) {
      event.getAsyncContext().addListener(this); // once more, and listeners are not kept
    }

    @Override
    public void onTimeout(AsyncEvent event) {} // it completes after that

    @Override
    public void onError(AsyncEvent event) {} // so it does
  }

  /** Asks the client to leave, when the answer begins in a drain. */
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

    /** Looks, which takes a few microseconds. It is of no effect once the answer has begun. */
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
}
