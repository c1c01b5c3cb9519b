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

// instance holds the fields of an InstanceInfo that are used here.
type instance struct {
	ID         loose `json:"instanceId" xml:"instanceId"`
	HostName   loose `json:"hostName" xml:"hostName"`
	App        loose `json:"app" xml:"app"`
	IP         loose `json:"ipAddr" xml:"ipAddr"`
	Status     loose `json:"status" xml:"status"`
	Overridden loose `json:"overriddenStatus" xml:"overriddenstatus"` // encoding/json ignores the letter case
	Port       port  `json:"port" xml:"port"`
	SecurePort port  `json:"securePort" xml:"securePort"`
	// Action is the server's last action on the instance: ADDED, MODIFIED
	// (somebody set its status) or DELETED.
	Action  loose  `json:"actionType" xml:"actionType"`
	Updated millis `json:"lastUpdatedTimestamp" xml:"lastUpdatedTimestamp"` // time of that action, by the server's clock
	Dirty   millis `json:"lastDirtyTimestamp" xml:"lastDirtyTimestamp"`     // when the app last changed its registration, by the app's clock
}

type port struct {
	Number  loose `json:"$" xml:",chardata"`
	Enabled loose `json:"@enabled" xml:"enabled,attr"`
}

// isOn reports whether clients use the port. It is true if the server does not
// say.
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

// name returns the name of the instance. Old clients register without an id;
// the host name then takes its place.
func (i instance) name() name {
	if i.ID == "" {
		return name{string(i.App), string(i.HostName)}
	}
	return name{string(i.App), string(i.ID)}
}

// available reports whether a client that reads i sends requests to it. In
// apps/delta, an instance that was cancelled while UP still shows UP.
func (i instance) available() bool { return i.Status == up && i.Action != "DELETED" }

// overridden reports whether an override keeps the instance out of service, or
// would do so once the app reports UP.
func (i instance) overridden() bool { return i.Overridden == outOfService || i.Overridden == down }

func (i instance) isAt(ips []netip.Addr, port int) bool {
	return i.hasIP(ips) && (i.Port.is(port) || i.SecurePort.is(port))
}

// hasIP reports whether the instance is registered with one of ips, in any
// notation.
func (i instance) hasIP(ips []netip.Addr) bool {
	text := strings.TrimSuffix(strings.TrimPrefix(strings.TrimSpace(string(i.IP)), "["), "]")
	own, err := netip.ParseAddr(text)
	return err == nil && slices.Contains(ips, own.Unmap().WithZone(""))
}

// addresses returns ips as text for messages.
func addresses(ips []netip.Addr) string {
	texts := make([]string, len(ips))
	for n, ip := range ips {
		texts[n] = ip.String()
	}
	return strings.Join(texts, " and ")
}

// loose is a string that JSON may also contain as a number or a boolean,
// because servers and versions differ.
type loose string

// UnmarshalJSON accepts any value except objects and lists; null becomes empty.
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

// millis is a time in milliseconds since 1970, in JSON a string or a number.
type millis loose

// UnmarshalJSON is the same as loose's.
func (m *millis) UnmarshalJSON(b []byte) error { return (*loose)(m).UnmarshalJSON(b) }

func (m millis) number() int64 {
	n, err := strconv.ParseInt(strings.TrimSpace(string(m)), 10, 64)
	if err != nil {
		return 0
	}
	return n
}

func (m millis) time() time.Time { return time.UnixMilli(m.number()) }

// maxDepth is deeper than the nesting of any Eureka answer, outside of its
// instances.
const maxDepth = 8

var errShape = errors.New("this is not an answer of Eureka's: is it the service URL?")

// scanJSON reads an answer {root: …} to its end, and visits each instance in it
// as long as visit returns true. It holds only one instance in memory.
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

// errEnough ends a scan when visit has returned false.
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

// open reads up to the value of root.
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

// value reads one value. key is its key if it is a member of an object.
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
			key, _ := token.(string) // the decoder accepts only strings as keys
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

// single reads an instance whose opening brace has been read: some servers
// leave out the list around a single instance.
func (s jsonScanner) single() error {
	fields := map[string]json.RawMessage{}
	for s.More() {
		token, err := s.Token()
		if err != nil {
			return err
		}
		key, _ := token.(string) // the decoder accepts only strings as keys
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
