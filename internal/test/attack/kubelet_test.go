package attack

import (
	"net/http"
	"slices"
	"testing"
)

const (
	// hostile is the number of callers besides the kubelet.
	hostile = 1000
	// asked is how often the kubelet makes each of its calls. `make bench` measures
	// how long they take; here none may fail.
	asked = 50
)

// The kubelet is served whoever else calls.
func TestKubeletIsServedFirst(t *testing.T) {
	v := StartVictim(t, &program)
	crowd := Start(t, v, hostile, slices.DeleteFunc(Kinds(), func(k Kind) bool { return k.Drains })...)
	v.Asks("/readyz", http.StatusOK, asked)
	v.Asks("/livez", http.StatusOK, asked)
	crowd.Stop()
	crowd = Start(t, v, hostile, Kinds()...)
	v.AwaitDrain()
	v.Asks("/readyz", http.StatusServiceUnavailable, asked)
	v.Asks("/livez", http.StatusOK, asked)
	v.Drains()
	v.Asks("/prestop", http.StatusOK, asked)
	crowd.Stop()
}
