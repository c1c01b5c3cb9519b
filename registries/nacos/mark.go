package nacos

import (
	"context"
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
)

// markKey is the key of metadata that says whose withdrawal disables an
// instance: the pod, and the connection by which the instance was registered
// then, where that is known.
const markKey = "lastcall.withdrawn"

// mark is the value of markKey.
type mark struct{ pod, connection string }

func (m mark) String() string { return strings.TrimSpace(m.pod + " " + m.connection) }

// markOf reads the mark of an instance. It reports false where there is none.
func markOf(h host) (mark, bool) {
	value, ok := h.Metadata[markKey]
	pod, connection, _ := strings.Cut(value, " ")
	return mark{pod, connection}, ok
}

// precedes reports whether the mark was set for an earlier registration than the
// present one of now: for another pod, or for another connection.
func (m mark) precedes(now mark) bool {
	return m.pod != now.pod || m.connection != "" && now.connection != "" && m.connection != now.connection
}

// setMark adds the mark to the metadata that operators set, or removes it. It
// does nothing where the server cannot do so for one key alone.
func (s *server) setMark(ctx context.Context, t *target, as naming, h host, value string) error {
	if _, noMarks := s.known(); noMarks {
		return nil
	}
	ephemeral := h.Ephemeral == nil || *h.Ephemeral
	instances, err := json.Marshal([]map[string]any{{
		"ip": as.ip, "port": t.port, "clusterName": as.cluster, "ephemeral": strconv.FormatBool(ephemeral),
	}})
	if err != nil {
		return err
	}
	metadata, err := json.Marshal(map[string]string{markKey: value})
	if err != nil {
		return err
	}
	method, consistency := http.MethodPut, "ephemeral"
	if value == "" {
		method = http.MethodDelete
	}
	if !ephemeral {
		consistency = "persist"
	}
	of, _ := s.known()
	r := request{method, instancePath(of) + "/metadata/batch", t.service.query(of == v1)}
	r.query.Set("instances", string(instances))
	r.query.Set("metadata", string(metadata))
	r.query.Set("consistencyType", consistency)
	a, err := s.call(ctx, r)
	if err == nil && (a.absent() || of == v1 && a.code == http.StatusNotFound) {
		s.mu.Lock()
		s.noMarks = true
		s.mu.Unlock()
		return nil
	}
	_, err = s.done(a, of, r, err)
	return err
}

// connection returns the id of the gRPC connection that owns the instance. It is
// empty where heartbeats own it or nobody does, and where the server does not
// say: v1 has no such call, and that of v2 needs the rights of an administrator.
func (s *server) connection(ctx context.Context, t *target, as naming) (string, error) {
	v, _ := s.known()
	if v == v1 {
		return "", nil
	}
	r := request{http.MethodGet, strings.Replace(instancePath(v), "/instance", "/client/service/publisher/list", 1), t.query(false, as)}
	a, err := s.call(ctx, r)
	if err != nil {
		return "", err
	}
	data, ok := a.data(v)
	var publishers []struct {
		ClientID string `json:"clientId"`
	}
	if !ok || json.Unmarshal(data, &publishers) != nil {
		return "", nil // it is not said
	}
	for _, p := range publishers {
		// The id of a client with heartbeats is ADDRESS#EPHEMERAL; that of a
		// connection is TIME_ADDRESS_PORT (ConnectionBasedClient in Nacos).
		if p.ClientID != "" && !strings.Contains(p.ClientID, "#") && strings.Contains(p.ClientID, "_") {
			return p.ClientID, nil
		}
	}
	return "", nil
}
