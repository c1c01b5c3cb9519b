package tcp

import "slices"

// kind classifies the data that came or went between two checks.
type kind uint8

const (
	none  kind = iota
	tiny       // smaller than any frame of HTTP/2: a heartbeat of AMQP, STOMP or MQTT, a ping
	small      // smaller than a request or its answer
	large
)

// sizes holds limits in bytes of one segment.
type sizes struct{ tiny, small, request, interim uint64 }

// The bytes that TLS adds to a record: 22 in version 1.3, and up to 29 in
// version 1.2 with today's ciphers.
const (
	recordLeast = 22
	recordMost  = 29
)

// sizes returns the limits for what the port speaks. Without TLS:
//
//   - tiny: the smallest frame of HTTP/2 has 9 bytes. A heartbeat has 8 in AMQP,
//     2 in MQTT, 1 in STOMP.
//   - small: a ping of HTTP/2 has 17 bytes.
//   - request: "GET / HTTP/1.0" and two ends of line.
//   - interim: "HTTP/1.1 100 Continue", or 102 Processing, and two ends of line.
//     An answer that ends a request is longer.
func (p protocol) sizes() sizes {
	z := sizes{tiny: 8, small: 17, request: 18, interim: 32}
	if p.tls {
		z = sizes{z.tiny + recordLeast, z.small + recordMost, z.request + recordMost, z.interim + recordMost}
	}
	return z
}

// kind returns what this number of bytes in this number of segments may be.
// Each segment is judged by itself, as far as the kernel's totals allow: many
// small segments do not make a large one.
func (p protocol) kind(bytes uint64, segments uint32) kind {
	if bytes == 0 {
		return none
	}
	z, n := p.sizes(), uint64(max(segments, 1))
	largest := bytes - min(n-1, bytes) // the most that one of them can have
	switch {
	case largest <= z.tiny, n > 1 && bytes%n == 0 && bytes/n <= z.tiny: // all have the same size
		return tiny
	case largest <= z.small:
		return small
	case n > 1 && bytes%n == 0 && bytes/n <= z.small:
		return small
	}
	return large
}

// isControlSize reports whether this number of bytes is one or two frames of
// HTTP/2 that neither request nor answer anything: an acknowledgement of
// settings (9), a window update or a reset (13), a ping (17). The smallest
// answer of gRPC has 35.
func isControlSize(bytes uint64) bool {
	return slices.Contains([]uint64{9, 13, 17, 18, 22, 26, 30, 34}, bytes)
}

// isControl reports whether the bytes that a server of HTTP/2 has sent are most
// likely such frames. Each frame has its own TLS record, except that frames in
// one segment share a record.
func (p protocol) isControl(bytes uint64, segments uint32) bool {
	if !p.tls {
		return isControlSize(bytes)
	}
	for _, record := range []uint64{recordLeast, recordMost} {
		for records := uint64(1); records <= uint64(min(max(segments, 1), 2)); records++ {
			if added := record * records; bytes > added && isControlSize(bytes-added) {
				return true
			}
		}
	}
	return false
}

// isReaction reports whether the bytes are a reaction of an HTTP/2 client to
// what it was sent: an acknowledgement, a window update, a ping's answer, or
// both of the last two. Only gRPC's very smallest request has such a size.
func (p protocol) isReaction(bytes uint64) bool {
	usual := []uint64{9, 13, 17, 30}
	if !p.tls {
		return slices.Contains(usual, bytes)
	}
	return slices.ContainsFunc([]uint64{recordLeast, recordMost}, func(record uint64) bool {
		return bytes > record && slices.Contains(usual, bytes-record)
	})
}

// slightMaximum is the size of four control frames. A client of gRPC sends some
// of them at once; its smallest request has 30 bytes.
const slightMaximum = 68

// isSlight reports whether the bytes that a client of HTTP/2 has sent may be
// control frames. They may also be a small request.
func (p protocol) isSlight(bytes uint64) bool {
	if p.tls {
		return bytes <= slightMaximum+2*recordMost
	}
	return bytes <= slightMaximum
}

// isTooShort reports whether the bytes of one segment are fewer than the
// smallest frame of HTTP/2 has, and are not a TLS alert.
func (p protocol) isTooShort(bytes uint64) bool {
	const smallest = 9
	if p.tls {
		return bytes < smallest+recordLeast && !p.isFarewell(bytes)
	}
	return bytes < smallest
}

// leastInterim is the size of "HTTP/1.1 100" and two ends of line.
const leastInterim = 16

// isFrame reports whether the bytes that a server of HTTP/1 has sent after a
// request are too few for any HTTP answer. They are then a WebSocket's frame.
func (p protocol) isFrame(bytes uint64) bool {
	if p.tls {
		return bytes < leastInterim+recordLeast
	}
	return bytes < leastInterim
}

// isFarewell reports whether the bytes are only a TLS alert, which has two
// bytes in a record. close_notify is sent this way.
func (p protocol) isFarewell(bytes uint64) bool {
	const alert = 2
	return p.tls && slices.Contains([]uint64{alert + recordLeast - 1, alert + recordLeast, alert + recordMost}, bytes)
}

// isRest reports whether the last bytes that were sent before a connection
// ended were the rest of an answer. Otherwise they are what a server sends when
// it closes an idle connection: TLS's close_notify, HTTP/2's GOAWAY.
func (p protocol) isRest(bytes uint64) bool {
	const goAway = 60 // with a short text that gives the reason
	switch {
	case p.isFarewell(bytes):
		return false
	case p.http1:
		return true
	case p.tls:
		return bytes > goAway+3*recordMost
	}
	return bytes > goAway
}

// opening returns how many segments a client sends before its first request.
func (p protocol) opening() uint32 {
	if p.tls {
		return tlsOpening + 1
	}
	return 0
}

// isOpening reports whether the first data on a connection is only the header
// of the PROXY protocol, version 2, for IPv4 or IPv6. A load balancer sends it
// for a client that has opened a connection and sent nothing. A server that
// answers data without this header does not expect the header.
func (p protocol) isOpening(bytes uint64, segments uint32) bool {
	return !p.http && segments == 1 && (bytes == 28 || bytes == 52)
}
