package tcp

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"syscall"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// The states of a TCP socket (include/net/tcp_states.h).
const (
	established = 1
	finWait1    = 4
	closeWait   = 8
	lastAck     = 9
	listen      = 10
	closing     = 11
)

// connected holds the states in which something may be left to do on a
// connection. In the other states it is not yet established, or its peer has
// received everything.
const connected = 1<<established | 1<<finWait1 | 1<<closeWait | 1<<lastAck | 1<<closing

// The parts of linux/inet_diag.h that are used. All of them belong to the
// kernel's ABI.
const (
	headerSize     = 16 // struct nlmsghdr
	getSockets     = 18 // TCPDIAG_GETSOCK
	getByFamily    = 20 // SOCK_DIAG_BY_FAMILY
	requestSize    = 60 // struct inet_diag_req
	exactSize      = 56 // struct inet_diag_req_v2
	messageSize    = 72 // struct inet_diag_msg
	sockIDSize     = 48 // struct inet_diag_sockid
	sockIDAt       = 4  // offset in the message
	cookieAt       = 40 // offset of the cookie in it
	attrHeader     = 4  // struct nlattr
	attrBytecode   = 1  // INET_DIAG_REQ_BYTECODE
	attrInfo       = 2  // INET_DIAG_INFO: struct tcp_info
	wantInfo       = 1 << (attrInfo - 1)
	opJump         = 1 // INET_DIAG_BC_JMP
	opSourceFrom   = 2 // INET_DIAG_BC_S_GE
	opSourceTo     = 3 // INET_DIAG_BC_S_LE
	tcpInfoMinimum = 208
)

// Offsets of the used fields in struct tcp_info (linux/tcp.h).
const (
	infoRecvMSS   = 20
	infoLastSent  = 44
	infoLastRecv  = 52
	infoLastAck   = 56
	infoBytesRecv = 128
	infoSegsOut   = 136
	infoSegsIn    = 140
	infoDataIn    = 152
	infoDataOut   = 156
	infoBytesSent = 200
)

const (
	// answerBuffer is the most that the kernel sends at once.
	answerBuffer = 32 << 10
	// atOnce is how many sockets the kernel is asked for in one call. The
	// answers, 2 kB each by the kernel's accounting, wait in the connection's
	// buffer.
	atOnce = 32
)

var (
	errGarbled   = errors.New("the kernel's answer cannot be understood")
	errOldKernel = errors.New("the kernel does not report the bytes that were sent: Linux 4.19 or newer is needed")
)

// socket is one of the app's sockets, as the kernel reports it.
type socket struct {
	id     identity
	cookie uint64 // identifies the socket uniquely, even after it is gone
	state  uint8
	local  netip.Addr
	port   int // the local one
	remote netip.AddrPort
	unread uint32 // bytes received and not yet read by the app; a FIN counts as one
	unsent uint32 // bytes that the app has written and the peer has not acknowledged; a FIN counts as one

	info                    bool   // true if the fields below are known
	recv                    uint64 // bytes received in order; a FIN counts as one
	sent                    uint64 // bytes sent
	recvAge, sentAge        uint32 // ms since data was last received and sent, or the connection was made
	ackAge                  uint32 // ms since the peer last acknowledged something
	segsIn, dataIn, segsOut uint32 // segments, and how many of them carry data
	dataOut                 uint32
	largest                 uint32 // bytes of the largest segment with data; an estimate if it is small
}

// identity holds what the kernel needs to find one socket without searching:
// its family, and its struct inet_diag_sockid, which contains the cookie.
type identity struct {
	family uint8
	id     [sockIDSize]byte
}

func (i *identity) cookie() uint64 { return binary.NativeEndian.Uint64(i.id[cookieAt:]) }

// dial opens a connection to the kernel's socket diagnostics. Its requests need
// no capability.
func dial() (*netlink.Conn, error) {
	conn, err := netlink.Dial(unix.NETLINK_SOCK_DIAG, &netlink.Config{MessageBufferSize: answerBuffer})
	if err != nil {
		return nil, fmt.Errorf("opening a netlink socket: %w", err)
	}
	return conn, nil
}

// diagnostics asks the kernel for sockets. It keeps one connection from the
// first request on, and replaces it after an error. It must not be used
// concurrently. The zero value is ready for use.
//
// The connection is the library's. The messages are encoded and decoded here,
// in memory that is reused, because this happens every 10 ms.
type diagnostics struct {
	conn     *netlink.Conn
	raw      syscall.RawConn
	sequence uint32
	question []byte
	answer   []byte
	socket   socket // the socket that is shown
}

func (d *diagnostics) close() {
	if d.conn != nil {
		_ = d.conn.Close() // it holds nothing that matters
		d.conn = nil
	}
}

// dump calls visit for each socket that is in one of states, a bit set, and
// whose local port is one of ports. The kernel omits all other sockets, so they
// cost neither memory nor copying, but it walks through all sockets of the
// node. dump ends with ctx.
func (d *diagnostics) dump(ctx context.Context, ports []int, states uint32, visit func(*socket) error) error {
	return d.within(ctx, func() error {
		first := d.sequence + 1
		request := dumpRequest(states, ports)
		d.question = append(d.header(d.question[:0], getSockets, unix.NLM_F_DUMP, len(request)), request...)
		if err := d.send(); err != nil {
			return err
		}
		for {
			done := false
			err := d.receive(func(m message) error {
				switch {
				case m.sequence != first:
					return fmt.Errorf("%w: it answers another request", errGarbled)
				case m.kind == unix.NLMSG_DONE:
					done = true
					return m.failure()
				case m.kind == unix.NLMSG_ERROR:
					return m.failure()
				case m.kind != getSockets:
					return fmt.Errorf("%w: a message of type %d", errGarbled, m.kind)
				}
				return d.show(m.data, visit)
			})
			if err != nil || done {
				return err
			}
		}
	})
}

// each calls visit for those sockets of ids that still exist. The kernel finds
// each one directly, so other sockets cost nothing. each ends with ctx.
func (d *diagnostics) each(ctx context.Context, ids []identity, visit func(*socket) error) error {
	return d.within(ctx, func() error {
		for batch := range slices.Chunk(ids, atOnce) {
			if err := d.ask(batch, visit); err != nil {
				return err
			}
		}
		return nil
	})
}

func (d *diagnostics) ask(ids []identity, visit func(*socket) error) error {
	first := d.sequence + 1
	d.question = d.question[:0]
	for i := range ids {
		d.question = d.header(d.question, getByFamily, 0, exactSize)
		d.question = append(d.question, ids[i].family, unix.IPPROTO_TCP, wantInfo, 0, 0, 0, 0, 0)
		d.question = append(d.question, ids[i].id[:]...)
	}
	if err := d.send(); err != nil {
		return err
	}
	for answered := 0; answered < len(ids); {
		err := d.receive(func(m message) error {
			if m.sequence != first+uint32(answered) { //nolint:gosec // at most atOnce
				return fmt.Errorf("%w: it answers another request", errGarbled)
			}
			answered++
			switch m.kind {
			case unix.NLMSG_ERROR:
				if err := m.failure(); !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ESTALE) {
					return err
				}
				return nil // the socket is gone
			case getByFamily:
				return d.show(m.data, visit)
			}
			return fmt.Errorf("%w: a message of type %d", errGarbled, m.kind)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// show parses the socket that b describes and calls visit with it.
func (d *diagnostics) show(b []byte, visit func(*socket) error) error {
	if err := d.socket.parse(b); err != nil {
		return err
	}
	return visit(&d.socket)
}

// within calls do, which talks to the kernel, and stops it when ctx ends.
func (d *diagnostics) within(ctx context.Context, do func() error) (err error) {
	if err := ctx.Err(); err != nil {
		return err
	}
	if d.conn == nil {
		if err := d.open(); err != nil {
			return err
		}
	}
	conn := d.conn
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	err = do()
	if !stop() || err != nil {
		d.close() // it may hold the rest of an answer
	}
	if err != nil && ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		return fmt.Errorf("asking the kernel for sockets: %w", err)
	}
	return nil
}

func (d *diagnostics) open() error {
	conn, err := dial()
	if err != nil {
		return err
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		_ = conn.Close() // it holds nothing
		return fmt.Errorf("opening a netlink socket: %w", err)
	}
	d.conn, d.raw = conn, raw
	if d.answer == nil {
		d.answer = make([]byte, answerBuffer)
	}
	return nil
}

// message is one message from the kernel.
type message struct {
	kind     uint16
	sequence uint32
	data     []byte // valid until the next message is received
}

// failure returns the error that the message reports, or nil.
func (m message) failure() error {
	if len(m.data) < 4 {
		return fmt.Errorf("%w: a message of %d bytes", errGarbled, len(m.data))
	}
	if number := int32(binary.NativeEndian.Uint32(m.data)); number < 0 { //nolint:gosec // it is a signed number
		return unix.Errno(-number)
	}
	return nil
}

// header appends to b the header of a message with size bytes of data.
func (d *diagnostics) header(b []byte, kind, flags uint16, size int) []byte {
	d.sequence++
	native := binary.NativeEndian
	b = native.AppendUint32(b, uint32(headerSize+size)) //nolint:gosec // at most some thousand
	b = native.AppendUint16(b, kind)
	b = native.AppendUint16(b, unix.NLM_F_REQUEST|flags)
	b = native.AppendUint32(b, d.sequence)
	return native.AppendUint32(b, 0) // the kernel knows the sender
}

// send sends the question.
func (d *diagnostics) send() error {
	var err error
	if closed := d.raw.Write(func(fd uintptr) bool {
		err = ignoringEINTR(func() error { return unix.Send(int(fd), d.question, 0) })
		return !errors.Is(err, unix.EAGAIN)
	}); closed != nil {
		return closed
	}
	return err
}

// receive calls visit for each message of the kernel's next datagram.
func (d *diagnostics) receive(visit func(message) error) error {
	var n int
	var err error
	if closed := d.raw.Read(func(fd uintptr) bool {
		err = ignoringEINTR(func() (err error) {
			n, err = unix.Read(int(fd), d.answer)
			return err
		})
		return !errors.Is(err, unix.EAGAIN)
	}); closed != nil {
		return closed
	}
	if err != nil {
		return err
	}
	return messages(d.answer[:n], visit)
}

// messages calls visit for each message in b.
func messages(b []byte, visit func(message) error) error {
	for len(b) > 0 {
		if len(b) < headerSize {
			return fmt.Errorf("%w: %d bytes", errGarbled, len(b))
		}
		length := int(binary.NativeEndian.Uint32(b))
		if length < headerSize || length > len(b) {
			return fmt.Errorf("%w: a message of %d bytes, but only %d were received", errGarbled, length, len(b))
		}
		m := message{kind: binary.NativeEndian.Uint16(b[4:]), sequence: binary.NativeEndian.Uint32(b[8:]), data: b[headerSize:length]}
		if err := visit(m); err != nil {
			return err
		}
		b = b[min(aligned(length), len(b)):]
	}
	return nil
}

func ignoringEINTR(call func() error) error {
	for {
		if err := call(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// dumpRequest returns a struct inet_diag_req with the filter as its attribute.
// Unlike its successor (inet_diag_req_v2), it asks for IPv4 and IPv6 in one
// request, as ss does. The kernel walks through its table of all sockets, most
// of it empty, for each request. This walk is the cost of a dump.
func dumpRequest(states uint32, ports []int) []byte {
	code := portFilter(ports)
	b := make([]byte, requestSize, requestSize+attrHeader+len(code))
	if states&^(1<<listen) != 0 {
		b[3] = wantInfo
	}
	binary.NativeEndian.PutUint32(b[52:], states)
	b = binary.NativeEndian.AppendUint16(b, uint16(attrHeader+len(code))) //nolint:gosec // at most maxPorts ports
	b = binary.NativeEndian.AppendUint16(b, attrBytecode)
	return append(b, code...)
}

// portFilter returns a program for the kernel that accepts a socket if its
// local port is one of ports. Each operation contains two jump distances, for a
// condition that holds and for one that does not. A jump to the end of the
// program accepts the socket, and a jump beyond the end rejects it.
func portFilter(ports []int) []byte {
	const compare, jump = 8, 4
	const each = 2*compare + jump
	size := len(ports)*each - jump
	b := make([]byte, 0, size)
	op := func(code, yes uint8, no int) {
		b = append(b, code, yes)
		b = binary.NativeEndian.AppendUint16(b, uint16(no)) //nolint:gosec // at most maxPorts*each
	}
	for _, port := range ports {
		op(opSourceFrom, compare, each) // no: to the next port
		op(0, 0, port)
		op(opSourceTo, compare, each-compare)
		op(0, 0, port)
		if len(b) < size {
			op(opJump, jump, size-len(b))
		}
	}
	return b
}

// parse decodes a struct inet_diag_msg and the attributes that follow it.
func (s *socket) parse(b []byte) error {
	if len(b) < messageSize {
		return fmt.Errorf("%w: %d bytes", errGarbled, len(b))
	}
	var local, remote netip.Addr
	switch b[0] {
	case unix.AF_INET:
		local, remote = netip.AddrFrom4([4]byte(b[8:12])), netip.AddrFrom4([4]byte(b[24:28]))
	case unix.AF_INET6:
		local, remote = netip.AddrFrom16([16]byte(b[8:24])).Unmap(), netip.AddrFrom16([16]byte(b[24:40])).Unmap()
	default:
		return fmt.Errorf("%w: family %d", errGarbled, b[0])
	}
	native := binary.NativeEndian
	*s = socket{
		id:     identity{b[0], [sockIDSize]byte(b[sockIDAt:])},
		cookie: native.Uint64(b[sockIDAt+cookieAt:]),
		state:  b[1],
		local:  local,
		port:   int(binary.BigEndian.Uint16(b[sockIDAt:])),
		remote: netip.AddrPortFrom(remote, binary.BigEndian.Uint16(b[6:])),
		unread: native.Uint32(b[56:]),
		unsent: native.Uint32(b[60:]),
	}
	for rest := b[messageSize:]; len(rest) >= attrHeader; {
		size, kind := int(native.Uint16(rest)), native.Uint16(rest[2:])
		if size < attrHeader || size > len(rest) {
			return fmt.Errorf("%w: an attribute of %d bytes, but only %d are left", errGarbled, size, len(rest))
		}
		if kind == attrInfo {
			if err := s.parseInfo(rest[attrHeader:size]); err != nil {
				return err
			}
		}
		rest = rest[min(aligned(size), len(rest)):]
	}
	return nil
}

// parseInfo decodes a struct tcp_info.
func (s *socket) parseInfo(b []byte) error {
	if len(b) < tcpInfoMinimum {
		return errOldKernel
	}
	native := binary.NativeEndian
	s.info = true
	s.sentAge, s.recvAge, s.ackAge = native.Uint32(b[infoLastSent:]), native.Uint32(b[infoLastRecv:]), native.Uint32(b[infoLastAck:])
	s.recv, s.sent = native.Uint64(b[infoBytesRecv:]), native.Uint64(b[infoBytesSent:])
	s.segsIn, s.dataIn = native.Uint32(b[infoSegsIn:]), native.Uint32(b[infoDataIn:])
	s.largest = native.Uint32(b[infoRecvMSS:])
	s.segsOut, s.dataOut = native.Uint32(b[infoSegsOut:]), native.Uint32(b[infoDataOut:])
	return nil
}

// aligned returns size with the padding of netlink's messages.
func aligned(size int) int { return (size + 3) &^ 3 }

// refused reports whether err means that this kernel, or a security policy,
// will never answer.
func refused(err error) bool {
	for _, never := range []error{
		unix.EPERM, unix.EACCES, unix.ENOSYS, unix.EAFNOSUPPORT, unix.EPROTONOSUPPORT, unix.EOPNOTSUPP,
		unix.ENOENT, // the module tcp_diag is missing
		unix.EINVAL, errOldKernel,
	} {
		if errors.Is(err, never) {
			return true
		}
	}
	return false
}
