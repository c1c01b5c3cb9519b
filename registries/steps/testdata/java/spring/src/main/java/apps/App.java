package apps;

import org.springframework.boot.SpringApplication;
import org.springframework.boot.autoconfigure.SpringBootApplication;
import org.springframework.cloud.client.ServiceInstance;
import org.springframework.cloud.client.loadbalancer.LoadBalancerClient;
import org.springframework.http.ResponseEntity;
import org.springframework.web.bind.annotation.GetMapping;
import org.springframework.web.bind.annotation.PathVariable;
import org.springframework.web.bind.annotation.RestController;

/** An app that registers itself, and says which instance its load balancer would call. */
@SpringBootApplication
@RestController
public class App {
    private final LoadBalancerClient balancer;

    public App(LoadBalancerClient balancer) {
        this.balancer = balancer;
    }

    @GetMapping("/choose/{service}")
    public ResponseEntity<String> choose(@PathVariable String service) {
        ServiceInstance instance = balancer.choose(service);
        return instance == null
                ? ResponseEntity.notFound().build()
                : ResponseEntity.ok(instance.getHost() + ":" + instance.getPort());
    }

    public static void main(String[] args) {
        SpringApplication.run(App.class, args);
    }
}
