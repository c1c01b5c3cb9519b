package certs

import (
	"bytes"
	"context"
	"fmt"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// configuration is a webhook configuration and the function that updates it.
type configuration struct {
	name    string
	clients []*admissionregistrationv1.WebhookClientConfig
	update  func(context.Context) error
}

// read reads the webhook configurations that exist.
func (m *Manager) read(ctx context.Context) (all []configuration, err error) {
	api := m.Client.AdmissionregistrationV1()
	for _, name := range m.Mutating {
		c, err := api.MutatingWebhookConfigurations().Get(ctx, name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("reading MutatingWebhookConfiguration %s: %w", name, err)
		}
		one := configuration{name: name, update: func(ctx context.Context) error {
			_, err := api.MutatingWebhookConfigurations().Update(ctx, c, metav1.UpdateOptions{})
			return err
		}}
		for i := range c.Webhooks {
			one.clients = append(one.clients, &c.Webhooks[i].ClientConfig)
		}
		all = append(all, one)
	}
	for _, name := range m.Validating {
		c, err := api.ValidatingWebhookConfigurations().Get(ctx, name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("reading ValidatingWebhookConfiguration %s: %w", name, err)
		}
		one := configuration{name: name, update: func(ctx context.Context) error {
			_, err := api.ValidatingWebhookConfigurations().Update(ctx, c, metav1.UpdateOptions{})
			return err
		}}
		for i := range c.Webhooks {
			one.clients = append(one.clients, &c.Webhooks[i].ClientConfig)
		}
		all = append(all, one)
	}
	return all, nil
}

// holds reports whether all caBundles of the configuration hold ca.
func (c *configuration) holds(ca []byte) bool {
	for _, client := range c.clients {
		if !holds(client.CABundle, ca) {
			return false
		}
	}
	return true
}

// write sets the caBundles to bundle. It makes no call if they already are.
func (c *configuration) write(ctx context.Context, bundle []byte) error {
	same := true
	for _, client := range c.clients {
		same = same && bytes.Equal(client.CABundle, bundle)
		client.CABundle = bundle
	}
	if same {
		return nil
	}
	return c.update(ctx)
}
