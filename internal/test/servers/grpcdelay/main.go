// Command grpcdelay is a gRPC server whose answers take as long as the request says,
// and a client of it. It is a separate module because gRPC's library is large, and
// only tests and benchmarks need it.
//
//	grpcdelay serve PORTS TLSPORTS CERTIFICATE KEY
//	grpcdelay call FROM ADDRESS PING CONNECTIONS [CERTIFICATE]
//
// A message is a text. The server answers the method Delay with "done" after the
// requested number of milliseconds. It answers the method Stream with "done" at
// once, and again after each of the requested pauses.
//
// The client opens connections from the address FROM. It pings on them every PING
// seconds, or never if PING is 0. It makes one call on each of them, and after that
// uses only one. It reads commands, and answers each with a line that begins with the
// command's number:
//
//	NUMBER delay MILLISECONDS
//	NUMBER stream MILLISECONDS...
package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

const (
	delayMethod  = "/lastcall.test/Delay"
	streamMethod = "/lastcall.test/Stream"
	done         = "done"
)

func main() {
	log.SetFlags(0)
	var err error
	switch args := os.Args[1:]; {
	case len(args) == 5 && args[0] == "serve":
		err = serve(args[1:])
	case (len(args) == 5 || len(args) == 6) && args[0] == "call":
		err = call(args[1:])
	default:
		err = errors.New("usage: grpcdelay serve PORTS TLSPORTS CERTIFICATE KEY, or grpcdelay call FROM ADDRESS PING CONNECTIONS [CERTIFICATE]")
	}
	if err != nil {
		log.Fatal(err)
	}
}

func serve(args []string) error {
	certificate, err := credentials.NewServerTLSFromFile(args[2], args[3])
	if err != nil {
		return err
	}
	failed := make(chan error)
	for i, options := range [][]grpc.ServerOption{nil, {grpc.Creds(certificate)}} {
		server := grpc.NewServer(append(options,
			grpc.UnknownServiceHandler(answer),
			grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: time.Second, PermitWithoutStream: true}))...)
		for _, port := range strings.Split(args[i], ",") {
			l, err := net.Listen("tcp", "0.0.0.0:"+port)
			if err != nil {
				return err
			}
			go func() { failed <- server.Serve(l) }()
		}
	}
	return <-failed
}

func answer(_ any, stream grpc.ServerStream) error {
	var asked wrapperspb.StringValue
	if err := stream.RecvMsg(&asked); err != nil {
		return err
	}
	method, _ := grpc.MethodFromServerStream(stream)
	if method == streamMethod {
		if err := stream.SendMsg(wrapperspb.String(done)); err != nil {
			return err
		}
	}
	for _, field := range strings.Fields(asked.Value) {
		pause, err := strconv.Atoi(field)
		if err != nil {
			return err
		}
		timer := time.NewTimer(time.Duration(pause) * time.Millisecond)
		select {
		case <-timer.C:
		case <-stream.Context().Done():
			timer.Stop()
			return stream.Context().Err()
		}
		if err := stream.SendMsg(wrapperspb.String(done)); err != nil {
			return err
		}
	}
	return nil
}

func call(args []string) error {
	ping, err := strconv.Atoi(args[2])
	if err != nil {
		return err
	}
	connections, err := strconv.Atoi(args[3])
	if err != nil {
		return err
	}
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(args[0])}}
	options := []grpc.DialOption{
		grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
			return dialer.DialContext(ctx, "tcp", address)
		}),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
	}
	if len(args) > 4 {
		certificate, err := credentials.NewClientTLSFromFile(args[4], "app")
		if err != nil {
			return err
		}
		options = append(options, grpc.WithTransportCredentials(certificate))
	}
	if ping > 0 {
		options = append(options, grpc.WithKeepaliveParams(keepalive.ClientParameters{
			Time: time.Duration(ping) * time.Second, PermitWithoutStream: true,
		}))
	}
	var conn *grpc.ClientConn
	for range connections {
		if conn, err = grpc.NewClient("passthrough:///"+args[1], options...); err != nil {
			return err
		}
		if err := unary(conn, "0"); err != nil {
			return err
		}
	}
	var mu sync.Mutex
	say := func(number string, err error) {
		mu.Lock()
		defer mu.Unlock()
		text := done
		if err != nil {
			text = err.Error()
		}
		fmt.Println(number, text)
	}
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		number, command, _ := strings.Cut(lines.Text(), " ")
		verb, asked, _ := strings.Cut(command, " ")
		switch verb {
		case "delay":
			go func() { say(number, unary(conn, asked)) }()
		case "stream":
			go func() { say(number, stream(conn, asked)) }()
		default:
			return fmt.Errorf("%q is not a command", lines.Text())
		}
	}
	return nil
}

func unary(conn *grpc.ClientConn, asked string) error {
	var got wrapperspb.StringValue
	if err := conn.Invoke(context.Background(), delayMethod, wrapperspb.String(asked), &got); err != nil {
		return err
	}
	return expect(got.Value)
}

func stream(conn *grpc.ClientConn, asked string) error {
	s, err := conn.NewStream(context.Background(), &grpc.StreamDesc{ServerStreams: true}, streamMethod)
	if err != nil {
		return err
	}
	if err := s.SendMsg(wrapperspb.String(asked)); err != nil {
		return err
	}
	if err := s.CloseSend(); err != nil {
		return err
	}
	for range len(strings.Fields(asked)) + 1 {
		var got wrapperspb.StringValue
		if err := s.RecvMsg(&got); err != nil {
			return err
		}
		if err := expect(got.Value); err != nil {
			return err
		}
	}
	var more wrapperspb.StringValue
	if err := s.RecvMsg(&more); !errors.Is(err, io.EOF) {
		return fmt.Errorf("after the last message: %v", err)
	}
	return nil
}

func expect(got string) error {
	if got != done {
		return fmt.Errorf("answered %q", got)
	}
	return nil
}
