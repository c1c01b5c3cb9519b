package nacos

import (
	"context"
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
)

// markKey is the metadata key that shows whose withdrawal disabled an instance:
// the pod, and the connection with which the instance was registered at that
// time, if known.
const markKey = "lastcall.withdrawn"

// mark is the value of markKey.
type mark struct{ pod, connection string }

func (m mark) String() string { return strings.TrimSpace(m.pod + " " + m.connection) }

// markOf returns the mark of an instance, and false if there is none.
func markOf(h host) (mark, bool) {
	value, ok := h.Metadata[markKey]
	pod, connection, _ := strings.Cut(value, " ")
	return mark{pod, connection}, ok
}

// precedes reports whether m was set for an earlier registration than the
// present one of now: for another pod, or for another connection.
func (m mark) precedes(now mark) bool {
	return m.pod != now.pod || m.connection != "" && now.connection != "" && m.connection != now.connection
}

// batch returns the request that adds a metadata key to an instance, or removes
// it if the value is empty. All other keys stay as they are.
func (t *target) batch(v version, as naming, ephemeral bool, value string) (request, error) {
	instances, err := json.Marshal([]map[string]any{{
		"ip": as.ip, "port": t.port, "clusterName": as.cluster, "ephemeral": strconv.FormatBool(ephemeral),
	}})
	if err != nil {
		return request{}, err
	}
	metadata, err := json.Marshal(map[string]string{markKey: value})
	if err != nil {
		return request{}, err
	}
	r := request{method: http.MethodPut, path: instancePath(v) + "/metadata/batch", query: t.service.query(v == v1)}
	if value == "" {
		r.method = http.MethodDelete
	}
	r.query.Set("instances", string(instances))
	r.query.Set("metadata", string(metadata))
	r.query.Set("consistencyType", "ephemeral")
	if !ephemeral {
		r.query.Set("consistencyType", "persist")
	}
	return r, nil
}

// setMark adds the mark to the metadata that operators set, or removes it. It
// does nothing if the server cannot change a single key.
func (s *server) setMark(ctx context.Context, t *target, as naming, h host, value string) error {
	v, marks := s.known()
	if marks == no {
		return nil
	}
	r, err := t.batch(v, as, h.Ephemeral == nil || *h.Ephemeral, value)
	if err != nil {
		return err
	}
	a, err := s.call(ctx, r)
	if err == nil && s.noteMarks(v, a) == no {
		return nil
	}
	_, err = s.done(a, v, r, err)
	return err
}

// canMark reports whether the server can mark instances. For servers of v1 it
// tries to mark an instance that does not exist, which changes nothing.
func (s *server) canMark(ctx context.Context, t *target) (bool, error) {
	v, marks := s.known()
	if marks != notKnown || v != v1 {
		return marks != no, nil
	}
	r, err := t.batch(v, naming{"192.0.2.1", t.cluster}, true, "nobody")
	if err != nil {
		return false, err
	}
	a, err := s.call(ctx, r)
	if err != nil {
		return false, err
	}
	return s.noteMarks(v, a) == yes, nil
}

// noteMarks records what the answer to a batch shows about the server.
func (s *server) noteMarks(v version, a answer) answered {
	marks := yes
	if a.absent() || v == v1 && a.code == http.StatusNotFound {
		marks = no
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.marks = marks
	return marks
}

// connection returns the id of the gRPC connection that owns the instance. It
// is empty if heartbeats or nobody own it, and if the server does not show it:
// v1 has no such call, and the call of v2 needs administrator rights.
func (s *server) connection(ctx context.Context, t *target, as naming) (string, error) {
	v, _ := s.known()
	if v == v1 {
		return "", nil
	}
	r := request{
		method: http.MethodGet,
		path:   strings.Replace(instancePath(v), "/instance", "/client/service/publisher/list", 1),
		query:  t.query(false, as),
	}
	// Servers of 2.x refuse this call. That is no reason to log in again.
	token, err := s.currentToken(ctx, "")
	if err != nil {
		return "", err
	}
	a, err := s.ask(ctx, r, token, nil)
	if err != nil {
		return "", err
	}
	data, ok := a.data(v)
	if !ok {
		return "", nil // the server does not show it
	}
	return connectionIn(data), nil
}

// connectionIn returns the first connection in a list of publishers; empty if
// there is none.
func connectionIn(data json.RawMessage) string {
	var publishers []struct {
		ClientID string `json:"clientId"`
	}
	if json.Unmarshal(data, &publishers) != nil {
		return ""
	}
	for _, p := range publishers {
		// The id of a client with heartbeats is ADDRESS#EPHEMERAL; that of a
		// connection is TIME_ADDRESS_PORT (ConnectionBasedClient in Nacos).
		if !strings.Contains(p.ClientID, "#") && strings.Contains(p.ClientID, "_") {
			return p.ClientID
		}
	}
	return ""
}
