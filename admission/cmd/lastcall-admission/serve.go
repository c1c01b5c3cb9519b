package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"time"

	"lastcall/admission/webhook"
)

// options are the flags of serve.
type options struct {
	listen, certFile, keyFile, parameters, namespace, kubernetes string

	gate           bool
	hold, gone     time.Duration
	secret         string
	service        string
	serviceAccount string
	kubeconfig     string
	linger         time.Duration
}

func parseServe(args []string, stderr io.Writer) (*options, error) {
	o := new(options)
	flags := flag.NewFlagSet("lastcall-admission serve", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&o.listen, "listen", ":9443", "`address` of the HTTPS server")
	flags.StringVar(&o.certFile, "cert-file", "/etc/lastcall/tls/tls.crt", "PEM `file` of the certificate; read again when it changes")
	flags.StringVar(&o.keyFile, "key-file", "/etc/lastcall/tls/tls.key", "PEM `file` of its key")
	flags.StringVar(&o.parameters, "parameters", "/etc/lastcall/injection", "`folder` in which the ConfigMap lastcall-injection is mounted; empty: no injection")
	flags.StringVar(&o.namespace, "namespace", "lastcall-system", "this program's own `namespace`; its pods are never changed or held, like those of kube-system")
	flags.StringVar(&o.kubernetes, "kubernetes-version", "", "the cluster's `version`, such as 1.28, for warnings about it")
	flags.BoolVar(&o.gate, "gate", false, "hold pods with the label lastcall/gate until they are drained")
	flags.DurationVar(&o.hold, "gate-hold", 15*time.Second, "how long a person's deletion is kept waiting for its answer, so that kubectl delete succeeds; at most 20s; 0s: not at all")
	flags.DurationVar(&o.gone, "gate-sidecar-gone", time.Minute, "how long a sidecar may be unreachable before its pod is released")
	flags.StringVar(&o.secret, "secret", "", "make the certificates, and keep them in this `Secret` of the namespace, instead of reading them from files")
	flags.StringVar(&o.service, "service", "lastcall-admission", "the Service's `name`, for the certificate")
	flags.StringVar(&o.serviceAccount, "service-account", "lastcall-admission", "`name` of this program's ServiceAccount, whose own deletions are let through")
	flags.StringVar(&o.kubeconfig, "kubeconfig", "", "kubeconfig `file` for the API server; not needed in a pod")
	flags.DurationVar(&o.linger, "linger", 5*time.Second, "how long to keep serving after SIGTERM, until API servers call the other replica")
	if err := flags.Parse(args); err != nil {
		return nil, err
	}
	var wrong error
	if flags.NArg() > 0 {
		wrong = fmt.Errorf("unexpected %q", flags.Args())
	}
	if o.hold < 0 || o.hold > 20*time.Second {
		wrong = errors.Join(wrong, fmt.Errorf("-gate-hold %s: must be from 0s to 20s: the API server waits 30 s", o.hold))
	}
	if o.gone <= 0 {
		wrong = errors.Join(wrong, fmt.Errorf("-gate-sidecar-gone %s: must be above 0s", o.gone))
	}
	return o, wrong
}

func serve(ctx context.Context, args []string, stderr io.Writer) int {
	o, err := parseServe(args, stderr)
	if errors.Is(err, flag.ErrHelp) {
		return good
	}
	minor := 0
	if o != nil {
		var unreadable error
		minor, unreadable = minorOf(o.kubernetes)
		err = errors.Join(err, unreadable)
	}
	if err != nil {
		fmt.Fprintln(stderr, "lastcall-admission serve:", err)
		return misused
	}
	log := slog.New(slog.NewJSONHandler(stderr, nil))
	handler := &webhook.Handler{Never: []string{"kube-system", o.namespace}, Minor: minor, Log: log}
	if o.parameters != "" {
		handler.Parameters = webhook.ReadFolder(o.parameters)
	}
	if err := o.run(ctx, handler, log); err != nil {
		log.Error("stopped", "error", err.Error())
		return findings
	}
	return good
}

// run serves until ctx ends.
func (o *options) run(ctx context.Context, handler *webhook.Handler, log *slog.Logger) error {
	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	certificates, err := o.attach(ctx, handler, log, func(name string, part func() error) {
		running.Go(func() {
			if err := part(); err != nil {
				log.Error(name+" stopped", "error", err.Error())
				cancel()
			}
		})
	})
	if err != nil {
		return err
	}
	gate := handler.Metrics
	handler.Metrics = func(w io.Writer) {
		writeMetrics(w, handler.NotReady(), certificates)
		if gate != nil {
			gate(w)
		}
	}
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", o.listen)
	if err != nil {
		return err
	}
	log.Info("serving", "address", l.Addr().String(), "version", version)
	serving, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	go func() {
		defer stop()
		<-ctx.Done()
		log.Info("stopping", "in", o.linger.String())
		end := time.NewTimer(o.linger)
		defer end.Stop()
		select {
		case <-end.C:
		case <-serving.Done():
		}
	}()
	return handler.Serve(serving, l, certificates)
}
