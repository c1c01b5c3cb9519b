package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"

	"lastcall/admission/webhook"
)

func serve(ctx context.Context, args []string, stderr io.Writer) int {
	flags := flag.NewFlagSet("lastcall-admission serve", flag.ContinueOnError)
	flags.SetOutput(stderr)
	listen := flags.String("listen", ":9443", "`address` of the HTTPS server")
	certFile := flags.String("cert-file", "/etc/lastcall/tls/tls.crt", "PEM `file` of the certificate; read again when it changes")
	keyFile := flags.String("key-file", "/etc/lastcall/tls/tls.key", "PEM `file` of its key")
	parameters := flags.String("parameters", "/etc/lastcall/injection", "`folder` in which the ConfigMap lastcall-injection is mounted")
	namespace := flags.String("namespace", "lastcall-system", "this program's own `namespace`, whose pods stay as they are, like those of kube-system")
	kubernetes := flags.String("kubernetes-version", "", "the cluster's `version`, such as 1.28, for warnings about it")
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return good
		}
		return misused
	}
	log := slog.New(slog.NewJSONHandler(stderr, nil))
	minor, err := minorOf(*kubernetes)
	if err != nil || flags.NArg() > 0 {
		fmt.Fprintln(stderr, "lastcall-admission serve:", errors.Join(err, unexpected(flags.Args())))
		return misused
	}
	handler := &webhook.Handler{
		Parameters: webhook.ReadFolder(*parameters),
		Never:      []string{"kube-system", *namespace},
		Minor:      minor,
		Log:        log,
	}
	certificate, err := webhook.NewCertificate(*certFile, *keyFile)
	if err != nil {
		log.Error("cannot start", "error", err.Error())
		return findings
	}
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", *listen)
	if err != nil {
		log.Error("cannot start", "error", err.Error())
		return findings
	}
	log.Info("serving", "address", l.Addr().String(), "version", version)
	if err := handler.Serve(ctx, l, certificate); err != nil {
		log.Error("stopped", "error", err.Error())
		return findings
	}
	return good
}

func unexpected(args []string) error {
	if len(args) == 0 {
		return nil
	}
	return fmt.Errorf("unexpected %q", args)
}
