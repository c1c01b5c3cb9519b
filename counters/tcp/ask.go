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
	// askLimit is how long a port may take to say what it speaks: an app may
	// listen long before it is ready.
	askLimit = 20 * time.Second
	// answerLimit bounds what is read of an answer.
	answerLimit = 4 << 10
	// restLimit is how long the rest of an answer that has begun may take.
	restLimit = 200 * time.Millisecond
	// leaveLimit bounds what is read of the rest when a connection is left.
	leaveLimit = 64 << 10
)

// protocol is what a port speaks, as far as it was found out.
type protocol struct {
	asked bool // and an answer, or none, is known
	http  bool // HTTP, of whatever version
	http1 bool // HTTP/1 and nothing else
	http2 bool // HTTP/2, gRPC
	tls   bool
	// mayBeTLS is true where an answer without TLS proves HTTP/1, and not that
	// it is not wrapped in TLS for clients: nginx refuses a request that it
	// cannot read before it says that it wants TLS.
	mayBeTLS bool
	found    string // for people
}

// preface is what a client of HTTP/2 says first (RFC 9113, section 3.4), with
// empty settings. A server that speaks HTTP/1 alone refuses it with an answer
// of HTTP/1, so one question settles both: whether the port speaks HTTP/1, and
// whether it would take HTTP/2 too.
const preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + "\x00\x00\x00\x04\x00\x00\x00\x00\x00"

// options is a request about the server, not about anything that it serves.
const options = "OPTIONS * HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"

// ask finds out what is spoken at address: without TLS first, and with TLS
// where the answer shows that this is wanted. dialed is told the local end of
// each connection before anything is said on it. An error says that nobody
// answered.
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

// askHTTP1 asks a port that has closed the connection when it was asked for
// HTTP/2, as Tomcat does, by a request that needs no answer of the app's.
// Where HTTP/1 does not answer, without is what the port speaks.
func askHTTP1(ctx context.Context, address netip.AddrPort, dialed func(netip.AddrPort), secure bool, without protocol) protocol {
	answer, err := question(ctx, address, dialed, secure, options)
	if p := answer.protocol(); err == nil && p.http1 && !wantsTLS(answer.text) {
		return p
	}
	return without
}

// askTLS asks by TLS. Where that is not spoken, without is what is.
func askTLS(ctx context.Context, address netip.AddrPort, dialed func(netip.AddrPort), without protocol) (protocol, error) {
	ctx, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	secure, err := question(ctx, address, dialed, true, preface)
	if err != nil {
		without.mayBeTLS = false
		return without, nil // it does not speak TLS, and that is the answer
	}
	p := secure.protocol()
	if secure.refused() {
		p = askHTTP1(ctx, address, dialed, true, p)
	}
	return p, nil
}

// reply is what a port has said.
type reply struct {
	tls  bool
	alpn string // what was negotiated
	text []byte // the beginning of what was answered to the preface
	end  bool   // nothing was, and the connection was closed
	read bool   // in order: so all that was said had been read
}

// refused reports whether a connection was closed by a server that has read the
// question and gave no answer, but may give one to another. A server of TLS
// mostly reads no more than it takes to see that this is none, and its end of
// the connection is a reset.
func (r *reply) refused() bool { return r.read && len(r.text) == 0 && r.alpn == "" }

// question says text once.
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
			return r, fmt.Errorf("asking %v what it speaks by TLS: %w", address, err)
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

// leave closes conn without a reset: it says that nothing more is sent, and
// reads what the server still sends. A server that answers twice, as some
// answer the two lines of the preface, and one that has sent session tickets,
// would log a connection that was closed with these unread as an error.
func leave(conn net.Conn) {
	_ = conn.SetDeadline(time.Now().Add(restLimit)) // what fails here leaves a reset, and nothing else
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

// handshaken makes a TLS handshake on conn. What is negotiated is known before
// the server asks for a certificate, so one that wants one has answered too.
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

// hear reads the beginning of an answer: until it says enough, or ends with an
// error.
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
		_ = conn.SetReadDeadline(time.Now().Add(restLimit)) // an error shows when it is read
		if ctx.Err() != nil {
			return text, ctx.Err() // its end would have set another deadline
		}
	}
	return text, nil
}

// isBeginning reports whether so little of an answer was read that it does not
// say what it is.
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

// mayWantTLS reports whether more of the answer must be read to know: servers
// of HTTPS answer in words, and in the clear, who speaks to them without.
func mayWantTLS(text []byte) bool {
	return bytes.HasPrefix(text, []byte("HTTP/1.")) && bytes.HasPrefix(text[min(len(text), 8):], []byte(" 400"))
}

// wantsTLS reports whether the answer, or that there was none, shows that the
// port may speak TLS.
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

// protocol says what the answer proves.
func (r *reply) protocol() protocol {
	const settings = 4
	p := protocol{asked: true, tls: r.tls}
	with := ""
	if r.tls {
		with = " by TLS"
	}
	switch {
	case r.alpn == "h2", len(r.text) > 3 && r.text[0] == 0 && r.text[3] == settings:
		p.http, p.http2 = true, true
		p.found = "HTTP/2" + with
	case r.alpn == "http/1.1":
		p.http, p.http1 = true, true
		p.found = "HTTP/1 alone by TLS, as it has negotiated"
	case bytes.HasPrefix(r.text, []byte("HTTP/1.")):
		p.http, p.http1 = true, true
		p.found = "HTTP/1 alone" + with + ": it has refused HTTP/2"
	case len(r.text) > 0:
		p.found = "something else than HTTP" + with
	case r.end:
		p.found = "something else than HTTP" + with + ": it has closed the connection without an answer"
	default:
		p.found = "nothing that was recognised: it has not answered"
	}
	return p
}

// ownQuestions are the local ends of the connections on which the sidecar has
// asked what a port speaks. They are not work, also not when the app leaves
// one open that the sidecar has closed.
type ownQuestions struct {
	mu   sync.Mutex
	ends []netip.AddrPort
}

// add notes one. The oldest are forgotten: the app is asked once per start.
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
