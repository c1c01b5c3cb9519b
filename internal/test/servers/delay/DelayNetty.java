import io.netty.bootstrap.ServerBootstrap;
import io.netty.buffer.Unpooled;
import io.netty.channel.ChannelHandlerContext;
import io.netty.channel.ChannelInitializer;
import io.netty.channel.SimpleChannelInboundHandler;
import io.netty.channel.nio.NioEventLoopGroup;
import io.netty.channel.socket.SocketChannel;
import io.netty.channel.socket.nio.NioServerSocketChannel;
import io.netty.handler.codec.http.DefaultFullHttpResponse;
import io.netty.handler.codec.http.FullHttpRequest;
import io.netty.handler.codec.http.HttpObjectAggregator;
import io.netty.handler.codec.http.HttpResponseStatus;
import io.netty.handler.codec.http.HttpServerCodec;
import io.netty.handler.codec.http.HttpUtil;
import io.netty.handler.codec.http.HttpVersion;
import io.netty.handler.ssl.SslContext;
import io.netty.handler.ssl.SslContextBuilder;
import io.netty.handler.ssl.SslProvider;
import java.io.File;
import java.nio.charset.StandardCharsets;
import java.util.concurrent.TimeUnit;

/** Answers /delay/MS after MS milliseconds: DelayNetty PORTS TLSPORTS CERTIFICATE KEY. */
public class DelayNetty extends SimpleChannelInboundHandler<FullHttpRequest> {
  private static final String PREFIX = "/delay/";

  public static void main(String[] args) throws Exception {
    SslContext tls = SslContextBuilder.forServer(new File(args[2]), new File(args[3])).sslProvider(SslProvider.JDK).build();
    var group = new NioEventLoopGroup(2);
    for (String port : args[0].split(",")) {
      listen(group, port, null);
    }
    for (String port : args[1].split(",")) {
      listen(group, port, tls);
    }
  }

  private static void listen(NioEventLoopGroup group, String port, SslContext tls) throws Exception {
    new ServerBootstrap()
        .group(group)
        .channel(NioServerSocketChannel.class)
        .childHandler(
            new ChannelInitializer<SocketChannel>() {
              @Override
              protected void initChannel(SocketChannel channel) {
                if (tls != null) {
                  channel.pipeline().addLast(tls.newHandler(channel.alloc()));
                }
                channel.pipeline().addLast(new HttpServerCodec(), new HttpObjectAggregator(1 << 20), new DelayNetty());
              }
            })
        .bind(Integer.parseInt(port))
        .sync();
  }

  @Override
  protected void channelRead0(ChannelHandlerContext ctx, FullHttpRequest request) {
    String uri = request.uri();
    long millis = uri.startsWith(PREFIX) ? Long.parseLong(uri.substring(PREFIX.length())) : 0;
    var response =
        new DefaultFullHttpResponse(
            HttpVersion.HTTP_1_1, HttpResponseStatus.OK, Unpooled.copiedBuffer("done", StandardCharsets.UTF_8));
    HttpUtil.setContentLength(response, response.content().readableBytes());
    ctx.executor().schedule(() -> ctx.writeAndFlush(response), millis, TimeUnit.MILLISECONDS);
  }

  @Override
  public void exceptionCaught(ChannelHandlerContext ctx, Throwable cause) {
    ctx.close(); // the client is gone
  }
}
