package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/record"

	"lastcall/admission/certs"
	"lastcall/admission/gate"
	"lastcall/admission/webhook"
)

// The names in deploy/admission.
const (
	injectConfiguration = "lastcall-inject"
	checkConfiguration  = "lastcall-check"
	gateConfiguration   = "lastcall-gate"
)

// attach adds the parts that need the API server to the handler, starts them, and
// returns the certificates. Without the gate and a Secret, it calls no API server.
func (o *options) attach(ctx context.Context, h *webhook.Handler, log *slog.Logger, start func(name string, part func() error)) (webhook.Certificates, error) {
	ready := []func() error{func() error {
		if ctx.Err() != nil {
			return errors.New("it is stopping")
		}
		return nil
	}}
	h.Ready = func() error {
		for _, r := range ready {
			if err := r(); err != nil {
				return err
			}
		}
		return nil
	}
	var client kubernetes.Interface
	if o.gate || o.secret != "" {
		var err error
		if client, err = o.client(); err != nil {
			return nil, err
		}
	}
	if o.gate {
		g := gate.New(gate.Config{
			Client: client,
			Own:    "system:serviceaccount:" + o.namespace + ":" + o.serviceAccount,
			Never:  h.Never,
			Hold:   o.hold,
			Gone:   o.gone,
			Events: recorder(ctx, client),
			Log:    log,
		})
		h.Gate, h.Metrics = g.Webhook(ctx), g.Metrics.Write
		start("the gate", func() error { return g.Run(ctx) })
		ready = append(ready, func() error {
			if !g.Synced() {
				return errors.New("the gate does not know all pods yet")
			}
			return nil
		})
	}
	if o.secret == "" {
		return webhook.NewCertificate(o.certFile, o.keyFile)
	}
	m := certs.New(certs.Config{
		Client: client, Namespace: o.namespace, Secret: o.secret,
		Names:    []string{o.service + "." + o.namespace + ".svc"},
		Mutating: []string{injectConfiguration}, Validating: []string{checkConfiguration, gateConfiguration},
		Life: certs.Defaults(), Log: log,
	})
	start("the certificates", func() error { m.Run(ctx); return nil })
	ready = append(ready, func() error {
		if !m.Ready() {
			return errors.New("the API server does not trust the certificate yet")
		}
		return nil
	})
	return m, nil
}

// client returns a client for the API server.
func (o *options) client() (kubernetes.Interface, error) {
	config, err := clientcmd.BuildConfigFromFlags("", o.kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("finding the API server: %w; outside of a pod, set -kubeconfig", err)
	}
	config.UserAgent = "lastcall-admission/" + version
	config.Timeout = 0 // watches have no timeout; every other call has its own
	config.QPS, config.Burst = 100, 200
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("making a client of the API server: %w", err)
	}
	return client, nil
}

// recorder returns a recorder that writes Events until ctx ends.
func recorder(ctx context.Context, client kubernetes.Interface) record.EventRecorder {
	broadcaster := record.NewBroadcasterWithCorrelatorOptions(record.CorrelatorOptions{BurstSize: 50, QPS: 1.0 / float32(time.Minute/time.Second)})
	broadcaster.StartRecordingToSink(&typedcorev1.EventSinkImpl{Interface: client.CoreV1().Events("")})
	context.AfterFunc(ctx, broadcaster.Shutdown)
	return broadcaster.NewRecorder(scheme.Scheme, corev1.EventSource{Component: "lastcall-gate"})
}
