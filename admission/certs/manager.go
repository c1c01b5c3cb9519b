package certs

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// Config is what a Manager is made of.
type Config struct {
	Client    kubernetes.Interface
	Namespace string
	Secret    string
	// Names are the DNS names and addresses under which API servers call.
	Names []string
	// Mutating and Validating are the names of the webhook configurations whose
	// caBundles are kept. One that does not exist is left out.
	Mutating, Validating []string
	Life                 Lifetimes
	Log                  *slog.Logger
}

// Manager keeps the certificates of one replica. It is safe for concurrent use.
type Manager struct {
	Config

	mu    sync.Mutex // guards everything that follows
	text  []byte     // of leaf
	leaf  *tls.Certificate
	ready bool
}

// New makes a manager. It does nothing until Run is called.
func New(c Config) *Manager { return &Manager{Config: c} }

var errNoCertificate = errors.New("there is no certificate yet")

// Get is for tls.Config.GetCertificate. It answers from memory.
func (m *Manager) Get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.leaf == nil {
		return nil, errNoCertificate
	}
	return m.leaf, nil
}

// Ready reports whether API servers have been told to trust what is served.
func (m *Manager) Ready() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.ready
}

// Run keeps the Secret and the caBundles until ctx ends. What failed is tried
// again soon, and then less and less often. While the API server cannot be
// reached, the certificate in memory is served.
func (m *Manager) Run(ctx context.Context) {
	again := soonest
	for {
		next := m.Life.every()
		if err := m.step(ctx, time.Now()); err != nil {
			if ctx.Err() == nil && !apierrors.IsConflict(err) { // it is no failure that another replica was first
				m.Log.Warn("keeping the certificates failed, it is tried again", "error", err.Error())
			}
			next, again = min(again, next), min(2*again, next)
		} else {
			again = soonest
		}
		timer := time.NewTimer(next)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
	}
}

// step looks at everything once. It returns an error if not all is as it is to be,
// a conflict if another replica has written meanwhile.
func (m *Manager) step(ctx context.Context, now time.Time) error {
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	bundles, err := m.read(ctx)
	if err != nil {
		return err
	}
	data, err := m.plan(ctx, now, func(ca []byte) bool {
		for _, b := range bundles {
			if !b.holds(ca) {
				return false
			}
		}
		return true
	})
	if err != nil {
		return err
	}
	// The bundles come first. The certificate is served all the same if they cannot
	// be written: the one before ends.
	want := bundle(data)
	var conflict error
	var wrong []error
	for _, b := range bundles {
		switch err := b.write(ctx, want); {
		case apierrors.IsConflict(err):
			conflict = err
		case err != nil:
			wrong = append(wrong, fmt.Errorf("writing the caBundle of %s: %w", b.name, err))
		}
	}
	if err := m.serve(data, conflict == nil && len(wrong) == 0); err != nil {
		wrong = append(wrong, err)
	}
	if len(wrong) == 0 {
		return conflict
	}
	return errors.Join(wrong...)
}

// plan brings the Secret up to date, and returns what it holds.
func (m *Manager) plan(ctx context.Context, now time.Time, trusted func(ca []byte) bool) (map[string][]byte, error) {
	secrets := m.Client.CoreV1().Secrets(m.Namespace)
	for range 5 {
		secret, err := secrets.Get(ctx, m.Secret, metav1.GetOptions{})
		missing := apierrors.IsNotFound(err)
		if err != nil && !missing {
			return nil, fmt.Errorf("reading Secret %s/%s: %w", m.Namespace, m.Secret, err)
		}
		if missing {
			secret = &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: m.Secret, Namespace: m.Namespace}}
		}
		data, changed, err := Plan(secret.Data, m.Names, m.Life, now, trusted)
		if err != nil || !changed {
			return data, err
		}
		secret.Data = data
		if missing {
			_, err = secrets.Create(ctx, secret, metav1.CreateOptions{})
		} else {
			_, err = secrets.Update(ctx, secret, metav1.UpdateOptions{})
		}
		switch {
		case err == nil:
			m.Log.Info("certificates renewed", "secret", m.Namespace+"/"+m.Secret)
			return data, nil
		case !apierrors.IsConflict(err) && !apierrors.IsAlreadyExists(err):
			return nil, fmt.Errorf("writing Secret %s/%s: %w", m.Namespace, m.Secret, err)
		}
		// Another replica was first.
	}
	return nil, fmt.Errorf("writing Secret %s/%s: it changes all the time", m.Namespace, m.Secret)
}

// serve takes the certificate into memory.
func (m *Manager) serve(data map[string][]byte, trusted bool) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.ready = m.ready || trusted
	if bytes.Equal(m.text, data[keyLeaf]) {
		return nil
	}
	leaf, err := tls.X509KeyPair(data[keyLeaf], data[keyLeafKey])
	if err != nil {
		return fmt.Errorf("reading the certificate of Secret %s/%s: %w", m.Namespace, m.Secret, err)
	}
	m.leaf, m.text = &leaf, data[keyLeaf]
	return nil
}
