import static io.netty.handler.codec.http.HttpVersion.HTTP_1_1;

import io.netty.bootstrap.ServerBootstrap;
import io.netty.buffer.Unpooled;
import io.netty.channel.ChannelHandlerContext;
import io.netty.channel.ChannelInitializer;
import io.netty.channel.SimpleChannelInboundHandler;
import io.netty.channel.nio.NioEventLoopGroup;
import io.netty.channel.socket.SocketChannel;
import io.netty.channel.socket.nio.NioServerSocketChannel;
import io.netty.handler.codec.http.DefaultFullHttpResponse;
import io.netty.handler.codec.http.DefaultHttpContent;
import io.netty.handler.codec.http.DefaultHttpResponse;
import io.netty.handler.codec.http.HttpObject;
import io.netty.handler.codec.http.HttpRequest;
import io.netty.handler.codec.http.HttpResponseStatus;
import io.netty.handler.codec.http.HttpServerCodec;
import io.netty.handler.codec.http.HttpUtil;
import io.netty.handler.codec.http.LastHttpContent;
import io.netty.handler.codec.http.QueryStringDecoder;
import io.netty.handler.ssl.SslContext;
import io.netty.handler.ssl.SslContextBuilder;
import io.netty.handler.ssl.SslProvider;
import java.io.File;
import java.nio.charset.StandardCharsets;
import java.util.List;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;

/**
 * The app of the tests on Netty, which answers from other threads: NettyServer PORT BACKEND.
 * TLS_CERT and TLS_KEY in the environment are PEM files for TLS.
 */
public class NettyServer extends SimpleChannelInboundHandler<HttpObject> {
  private static final ExecutorService WORKERS = Executors.newCachedThreadPool();
  private final Backend backend;
  private String uri;

  NettyServer(Backend backend) {
    this.backend = backend;
  }

  public static void main(String[] args) throws Exception {
    Backend backend = new Backend(args[1]);
    String certificate = System.getenv("TLS_CERT");
    SslContext tls =
        certificate == null
            ? null
            : SslContextBuilder.forServer(new File(certificate), new File(System.getenv("TLS_KEY")))
                .sslProvider(SslProvider.JDK)
                .build();
    new ServerBootstrap()
        .group(new NioEventLoopGroup(2))
        .channel(NioServerSocketChannel.class)
        .childHandler(
            new ChannelInitializer<SocketChannel>() {
              @Override
              protected void initChannel(SocketChannel channel) {
                if (tls != null) {
                  channel.pipeline().addLast(tls.newHandler(channel.alloc()));
                }
                channel.pipeline().addLast(new HttpServerCodec(), new NettyServer(backend));
              }
            })
        .bind("127.0.0.1", Integer.parseInt(args[0]))
        .sync()
        .channel()
        .closeFuture()
        .sync();
  }

  @Override
  protected void channelRead0(ChannelHandlerContext ctx, HttpObject part) {
    if (part instanceof HttpRequest request) {
      uri = request.uri();
    }
    if (part instanceof LastHttpContent) { // what came before is not needed
      String asked = uri;
      WORKERS.execute(() -> answer(ctx, new QueryStringDecoder(asked)));
    }
  }

  private void answer(ChannelHandlerContext ctx, QueryStringDecoder asked) {
    List<String> ids = asked.parameters().getOrDefault("id", List.of());
    switch (asked.path()) {
      case "/hold" -> {
        backend.await(ids.get(0));
        whole(ctx, "ok".getBytes(StandardCharsets.UTF_8));
      }
      case "/download" -> whole(ctx, new byte[32 << 20]);
      case "/stream" -> {
        var head = new DefaultHttpResponse(HTTP_1_1, HttpResponseStatus.OK);
        HttpUtil.setTransferEncodingChunked(head, true);
        ctx.write(head);
        tick(ctx);
        for (String id : ids) {
          backend.await(id);
          tick(ctx);
        }
        ctx.writeAndFlush(LastHttpContent.EMPTY_LAST_CONTENT);
      }
      default -> whole(ctx, "ok".getBytes(StandardCharsets.UTF_8));
    }
  }

  private static void whole(ChannelHandlerContext ctx, byte[] body) {
    var response = new DefaultFullHttpResponse(HTTP_1_1, HttpResponseStatus.OK, Unpooled.wrappedBuffer(body));
    HttpUtil.setContentLength(response, body.length);
    ctx.writeAndFlush(response);
  }

  private static void tick(ChannelHandlerContext ctx) {
    ctx.writeAndFlush(new DefaultHttpContent(Unpooled.copiedBuffer("tick\n", StandardCharsets.UTF_8)));
  }
}
