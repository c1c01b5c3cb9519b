// Command grpc is a gRPC server and a gRPC client. The counter's tests check
// their connection. It is a separate module because gRPC's library is large,
// and nothing else here needs it.
//
//	grpc serve PORT BACKEND
//	grpc call ADDRESS
//
// A message is a text. The server answers each message with the same text. If
// the text begins with "hold ", it first asks the backend whether it may
// answer.
//
// The client has one connection. It reads commands, and writes each text on its
// own line when it was answered:
//
//	call TEXT  a call with one message
//	send TEXT  a message on a stream; the first one opens the stream
//	close      closes that stream
package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

const method = "/lastcall.test/Echo"

func main() {
	log.SetFlags(0)
	var err error
	switch args := os.Args[1:]; {
	case len(args) == 3 && args[0] == "serve":
		err = serve(args[1], args[2])
	case len(args) == 2 && args[0] == "call":
		err = call(args[1])
	default:
		err = errors.New("usage: grpc serve PORT BACKEND, or grpc call ADDRESS")
	}
	if err != nil {
		log.Fatal(err)
	}
}

func serve(port, backend string) error {
	l, err := net.Listen("tcp", "127.0.0.1:"+port)
	if err != nil {
		return err
	}
	echo := func(_ any, stream grpc.ServerStream) error {
		for {
			var m wrapperspb.StringValue
			if err := stream.RecvMsg(&m); err != nil {
				return passOverEOF(err)
			}
			if id, held := strings.CutPrefix(m.Value, "hold "); held {
				resp, err := http.Get("http://" + backend + "/hold?id=" + id)
				if err != nil {
					return err
				}
				resp.Body.Close()
			}
			if err := stream.SendMsg(&m); err != nil {
				return err
			}
		}
	}
	return grpc.NewServer(
		grpc.UnknownServiceHandler(echo),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: time.Second, PermitWithoutStream: true}),
	).Serve(l)
}

func passOverEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

func call(address string) error {
	conn, err := grpc.NewClient("passthrough:///"+address,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		// The library accepts no less than 10 s.
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, PermitWithoutStream: true}),
	)
	if err != nil {
		return err
	}
	var stream grpc.ClientStream
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		command, text, _ := strings.Cut(lines.Text(), " ")
		m := wrapperspb.String(text)
		switch command {
		case "call":
			go func() {
				var answer wrapperspb.StringValue
				if err := conn.Invoke(context.Background(), method, m, &answer); err != nil {
					log.Fatal(err)
				}
				fmt.Println(answer.Value)
			}()
		case "send":
			if stream == nil {
				both := &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}
				if stream, err = conn.NewStream(context.Background(), both, method); err != nil {
					return err
				}
			}
			if err := stream.SendMsg(m); err != nil {
				return err
			}
			var answer wrapperspb.StringValue
			if err := stream.RecvMsg(&answer); err != nil {
				return err
			}
			fmt.Println(answer.Value)
		case "close":
			if err := stream.CloseSend(); err != nil {
				return err
			}
			if err := passOverEOF(stream.RecvMsg(m)); err != nil {
				return err
			}
			fmt.Println("closed")
		default:
			return fmt.Errorf("%s is no command", command)
		}
	}
	return nil
}
