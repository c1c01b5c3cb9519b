package eureka

import (
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

// instance is what matters here of an InstanceInfo.
type instance struct {
	ID         loose `json:"instanceId" xml:"instanceId"`
	HostName   loose `json:"hostName" xml:"hostName"`
	App        loose `json:"app" xml:"app"`
	IP         loose `json:"ipAddr" xml:"ipAddr"`
	Status     loose `json:"status" xml:"status"`
	Overridden loose `json:"overriddenStatus" xml:"overriddenstatus"` // encoding/json does not mind the letter case
	Port       port  `json:"port" xml:"port"`
	SecurePort port  `json:"securePort" xml:"securePort"`
	// Action is what the server did last to the instance: ADDED, MODIFIED
	// (its status, by somebody) or DELETED.
	Action  loose  `json:"actionType" xml:"actionType"`
	Updated millis `json:"lastUpdatedTimestamp" xml:"lastUpdatedTimestamp"` // when it did, by its own clock
	Dirty   millis `json:"lastDirtyTimestamp" xml:"lastDirtyTimestamp"`     // when the app last changed its registration, by the app's clock
}

type port struct {
	Number  loose `json:"$" xml:",chardata"`
	Enabled loose `json:"@enabled" xml:"enabled,attr"`
}

// isOn reports whether clients use the port. Servers that do not say so mean that.
func (p port) isOn() bool { return p.Enabled != "false" }

func (p port) number() int {
	n, err := strconv.Atoi(strings.TrimSpace(string(p.Number)))
	if err != nil {
		return 0
	}
	return n
}

func (p port) is(number int) bool { return p.number() == number && number != 0 && p.isOn() }

// ports lists the ports that clients use.
func (i instance) ports() string {
	var on []string
	for _, p := range []port{i.Port, i.SecurePort} {
		if p.number() != 0 && p.isOn() {
			on = append(on, strconv.Itoa(p.number()))
		}
	}
	if len(on) == 0 {
		return "none enabled"
	}
	return strings.Join(on, " and ")
}

// name is what the instance is called. Clients of old register without an id,
// and are known by their host name.
func (i instance) name() name {
	if i.ID == "" {
		return name{string(i.App), string(i.HostName)}
	}
	return name{string(i.App), string(i.ID)}
}

// available reports whether a client that reads this sends requests to it. In
// apps/delta, an instance that was cancelled while UP still says UP.
func (i instance) available() bool { return i.Status == up && i.Action != "DELETED" }

// overridden reports whether an override keeps the instance out of service, or
// would once the app says UP.
func (i instance) overridden() bool { return i.Overridden == outOfService || i.Overridden == down }

func (i instance) isAt(ips []netip.Addr, port int) bool {
	return i.hasIP(ips) && (i.Port.is(port) || i.SecurePort.is(port))
}

// hasIP reports whether the instance is registered under one of ips, in whatever
// notation.
func (i instance) hasIP(ips []netip.Addr) bool {
	text := strings.TrimSuffix(strings.TrimPrefix(strings.TrimSpace(string(i.IP)), "["), "]")
	own, err := netip.ParseAddr(text)
	return err == nil && slices.Contains(ips, own.Unmap().WithZone(""))
}

// addresses lists ips for people.
func addresses(ips []netip.Addr) string {
	texts := make([]string, len(ips))
	for n, ip := range ips {
		texts[n] = ip.String()
	}
	return strings.Join(texts, " and ")
}

// loose is a string that JSON may also hold as a number or a boolean: servers
// and versions differ.
type loose string

// UnmarshalJSON takes any value but objects and lists; null is empty.
func (l *loose) UnmarshalJSON(b []byte) error {
	switch {
	case b[0] == '"':
		var s string
		if err := json.Unmarshal(b, &s); err != nil {
			return err
		}
		*l = loose(s)
	case b[0] == '{' || b[0] == '[':
		return fmt.Errorf("a value that is neither text nor a number: %.40s", b)
	case string(b) == "null":
		*l = ""
	default:
		*l = loose(b)
	}
	return nil
}

// millis is a time in milliseconds since 1970, as text or as a number.
type millis loose

// UnmarshalJSON is that of loose.
func (m *millis) UnmarshalJSON(b []byte) error { return (*loose)(m).UnmarshalJSON(b) }

func (m millis) number() int64 {
	n, err := strconv.ParseInt(strings.TrimSpace(string(m)), 10, 64)
	if err != nil {
		return 0
	}
	return n
}

func (m millis) time() time.Time { return time.UnixMilli(m.number()) }

// maxDepth is deeper than any answer of Eureka's outside of its instances.
const maxDepth = 8

var errShape = errors.New("this is not an answer of Eureka's: is it the service URL?")

// scanJSON reads an answer {root: …} to its end, and visits each instance that
// it holds, as long as visit returns true. Only one instance is held in memory.
func scanJSON(body io.Reader, root string, visit func(instance) bool) error {
	s := jsonScanner{json.NewDecoder(body), visit}
	if err := s.open(root); err != nil {
		return err
	}
	if err := s.value(root, 0); err != nil {
		if errors.Is(err, errEnough) {
			return nil
		}
		return broken(err)
	}
	if _, err := s.Token(); err != nil { // the closing brace, or a second member
		return broken(err)
	}
	return nil
}

// errEnough ends a scan whose visitor has seen what it looked for.
var errEnough = errors.New("enough")

func broken(err error) error {
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF // the answer was cut off
	}
	return err
}

type jsonScanner struct {
	*json.Decoder
	visit func(instance) bool
}

// open reads as far as the value of root.
func (s jsonScanner) open(root string) error {
	var syntax *json.SyntaxError
	for _, want := range []json.Token{json.Delim('{'), root} {
		got, err := s.Token()
		switch {
		case errors.As(err, &syntax), errors.Is(err, io.EOF), err == nil && got != want:
			return errShape
		case err != nil:
			return err
		}
	}
	return nil
}

// value reads one value, that of key where it is an object's.
func (s jsonScanner) value(key string, depth int) error {
	if depth > maxDepth {
		return errShape
	}
	token, err := s.Token()
	if err != nil {
		return err
	}
	switch {
	case token == json.Delim('[') && key == "instance":
		for s.More() {
			var i instance
			if err := s.Decode(&i); err != nil {
				return err
			}
			if !s.visit(i) {
				return errEnough
			}
		}
	case token == json.Delim('{') && key == "instance":
		return s.single()
	case token == json.Delim('['):
		for s.More() {
			if err := s.value("", depth+1); err != nil {
				return err
			}
		}
	case token == json.Delim('{'):
		for s.More() {
			token, err := s.Token()
			if err != nil {
				return err
			}
			key, _ := token.(string) // the decoder lets nothing else be a key
			if err := s.value(key, depth+1); err != nil {
				return err
			}
		}
	default:
		return nil
	}
	_, err = s.Token() // the end of the list or object
	return err
}

// single reads an instance whose brace has been read: some servers leave out
// the list around a single one.
func (s jsonScanner) single() error {
	fields := map[string]json.RawMessage{}
	for s.More() {
		token, err := s.Token()
		if err != nil {
			return err
		}
		key, _ := token.(string) // the decoder lets nothing else be a key
		var value json.RawMessage
		if err := s.Decode(&value); err != nil {
			return err
		}
		fields[key] = value
	}
	if _, err := s.Token(); err != nil {
		return err
	}
	var i instance
	whole, err := json.Marshal(fields)
	if err == nil {
		err = json.Unmarshal(whole, &i)
	}
	if err == nil && !s.visit(i) {
		err = errEnough
	}
	return err
}

// scanXML is scanJSON for XML answers, <root>…</root>.
func scanXML(body io.Reader, root string, visit func(instance) bool) error {
	d := xml.NewDecoder(body)
	rooted, depth := false, 0
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) && rooted {
			return nil
		}
		var syntax *xml.SyntaxError
		switch {
		case !rooted && (errors.Is(err, io.EOF) || errors.As(err, &syntax)):
			return errShape
		case err != nil:
			return err
		}
		switch t := token.(type) {
		case xml.EndElement:
			depth--
		case xml.StartElement:
			depth++
			switch {
			case !rooted && t.Name.Local != root, depth > maxDepth:
				return errShape
			case rooted && t.Name.Local == "instance":
				var i instance
				if err := d.DecodeElement(&i, &t); err != nil {
					return err
				}
				depth--
				if !visit(i) {
					return nil
				}
			}
			rooted = true
		}
	}
}
