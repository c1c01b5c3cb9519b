package apps;

import org.apache.dubbo.config.ApplicationConfig;
import org.apache.dubbo.config.ProtocolConfig;
import org.apache.dubbo.config.RegistryConfig;
import org.apache.dubbo.config.ServiceConfig;
import org.apache.dubbo.config.bootstrap.DubboBootstrap;

/** Provider NAME ZOOKEEPER-PORT PORT QOS-PORT: registers by interface and by application. */
public final class Provider {
    public static void main(String[] args) {
        ApplicationConfig application = new ApplicationConfig("greeter");
        application.setQosPort(Integer.parseInt(args[3]));
        ProtocolConfig protocol = new ProtocolConfig("dubbo", Integer.parseInt(args[2]));
        protocol.setHost("127.0.0.1");
        ServiceConfig<Greeter> service = new ServiceConfig<>();
        service.setInterface(Greeter.class);
        service.setRef(() -> args[0]);
        DubboBootstrap.getInstance()
                .application(application)
                .registry(new RegistryConfig("zookeeper://127.0.0.1:" + args[1]))
                .protocol(protocol)
                .service(service)
                .start()
                .await();
    }
}
