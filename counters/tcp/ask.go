package tcp

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"
)

const (
	// askLimit is how long a port may take to show its protocol: an app may
	// listen long before it is ready.
	askLimit = 20 * time.Second
	// answerLimit bounds how many bytes of an answer are read.
	answerLimit = 4 << 10
	// restLimit is how long the rest of an answer may take after its beginning.
	restLimit = 200 * time.Millisecond
	// leaveLimit bounds how many further bytes are read before a connection is
	// closed.
	leaveLimit = 64 << 10
)

// protocol is what a port speaks, as far as it is known.
type protocol struct {
	asked bool // the port was asked, and it is known that it has answered or not
	http  bool // HTTP, of any version
	http1 bool // HTTP/1 only
	http2 bool // HTTP/2, gRPC
	tls   bool
	// mayBeTLS is true if an answer without TLS proves HTTP/1, but does not
	// rule out that clients use TLS: nginx refuses a request that it cannot
	// parse before it reports that it requires TLS.
	mayBeTLS bool
	found    string // for people
}

// preface is what a client of HTTP/2 sends first (RFC 9113, section 3.4), with
// empty settings. A server that speaks only HTTP/1 refuses it with an HTTP/1
// answer. So one question shows both whether the port speaks HTTP/1 and whether
// it also accepts HTTP/2.
const preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + "\x00\x00\x00\x04\x00\x00\x00\x00\x00"

// options is a request about the server itself, not about a resource.
const options = "OPTIONS * HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"

// ask finds out what is spoken at address. It asks without TLS first, and with
// TLS if the answer suggests it. It calls dialed with the local address of each
// connection before it sends anything. It returns an error if nobody answered.
func ask(ctx context.Context, address netip.AddrPort, dialed func(netip.AddrPort)) (protocol, error) {
	ctx, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	answer, err := question(ctx, address, dialed, false, preface)
	if err != nil {
		return protocol{}, err
	}
	if !wantsTLS(answer.text) {
		p := answer.protocol()
		p.mayBeTLS = p.http1 && bytes.Contains(answer.text, []byte("nginx"))
		return p, nil
	}
	p := answer.protocol()
	if answer.refused() {
		if p = askHTTP1(ctx, address, dialed, false, p); p.http1 {
			return p, nil
		}
	}
	return askTLS(ctx, address, dialed, p)
}

// askHTTP1 is for a port that closes the connection when it is asked for
// HTTP/2, as Tomcat does. It sends a request that the server answers without
// the app. If the port does not answer as HTTP/1, askHTTP1 returns without.
func askHTTP1(ctx context.Context, address netip.AddrPort, dialed func(netip.AddrPort), secure bool, without protocol) protocol {
	answer, err := question(ctx, address, dialed, secure, options)
	if p := answer.protocol(); err == nil && p.http1 && !wantsTLS(answer.text) {
		return p
	}
	return without
}

// askTLS asks with TLS. If the port does not speak TLS, askTLS returns without.
func askTLS(ctx context.Context, address netip.AddrPort, dialed func(netip.AddrPort), without protocol) (protocol, error) {
	ctx, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	secure, err := question(ctx, address, dialed, true, preface)
	if err != nil {
		without.mayBeTLS = false
		return without, nil // it does not speak TLS, which is also an answer
	}
	p := secure.protocol()
	if secure.refused() {
		p = askHTTP1(ctx, address, dialed, true, p)
	}
	return p, nil
}

// reply is what a port has answered.
type reply struct {
	tls  bool
	alpn string // the negotiated protocol
	text []byte // the beginning of the answer to the question
	end  bool   // there was no answer, and the connection was closed
	read bool   // the connection was closed without a reset: the server has read the question
}

// refused reports whether a server has read the question and closed the
// connection without an answer. Such a server may answer another question. A
// TLS server mostly reads only as much as it needs to see that the client does
// not use TLS, and then resets the connection.
func (r *reply) refused() bool { return r.read && len(r.text) == 0 && r.alpn == "" }

// question sends text once and reads the answer.
func question(ctx context.Context, address netip.AddrPort, dialed func(netip.AddrPort), secure bool, text string) (reply, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", address.String())
	if err != nil {
		return reply{}, fmt.Errorf("asking %v what it speaks: %w", address, err)
	}
	defer func() { leave(conn) }()
	if local, ok := conn.LocalAddr().(*net.TCPAddr); ok {
		dialed(local.AddrPort())
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	var r reply
	if secure {
		if conn, r, err = handshaken(ctx, conn); err != nil {
			return r, fmt.Errorf("asking %v what it speaks over TLS: %w", address, err)
		}
		if r.alpn != "" {
			return r, nil
		}
	}
	if _, err := io.WriteString(conn, text); err != nil {
		r.end = true // it was closed at once
		return r, nil
	}
	r.text, err = hear(ctx, conn)
	r.read = errors.Is(err, io.EOF)
	r.end = r.read || err != nil && isReset(err)
	return r, nil
}

// leave closes conn without a reset. It announces that nothing more is sent,
// and reads what the server still sends. Otherwise some servers would log an
// error because their data was unread when the connection was closed: a server
// that answers twice (some answer both lines of the preface), and a server that
// has sent session tickets.
func leave(conn net.Conn) {
	_ = conn.SetDeadline(time.Now().Add(restLimit)) // an error only means that the connection is reset
	raw := conn
	if secure, ok := conn.(*tls.Conn); ok {
		_ = secure.CloseWrite()
		raw = secure.NetConn()
	}
	if end, ok := raw.(*net.TCPConn); ok {
		_ = end.CloseWrite()
	}
	_, _ = io.CopyN(io.Discard, raw, leaveLimit)
	_ = raw.Close()
}

// handshaken makes a TLS handshake on conn. The protocol is negotiated before
// the server asks for a certificate, so a server that requires one has answered
// too.
func handshaken(ctx context.Context, conn net.Conn) (net.Conn, reply, error) {
	r := reply{tls: true}
	known := false
	secure := tls.Client(conn, &tls.Config{
		InsecureSkipVerify: true, //nolint:gosec // nothing is entrusted to it, nor believed but what it speaks
		NextProtos:         []string{"h2", "http/1.1"},
		VerifyConnection: func(s tls.ConnectionState) error {
			r.alpn, known = s.NegotiatedProtocol, true
			return nil
		},
	})
	if err := secure.HandshakeContext(ctx); err != nil && !known {
		return conn, r, err
	}
	return secure, r, nil
}

// hear reads the beginning of an answer, until it is long enough to be
// recognised or an error ends it.
func hear(ctx context.Context, conn net.Conn) (text []byte, err error) {
	text = make([]byte, 0, answerLimit)
	for len(text) < answerLimit {
		n, err := conn.Read(text[len(text):cap(text)])
		text = text[:len(text)+n]
		if err != nil {
			return text, err
		}
		if !isBeginning(text) && !mayWantTLS(text) {
			return text, nil
		}
		_ = conn.SetReadDeadline(time.Now().Add(restLimit)) // an error shows at the next read
		if ctx.Err() != nil {
			return text, ctx.Err() // the end of ctx has set a deadline, which was just overwritten
		}
	}
	return text, nil
}

// isBeginning reports whether text is too short to recognise the answer.
func isBeginning(text []byte) bool {
	const version, status, http2Header = "HTTP/1.", "HTTP/1.1 400", 4
	n := min(len(text), len(version))
	return len(text) < len(status) && string(text[:n]) == version[:n] ||
		len(text) > 0 && len(text) < http2Header && text[0] == 0
}

func isReset(err error) bool {
	var e net.Error
	return !errors.As(err, &e) || !e.Timeout()
}

// mayWantTLS reports whether more of the answer must be read to know whether
// the port wants TLS: HTTPS servers tell a client without TLS so in plain text.
func mayWantTLS(text []byte) bool {
	return bytes.HasPrefix(text, []byte("HTTP/1.")) && bytes.HasPrefix(text[min(len(text), 8):], []byte(" 400"))
}

// wantsTLS reports whether the answer, or its absence, shows that the port may
// speak TLS.
func wantsTLS(text []byte) bool {
	const alert = 0x15
	switch {
	case len(text) == 0:
		return true
	case text[0] == alert:
		return true
	case !mayWantTLS(text):
		return false
	}
	for _, word := range []string{"HTTPS", "SSL", "TLS"} {
		if bytes.Contains(text, []byte(word)) {
			return true
		}
	}
	return false
}

// protocol returns what the answer proves.
func (r *reply) protocol() protocol {
	const settings = 4
	p := protocol{asked: true, tls: r.tls}
	with := ""
	if r.tls {
		with = " over TLS"
	}
	switch {
	case r.alpn == "h2", len(r.text) > 3 && r.text[0] == 0 && r.text[3] == settings:
		p.http, p.http2 = true, true
		p.found = "HTTP/2" + with
	case r.alpn == "http/1.1":
		p.http, p.http1 = true, true
		p.found = "HTTP/1 only over TLS, as it has negotiated"
	case bytes.HasPrefix(r.text, []byte("HTTP/1.")):
		p.http, p.http1 = true, true
		p.found = "HTTP/1 only" + with + ": it has refused HTTP/2"
	case len(r.text) > 0:
		p.found = "something other than HTTP" + with
	case r.end:
		p.found = "something other than HTTP" + with + ": it has closed the connection without an answer"
	default:
		p.found = "nothing that was recognised: it has not answered"
	}
	return p
}

// ownQuestions holds the local addresses of the connections on which the
// sidecar has asked what a port speaks. They are not work, even if the app
// leaves one open that the sidecar has closed.
type ownQuestions struct {
	mu   sync.Mutex
	ends []netip.AddrPort
}

// add adds an address and forgets the oldest: the app is asked only once per
// start.
func (q *ownQuestions) add(end netip.AddrPort) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.ends) >= 2*maxPorts {
		q.ends = q.ends[1:]
	}
	q.ends = append(q.ends, netip.AddrPortFrom(end.Addr().Unmap(), end.Port()))
}

func (q *ownQuestions) has(end netip.AddrPort) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, known := range q.ends {
		if known == end {
			return true
		}
	}
	return false
}
