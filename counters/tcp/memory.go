package tcp

// activity is what is known about the last event on a connection.
type activity uint8

const (
	answered  activity = iota // an answer was sent after everything that was received, or nothing was ever received
	waiting                   // a request was received after everything that was sent
	unordered                 // one of these two, but it is not known which
	slight                    // too little was received since the last answer to be a request
	interim                   // too little was sent since the request to be its answer
	streaming                 // the answer comes in pieces, and may go on
	handshake                 // what was sent may still belong to the TLS handshake
)

// finding is what an activity means for the work on a connection.
type finding uint8

const (
	idle     finding = iota // nobody is at work on it
	busy                    // somebody is at work on it
	unproven                // answered as far as is known, but more may come
	doubtful                // it is not known whether somebody is at work on it
	begun                   // it was opened, and most likely has carried no request yet
)

const (
	// farewellMaximum bounds what a peer may send before it closes an idle
	// connection: TLS's close_notify, HTTP/2's GOAWAY.
	farewellMaximum = 64
	// ackSoon bounds, in ms, how long after data its acknowledgement may
	// arrive: TCP delays it by up to 200 ms, and then it travels. A later one
	// belongs to a keep-alive probe; none of these is sent in the first second.
	ackSoon = 500
	// handshakeSegments is how many segments without data have come when a
	// connection is established.
	handshakeSegments = 2
	// frameSoon bounds, in ms, how long after receiving something a client of
	// HTTP/2 acknowledges it, or opens its window.
	frameSoon = 250
	// pongSoon bounds, in ms, how long an app takes to answer a ping.
	// clientPongSoon is the same for a client, which may be far away.
	pongSoon       = 500
	clientPongSoon = 3000
	// sameAnswer bounds, in ms, the pause between two parts of an answer that a
	// server writes directly after each other: its header and its body.
	sameAnswer = 100
	// afterHandshake is in ms. A server sends its session tickets as soon as it
	// has received the client's Finished. What it sends so much later is an
	// answer.
	afterHandshake = 1000
	// handshakeFlights bounds the segments of a TLS handshake in one direction,
	// including session tickets. A side that has sent more has sent other data
	// too.
	handshakeFlights = 7
	// tlsOpening is how many segments with data a client sends for a handshake
	// alone: its ClientHello and its Finished.
	tlsOpening = 2
	// finishedMaximum bounds what a client without its own certificate sends to
	// end a handshake. Some clients, like Node, send their first request in the
	// same segment, which is then longer.
	finishedMaximum = 96
	// paddedHello is the size of the ClientHello of clients that pad it.
	paddedHello = 517
	// largeHello is the smallest size of a ClientHello that the kernel reports
	// as that of the largest segment received. It does not measure smaller
	// ones.
	largeHello = 537
	// settingsMaximum bounds what a server of HTTP/2 sends of its own accord
	// when a connection begins: settings, acknowledgements, its window, a ping.
	settingsMaximum = 128
	// provenAnswers is how many answers a client must have followed with
	// another request before the next answer is taken for complete too.
	provenAnswers = 2
	// manyExchanges is how many segments with data must have gone in both
	// directions to be several requests with their answers. requestSegment is
	// the maximum of their average size in bytes.
	manyExchanges  = 4
	requestSegment = 1000
)

// memory is what is kept about a connection from one check to the next.
type memory struct {
	activity activity
	own      bool   // it is the sidecar's own connection
	port     int    // the app's port
	unsent   bool   // data was waiting to be acknowledged by the peer
	pinged   bool   // frames that are not work have come or gone since
	frames   bool   // it carries small frames in both directions: on a port of HTTP/1, a WebSocket
	pauses   bool   // an answer on it has paused for long
	notHTTP2 bool   // it carries what HTTP/2 cannot carry, on a port that speaks HTTP/2: a WebSocket
	merged   bool   // more than one segment came in the check that shows the last data
	left     bool   // the app has announced that it closes the connection
	masked   bool   // the client's frames are longer by a WebSocket's mask
	settled  bool   // its TLS handshake is over
	pieces   bool   // a second part of the answer was sent right after the first
	proven   uint8  // answers that were followed by another request
	exact    bool   // size is the size of exactly one answer
	finished bool   // the second segment with data has ended a TLS handshake, and contained no request
	size     uint64 // bytes of the last answer, or of several
	look     uint32

	recv, sent      uint64 // bytes of data
	segsIn          uint32 // segments
	dataIn, dataOut uint32 // segments with data
	pureIn, pureOut uint32 // segments without data

	idleRecv, idleSent uint64 // bytes when the connection was last answered
	asked              uint32 // segments with data that have come since
	bornAt             int64  // ms: when it was first seen; 0: it existed before
	outAt              int64  // ms: when anything was last sent, including pings
	recvAt, sentAt     int64  // ms, by the view's clock: the last data that was more than a ping

	// before holds what activity and times were before a small frame came or
	// went. That frame is a ping if a frame of the same kind answers it.
	before struct {
		pending        uint8
		activity       activity
		recvAt, sentAt int64
		bytes          uint64
	}
}

// Values of memory.before.pending: the direction of a small frame that is not
// answered yet.
const (
	cameSmall = 1
	wentSmall = 2
)

// fresh returns the memory of a connection that has just been made.
func fresh() memory { return memory{pureIn: handshakeSegments} }
