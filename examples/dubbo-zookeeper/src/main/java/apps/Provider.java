package apps;

import org.apache.dubbo.config.ApplicationConfig;
import org.apache.dubbo.config.ProtocolConfig;
import org.apache.dubbo.config.RegistryConfig;
import org.apache.dubbo.config.ServiceConfig;
import org.apache.dubbo.config.bootstrap.DubboBootstrap;

/** Provider NAME ZOOKEEPER PORT QOS-PORT [HOST]: registers its service by interface and by application. */
public final class Provider {
    public static void main(String[] args) {
        ApplicationConfig application = new ApplicationConfig("greeter");
        application.setQosPort(Integer.parseInt(args[3]));
        ProtocolConfig protocol = new ProtocolConfig("dubbo", Integer.parseInt(args[2]));
        if (args.length > 4) {
            protocol.setHost(args[4]);
        }
        ServiceConfig<Greeter> service = new ServiceConfig<>();
        service.setInterface(Greeter.class);
        service.setRef(milliseconds -> {
            try {
                Thread.sleep(milliseconds);
            } catch (InterruptedException e) {
                throw new IllegalStateException(e);
            }
            return args[0];
        });
        DubboBootstrap.getInstance()
                .application(application)
                .registry(new RegistryConfig("zookeeper://" + args[1]))
                .protocol(protocol)
                .service(service)
                .start()
                .await();
    }
}
