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

// Config is the configuration of a Manager.
type Config struct {
	Client    kubernetes.Interface
	Namespace string
	Secret    string
	// Names are the DNS names and addresses under which API servers call.
	Names []string
	// Mutating and Validating are the names of the webhook configurations whose
	// caBundles the Manager writes. Names that do not exist are ignored.
	Mutating, Validating []string
	Life                 Lifetimes
	Log                  *slog.Logger
}

// Manager keeps the certificates of one replica up to date. It is safe for
// concurrent use.
type Manager struct {
	Config

	// The next authority, and since when this replica has seen it in all caBundles.
	// Only Run uses them.
	next  []byte
	since time.Time

	mu    sync.Mutex // guards everything that follows
	text  []byte     // of leaf
	leaf  *tls.Certificate
	ready bool
}

// New makes a manager. It does nothing until Run is called.
func New(c Config) *Manager { return &Manager{Config: c} }

var errNoCertificate = errors.New("there is no certificate yet")

// Get returns the current certificate from memory. It is meant for
// tls.Config.GetCertificate.
func (m *Manager) Get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.leaf == nil {
		return nil, errNoCertificate
	}
	return m.leaf, nil
}

// Ready reports whether all caBundles have been written at least once, so that API
// servers trust the certificate that is served.
func (m *Manager) Ready() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.ready
}

// Run keeps the Secret and the caBundles up to date until ctx ends. It retries after
// a failure, with a growing delay. While the API server cannot be reached, Get
// returns the certificate in memory.
func (m *Manager) Run(ctx context.Context) {
	again := soonest
	for {
		next := m.Life.every()
		if err := m.step(ctx, time.Now()); err != nil {
			if ctx.Err() == nil && !apierrors.IsConflict(err) { // a conflict is no failure: another replica wrote first
				m.Log.Warn("renewing the certificates failed, will retry", "error", err.Error())
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

// step brings the Secret, the caBundles and the certificate in memory up to date
// once. It returns an error if something could not be updated, and a conflict error
// if another replica wrote meanwhile.
func (m *Manager) step(ctx context.Context, now time.Time) error {
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	bundles, err := m.read(ctx)
	if err != nil {
		return err
	}
	data, err := m.plan(ctx, now, func(ca []byte) bool { return m.trusted(bundles, ca, now) })
	if err != nil {
		return err
	}
	// The caBundles are written before the certificate is served. If they cannot be
	// written, it is served nevertheless, because the previous one expires.
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

// trusted reports whether all caBundles have held ca for so long that API servers have
// received them. It is false for the first time after a start of the replica.
func (m *Manager) trusted(bundles []configuration, ca []byte, now time.Time) bool {
	for _, b := range bundles {
		if !b.holds(ca) {
			m.next = nil
			return false
		}
	}
	if !bytes.Equal(m.next, ca) {
		m.next, m.since = ca, now
	}
	return now.Sub(m.since) >= m.Life.spread()
}

// plan brings the Secret up to date and returns its data.
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
		// Another replica wrote first.
	}
	return nil, fmt.Errorf("writing Secret %s/%s: too many conflicts with other writers", m.Namespace, m.Secret)
}

// serve makes Get return the certificate in data. trusted reports whether all
// caBundles hold its authority.
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
