package counting

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"time"

	"golang.org/x/net/websocket"
)

// patience is how long anything except the measured requests may take.
const patience = 60 * time.Second

// target is the app that a client calls, and the client's location.
type target struct {
	address string
	from    string
	clients *namespace  // the client's namespace; nil: the pod's
	tls     *tls.Config // nil for cleartext
	path    string      // path of the WebSocket
}

// dialTCP opens a connection without TLS.
func (t *target) dialTCP(ctx context.Context, address string) (conn *net.TCPConn, err error) {
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(t.from)}, Timeout: patience}
	dial := func() error {
		made, err := dialer.DialContext(ctx, "tcp4", address)
		if err != nil {
			return err
		}
		tcp, ok := made.(*net.TCPConn)
		if !ok {
			return fmt.Errorf("a connection of type %T", made)
		}
		conn = tcp
		return nil
	}
	if t.clients == nil {
		return conn, dial()
	}
	err = t.clients.do(dial)
	return conn, err
}

// dial opens a connection, with TLS if the app uses it.
func (t *target) dial(ctx context.Context) (net.Conn, error) {
	conn, err := t.dialTCP(ctx, t.address)
	if err != nil {
		return nil, err
	}
	if t.tls == nil {
		return conn, nil
	}
	secured := tls.Client(conn, t.tls)
	if err := secured.HandshakeContext(ctx); err != nil {
		_ = conn.Close() // the handshake's error is returned
		return nil, err
	}
	return secured, nil
}

// connection is an HTTP/1.1 connection. It is opened when it is needed, and
// reopened after the app has closed it.
type connection struct {
	*target
	w    *work
	conn net.Conn
	read *bufio.Reader
}

// ready ensures that there is a connection that the app has not closed.
func (c *connection) ready(ctx context.Context) (reused bool, err error) {
	if c.conn != nil {
		// The app may have closed the idle connection. This read notices that; any
		// data that it reads is not an answer.
		if err := c.conn.SetReadDeadline(time.Now().Add(time.Millisecond)); err != nil {
			return false, err
		}
		if _, err := c.read.Peek(1); errors.Is(err, os.ErrDeadlineExceeded) {
			return true, c.conn.SetReadDeadline(time.Time{})
		}
		c.close()
	}
	if c.conn, err = c.dial(ctx); err != nil {
		return false, err
	}
	c.read = bufio.NewReader(c.conn)
	return false, nil
}

func (c *connection) close() {
	if c.conn != nil {
		_ = c.conn.Close() // the app may have closed it
		c.conn = nil
	}
}

var errNotDone = errors.New("the answer is not what it should be")

// get makes a request that takes as long as d says.
func (c *connection) get(ctx context.Context, d time.Duration) (err error) {
	ctx, cancel := context.WithTimeout(ctx, d+patience)
	defer cancel()
	path := fmt.Sprintf("/delay/%d", d.Milliseconds())
	reused, err := c.ready(ctx)
	if err != nil {
		return err
	}
	end := c.w.begin(path)
	err = c.exchange(path, d+patience)
	if err != nil && reused && errors.Is(err, io.EOF) {
		// The app closed the connection at this moment. Real clients retry then.
		c.close()
		if _, err = c.ready(ctx); err == nil {
			err = c.exchange(path, d+patience)
		}
	}
	end(err)
	return err
}

// exchange sends a request and reads its answer.
func (c *connection) exchange(path string, limit time.Duration) error {
	if err := c.conn.SetDeadline(time.Now().Add(limit)); err != nil {
		return err
	}
	if _, err := io.WriteString(c.conn, "GET "+path+" HTTP/1.1\r\nHost: app\r\nUser-Agent: bench\r\nAccept: */*\r\n\r\n"); err != nil {
		return errors.Join(err, io.EOF)
	}
	if _, err := c.read.Peek(1); err != nil {
		return errors.Join(err, io.EOF)
	}
	if err := readDone(c.read); err != nil {
		return err
	}
	return c.conn.SetDeadline(time.Time{})
}

// readDone reads an answer completely.
func readDone(from *bufio.Reader) error {
	resp, err := http.ReadResponse(from, nil)
	if err != nil {
		return fmt.Errorf("reading the answer: %w", err)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	_ = resp.Body.Close() // it was read to its end
	if err != nil {
		return fmt.Errorf("reading the answer's body: %w", err)
	}
	if resp.StatusCode != http.StatusOK || string(body) != "done" {
		return fmt.Errorf("%w: %s %.100q", errNotDone, resp.Status, body)
	}
	return nil
}

// socket is a WebSocket.
type socket struct {
	w       *work
	ws      *websocket.Conn
	answers chan string // closed when the connection ends
}

func (t *target) openSocket(ctx context.Context, w *work) (*socket, error) {
	conn, err := t.dial(ctx)
	if err != nil {
		return nil, err
	}
	config := &websocket.Config{
		Location: &url.URL{Scheme: "ws", Host: "app", Path: t.path},
		Origin:   &url.URL{Scheme: "http", Host: "app"},
		Version:  websocket.ProtocolVersionHybi13,
	}
	ws, err := websocket.NewClient(config, conn)
	if err != nil {
		_ = conn.Close() // the first error is returned
		return nil, fmt.Errorf("opening a WebSocket: %w", err)
	}
	s := &socket{w: w, ws: ws, answers: make(chan string)}
	// It is read all the time, so that pings are answered.
	go func() {
		defer close(s.answers)
		for {
			var message string
			if websocket.Message.Receive(ws, &message) != nil {
				return
			}
			select {
			case s.answers <- message:
			case <-ctx.Done():
				return
			}
		}
	}()
	return s, nil
}

// get sends a message that takes as long as d says to answer.
func (s *socket) get(ctx context.Context, d time.Duration) error {
	text := fmt.Sprint(d.Milliseconds())
	end := s.w.begin("message " + text)
	err := s.exchange(ctx, text, d+patience)
	end(err)
	return err
}

func (s *socket) exchange(ctx context.Context, text string, limit time.Duration) error {
	if err := websocket.Message.Send(s.ws, text); err != nil {
		return err
	}
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case answer, open := <-s.answers:
		if !open || answer != "done" {
			return fmt.Errorf("%w: %.100q", errNotDone, answer)
		}
		return nil
	case <-timer.C:
		return os.ErrDeadlineExceeded
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *socket) close() { _ = s.ws.Close() } // the app may have closed it
