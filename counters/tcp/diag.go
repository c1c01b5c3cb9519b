package tcp

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
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

// connected are the states in which there may be something left to do on a
// connection. In the others it is not yet made, or its peer has everything.
const connected = 1<<established | 1<<finWait1 | 1<<closeWait | 1<<lastAck | 1<<closing

// What is used of linux/inet_diag.h. All of it is part of the kernel's ABI.
const (
	getSockets     = 18 // TCPDIAG_GETSOCK
	requestSize    = 60 // struct inet_diag_req
	messageSize    = 72 // struct inet_diag_msg
	attrBytecode   = 1  // INET_DIAG_REQ_BYTECODE
	attrInfo       = 2  // INET_DIAG_INFO: struct tcp_info
	wantInfo       = 1 << (attrInfo - 1)
	opJump         = 1 // INET_DIAG_BC_JMP
	opSourceFrom   = 2 // INET_DIAG_BC_S_GE
	opSourceTo     = 3 // INET_DIAG_BC_S_LE
	tcpInfoMinimum = 208
)

// Where what is used stands in struct tcp_info (linux/tcp.h).
const (
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

var (
	errGarbled   = errors.New("the kernel's answer cannot be understood")
	errOldKernel = errors.New("the kernel does not tell the bytes that were sent: Linux 4.19 or newer is needed")
)

// socket is one of the app's sockets, as the kernel shows it.
type socket struct {
	cookie uint64 // tells it from all others, also after it is gone
	state  uint8
	local  netip.Addr
	remote netip.AddrPort
	unread uint32 // bytes that were received and not read by the app; a FIN is one
	unsent uint32 // bytes that the app has written and the peer has not acknowledged; a FIN is one

	info                    bool   // what follows is known
	recv                    uint64 // bytes received in order; a FIN is one
	sent                    uint64 // bytes sent
	recvAge, sentAge        uint32 // ms since data was last received and sent, or the connection was made
	ackAge                  uint32 // ms since the peer last acknowledged something
	segsIn, dataIn, segsOut uint32 // segments, and those of them with data
	dataOut                 uint32
}

// answerBuffer is as much as the kernel answers at once.
const answerBuffer = 32 << 10

// dial opens a connection to the kernel's socket diagnostics. It asks nothing
// that needs a capability.
func dial() (*netlink.Conn, error) {
	conn, err := netlink.Dial(unix.NETLINK_SOCK_DIAG, &netlink.Config{MessageBufferSize: answerBuffer})
	if err != nil {
		return nil, fmt.Errorf("opening a netlink socket: %w", err)
	}
	return conn, nil
}

// diagnostics asks the kernel for sockets, over one connection that it keeps
// from the first time on, unless something goes wrong on it. It is for one
// caller at a time. Its zero value is ready.
type diagnostics struct{ conn *netlink.Conn }

func (d *diagnostics) close() {
	if d.conn != nil {
		_ = d.conn.Close() // nothing is in it that matters
		d.conn = nil
	}
}

// dump shows visit each socket in one of states, a set of bits, whose local
// port is one of ports. The kernel leaves out all others, so that they cost
// neither memory nor copying. It ends with ctx.
func (d *diagnostics) dump(ctx context.Context, ports []int, states uint32, visit func(*socket) error) (err error) {
	if err := ctx.Err(); err != nil {
		return err
	}
	if d.conn == nil {
		if d.conn, err = dial(); err != nil {
			return err
		}
	}
	conn := d.conn
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	err = dump(conn, ports, states, visit)
	if !stop() || err != nil {
		d.close() // the rest of an answer may be in it
	}
	if err != nil && ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

func dump(conn *netlink.Conn, ports []int, states uint32, visit func(*socket) error) error {
	sent, err := conn.Send(netlink.Message{
		Header: netlink.Header{Type: getSockets, Flags: netlink.Request | netlink.Dump},
		Data:   request(states, ports),
	})
	if err != nil {
		return fmt.Errorf("asking the kernel for sockets: %w", err)
	}
	var s socket
	var failed error
	for m, err := range conn.ReceiveIter() {
		switch {
		case failed != nil: // what is left of the answer is not looked at
		case err != nil:
			failed = fmt.Errorf("asking the kernel for sockets: %w", err)
		case m.Header.Sequence != sent.Header.Sequence || m.Header.Type != getSockets:
			failed = fmt.Errorf("%w: a message of type %d", errGarbled, m.Header.Type)
		default:
			if failed = s.parse(m.Data); failed == nil {
				failed = visit(&s)
			}
		}
	}
	return failed
}

// request is a struct inet_diag_req with the filter as its attribute. Unlike its
// successor (inet_diag_req_v2) it asks for IPv4 and IPv6 at once, as ss does:
// the kernel goes through its table of all sockets, most of it empty, for each
// request, and that is what a reading costs.
func request(states uint32, ports []int) []byte {
	code := portFilter(ports)
	b := make([]byte, requestSize, requestSize+4+len(code))
	if states&^(1<<listen) != 0 {
		b[3] = wantInfo
	}
	binary.NativeEndian.PutUint32(b[52:], states)
	b = binary.NativeEndian.AppendUint16(b, uint16(4+len(code))) //nolint:gosec // at most maxPorts ports
	b = binary.NativeEndian.AppendUint16(b, attrBytecode)
	return append(b, code...)
}

// portFilter is a program for the kernel: is the local port one of ports? Each
// operation says how far to go on when it holds, and how far when it does not:
// to the end of the program, which takes the socket, or beyond it, which
// leaves it out.
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

// parse reads a struct inet_diag_msg and the attributes that follow it.
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
		state:  b[1],
		local:  local,
		remote: netip.AddrPortFrom(remote, binary.BigEndian.Uint16(b[6:])),
		cookie: native.Uint64(b[44:]),
		unread: native.Uint32(b[56:]),
		unsent: native.Uint32(b[60:]),
	}
	attributes, err := netlink.NewAttributeDecoder(b[messageSize:])
	if err != nil {
		return fmt.Errorf("%w: %w", errGarbled, err)
	}
	for attributes.Next() {
		if attributes.Type() != attrInfo {
			continue
		}
		i := attributes.Bytes()
		if len(i) < tcpInfoMinimum {
			return errOldKernel
		}
		s.info = true
		s.sentAge, s.recvAge, s.ackAge = native.Uint32(i[infoLastSent:]), native.Uint32(i[infoLastRecv:]), native.Uint32(i[infoLastAck:])
		s.recv, s.sent = native.Uint64(i[infoBytesRecv:]), native.Uint64(i[infoBytesSent:])
		s.segsIn, s.dataIn = native.Uint32(i[infoSegsIn:]), native.Uint32(i[infoDataIn:])
		s.segsOut, s.dataOut = native.Uint32(i[infoSegsOut:]), native.Uint32(i[infoDataOut:])
	}
	if err := attributes.Err(); err != nil {
		return fmt.Errorf("%w: %w", errGarbled, err)
	}
	return nil
}

// refused tells whether err says that this kernel, or what guards it, will
// never answer.
func refused(err error) bool {
	for _, never := range []error{
		unix.EPERM, unix.EACCES, unix.ENOSYS, unix.EAFNOSUPPORT, unix.EPROTONOSUPPORT, unix.EOPNOTSUPP,
		unix.ENOENT, // there is no module tcp_diag
		unix.EINVAL, errOldKernel,
	} {
		if errors.Is(err, never) {
			return true
		}
	}
	return false
}
