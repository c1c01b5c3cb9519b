package lastcall.example;

import org.springframework.boot.SpringApplication;
import org.springframework.boot.autoconfigure.SpringBootApplication;
import org.springframework.web.bind.annotation.GetMapping;
import org.springframework.web.bind.annotation.RequestParam;
import org.springframework.web.bind.annotation.RestController;

/** A service that registers itself in Eureka and takes its time to answer. */
@SpringBootApplication
@RestController
public class SlowApp {
  public static void main(String[] args) {
    SpringApplication.run(SlowApp.class, args);
  }

  /** Answers after the given number of milliseconds, as a slow query would. */
  @GetMapping("/work")
  String work(@RequestParam(defaultValue = "500") long ms) throws InterruptedException {
    Thread.sleep(Math.min(ms, 60_000));
    return "done in " + ms + " ms\n";
  }
}
