package lastcall.example;

import java.nio.file.Path;
import java.util.Optional;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.Executor;
import java.util.concurrent.TimeUnit;
import org.springframework.beans.factory.annotation.Value;
import org.springframework.boot.SpringApplication;
import org.springframework.boot.autoconfigure.SpringBootApplication;
import org.springframework.boot.web.servlet.FilterRegistrationBean;
import org.springframework.context.annotation.Bean;
import org.springframework.web.bind.annotation.GetMapping;
import org.springframework.web.bind.annotation.RequestMapping;
import org.springframework.web.bind.annotation.RequestParam;
import org.springframework.web.bind.annotation.RestController;

/** A service that registers itself in Eureka and answers slowly. */
@SpringBootApplication
@RestController
public class SlowApp {
  public static void main(String[] args) {
    SpringApplication.run(SlowApp.class, args);
  }

  /** Answers after the given number of milliseconds, as a slow query would. */
  @RequestMapping("/work")
  String work(@RequestParam(defaultValue = "500") long ms) throws InterruptedException {
    Thread.sleep(Math.min(ms, 60_000));
    return "done in " + ms + " ms\n";
  }

  /** Like work, but no thread waits. */
  @RequestMapping("/work/later")
  CompletableFuture<String> later(@RequestParam(defaultValue = "500") long ms) {
    Executor later = CompletableFuture.delayedExecutor(Math.min(ms, 60_000), TimeUnit.MILLISECONDS);
    return CompletableFuture.supplyAsync(() -> "done in " + ms + " ms\n", later);
  }

  /** For the kubelet; not counted as work. */
  @GetMapping("/ready")
  String ready() {
    return "ok\n";
  }

  /** Filters requests to /work and below, but not probes. The paths come from the environment. */
  @Bean
  FilterRegistrationBean<Leaving> leaving(
      @Value("${lastcall.draining.file:}") Optional<Path> draining,
      @Value("${lastcall.file.path:}") Optional<Path> inFlight) {
    FilterRegistrationBean<Leaving> filter = new FilterRegistrationBean<>(new Leaving(draining, inFlight));
    filter.addUrlPatterns("/work/*");
    return filter;
  }
}
