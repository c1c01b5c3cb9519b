package servers

import (
	"fmt"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"
)

// EtcdMember is a running member of an etcd cluster.
type EtcdMember struct {
	*Process
	URL string // for clients
	// With TLS: the CA, and a certificate signed by it with its key.
	CAFile, CertFile, KeyFile string
}

// StartEtcd starts a cluster with the given number of members and waits until each
// answers. With TLS, clients must have a certificate of the CA. The members are
// stopped at the end of the test.
func StartEtcd(t testing.TB, members int, withTLS bool) []*EtcdMember {
	t.Helper()
	dir := t.TempDir()
	clients, peers := make([]int, members), make([]int, members)
	var cluster []string
	for n := range members {
		freePorts(t, &clients[n], &peers[n])
		cluster = append(cluster, fmt.Sprintf("m%d=http://127.0.0.1:%d", n, peers[n]))
	}
	scheme := "http"
	var ca, cert, key string
	if withTLS {
		scheme = "https"
		ca, cert, key = WriteCertificates(t, dir, "etcd")
	}
	all := make([]*EtcdMember, members)
	for n := range members {
		m := &EtcdMember{URL: fmt.Sprintf("%s://127.0.0.1:%d", scheme, clients[n]), CAFile: ca, CertFile: cert, KeyFile: key}
		peer := fmt.Sprintf("http://127.0.0.1:%d", peers[n])
		args := []string{
			"--name", fmt.Sprintf("m%d", n), "--data-dir", fmt.Sprintf("%s/m%d", dir, n), "--log-level", "error",
			"--listen-client-urls", m.URL, "--advertise-client-urls", m.URL,
			"--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer,
			"--initial-cluster", strings.Join(cluster, ","), "--initial-cluster-token", "test",
			"--unsafe-no-fsync",
		}
		if withTLS {
			args = append(args, "--client-cert-auth", "--trusted-ca-file", ca, "--cert-file", cert, "--key-file", key)
		}
		m.Process = startProcess(t, syscall.SIGKILL, "etcd", args...)
		all[n] = m
	}
	for n, m := range all {
		m.Wait(t, func() error {
			if withTLS {
				return listens(clients[n])
			}
			return healthy(t, m.URL+"/health")
		})
	}
	return all
}

// healthy requests a page that answers 200 when its server is up.
func healthy(t testing.TB, url string) error {
	client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	return get(t.Context(), client, url)
}
