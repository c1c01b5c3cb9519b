package events

import (
	"bytes"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
)

// Mounted is where the kubelet mounts a container's service account.
const Mounted = "/var/run/secrets/kubernetes.io/serviceaccount"

// fileLimit is how much of a mounted file is read, in bytes.
const fileLimit = 1 << 20

// Config is what a container knows about its cluster.
type Config struct {
	Host, Port string // of the API server
	Dir        string // holds the service account's token and ca.crt
}

// InCluster returns the Config of this container.
func InCluster() Config {
	return Config{os.Getenv("KUBERNETES_SERVICE_HOST"), os.Getenv("KUBERNETES_SERVICE_PORT"), Mounted}
}

// cluster is the API server that events are written to, and the pod that they are
// about.
type cluster struct {
	server    string // the API server's URL
	tokenFile string
	rootsFile string
	pod       pod
}

// pod identifies the pod. `kubectl describe` does not show an event without the
// UID.
type pod struct {
	Namespace, Name, UID string
}

// find returns the cluster, or an error that lists everything that is missing.
func (c Config) find() (cluster, error) {
	found := cluster{
		server:    (&url.URL{Scheme: "https", Host: net.JoinHostPort(c.Host, c.Port)}).String(),
		tokenFile: filepath.Join(c.Dir, "token"),
		rootsFile: filepath.Join(c.Dir, "ca.crt"),
	}
	var mistakes []error
	if c.Host == "" || c.Port == "" {
		mistakes = append(mistakes, errors.New("LASTCALL_EVENTS=true, and KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT are not set, as they are in every pod: set LASTCALL_EVENTS=false outside of a cluster"))
	}
	token, err := readToken(found.tokenFile)
	if err == nil {
		found.pod, err = podOf(token)
	}
	if err == nil {
		_, err = readRoots(found.rootsFile)
	}
	if err != nil {
		mistakes = append(mistakes, fmt.Errorf("LASTCALL_EVENTS=true, and the service account cannot be used: %w: set automountServiceAccountToken: true in the pod's spec", err))
	}
	return found, errors.Join(mistakes...)
}

// podOf returns the pod that a token was issued for, according to its claims. Every
// token that the kubelet mounts is bound to its pod.
func podOf(token string) (pod, error) {
	var claims struct {
		Kubernetes struct {
			Namespace string `json:"namespace"`
			Pod       struct {
				Name string `json:"name"`
				UID  string `json:"uid"`
			} `json:"pod"`
		} `json:"kubernetes.io"`
	}
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return pod{}, errors.New("its token is not a JSON web token")
	}
	text, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil || json.Unmarshal(text, &claims) != nil {
		return pod{}, errors.New("its token is not a JSON web token") // the error must not contain any part of the token
	}
	k := claims.Kubernetes
	if k.Namespace == "" || k.Pod.Name == "" || k.Pod.UID == "" {
		return pod{}, errors.New("its token names no pod; the tokens that the kubelet mounts by default name one")
	}
	return pod{Namespace: k.Namespace, Name: k.Pod.Name, UID: k.Pod.UID}, nil
}

// readToken reads the token. It changes about once an hour.
func readToken(file string) (string, error) {
	text, err := read(file)
	if err != nil {
		return "", err
	}
	return string(bytes.TrimSpace(text)), nil
}

// readRoots reads the certificates that the API server's certificate is verified
// with.
func readRoots(file string) (*x509.CertPool, error) {
	text, err := read(file)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("%s holds no certificate", file)
	}
	return roots, nil
}

func read(file string) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // only read
	text, err := io.ReadAll(io.LimitReader(f, fileLimit+1))
	switch {
	case err != nil:
		return nil, err
	case len(text) > fileLimit:
		return nil, fmt.Errorf("%s is longer than %d bytes", file, fileLimit)
	}
	return text, nil
}
