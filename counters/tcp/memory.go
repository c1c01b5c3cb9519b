package tcp

// activity is what is known of the last thing that happened on a connection.
type activity uint8

const (
	answered  activity = iota // an answer was sent after all that was received, or nothing was ever received
	waiting                   // a request was received after all that was sent
	unordered                 // either of the two
	slight                    // too little was received since the last answer to be a request
	interim                   // too little was sent since the request to be its answer
	streaming                 // the answer comes in pieces, and may go on
	handshake                 // what was sent may still belong to TLS's handshake
)

// finding is what an activity says about work on a connection.
type finding uint8

const (
	idle     finding = iota // nobody is at work on it
	busy                    // somebody is
	unproven                // answered by all that is seen, but more may come
	doubtful                // nothing says whether somebody is at work on it
	begun                   // it was opened, and has most likely carried no request yet
)

const (
	// farewellMaximum is as much as a peer may say before it closes an idle
	// connection: TLS's close_notify, HTTP/2's GOAWAY.
	farewellMaximum = 64
	// ackSoon bounds, in ms, how much later than data its acknowledgement may
	// come: TCP waits for 200 ms at most, then it travels. What comes later
	// belongs to a keep-alive probe, of which none is sent in the first second.
	ackSoon = 500
	// handshakeSegments have come, without data, when a connection is made.
	handshakeSegments = 2
	// frameSoon bounds, in ms, how much later than what it was sent a client of
	// HTTP/2 acknowledges it, or opens its window.
	frameSoon = 250
	// pongSoon bounds, in ms, how long an app takes to answer a ping, and
	// clientPongSoon how long a client does, which may be far away.
	pongSoon       = 500
	clientPongSoon = 3000
	// sameAnswer bounds, in ms, the pause between two parts of an answer that
	// a server writes one after the other: its header and its body.
	sameAnswer = 100
	// afterHandshake, in ms: a server sends its session tickets as soon as it
	// has the client's Finished. What it sends so much later is an answer.
	afterHandshake = 1000
	// handshakeFlights bounds the segments of a TLS handshake in one direction,
	// session tickets included. Who has sent more has said something else.
	handshakeFlights = 7
	// tlsOpening is how many segments with data a client sends for a handshake
	// alone: its hello, and its Finished.
	tlsOpening = 2
	// finishedMaximum is as much as a client sends to end a handshake, without
	// a certificate of its own. Some, like Node, send their first request in
	// the same segment; with one it is longer.
	finishedMaximum = 96
	// paddedHello is the size of the hello of clients that pad it.
	paddedHello = 517
	// largeHello is the least size of a hello that the kernel tells as that of
	// the largest segment received; it takes smaller ones for no measure.
	largeHello = 537
	// settingsMaximum is as much as a server of HTTP/2 says of itself when a
	// connection begins: settings, acknowledgements, its window, a ping.
	settingsMaximum = 128
	// provenAnswers is how many answers a client must have followed with
	// another request before the next one is taken for complete, too.
	provenAnswers = 2
	// manyExchanges is how many segments with data must have gone in both
	// directions to be several requests with their answers, and requestSegment
	// how many bytes they have then, on average, at most.
	manyExchanges  = 4
	requestSegment = 1000
)

// memory is what is kept of a connection from one look to the next.
type memory struct {
	activity activity
	own      bool   // it is the sidecar's
	port     int    // the app's
	unsent   bool   // data was waiting for the peer
	pinged   bool   // frames that are no work have come or gone since
	frames   bool   // it carries small frames in both directions: on a port of HTTP/1, a WebSocket
	pauses   bool   // an answer on it has paused for long
	notHTTP2 bool   // it carries what HTTP/2 cannot, on a port that speaks that: a WebSocket
	merged   bool   // more than one segment came in the look that shows the last data
	left     bool   // the app has said that it closes the connection
	masked   bool   // those of the client are longer by a WebSocket's mask
	settled  bool   // its TLS handshake is over
	pieces   bool   // a second part of the answer was sent right after the first
	proven   uint8  // answers that were followed by another request
	exact    bool   // size is that of one answer
	finished bool   // the second segment of data has ended a TLS handshake, and held no request
	size     uint64 // bytes of the last answer, or of several
	look     uint32

	recv, sent      uint64 // bytes of data
	segsIn          uint32 // segments
	dataIn, dataOut uint32 // and those of them with data
	pureIn, pureOut uint32 // and those without

	idleRecv, idleSent uint64 // bytes when it was last answered
	asked              uint32 // segments with data that have come since
	bornAt             int64  // ms: when it was first seen; 0: it was there before
	outAt              int64  // ms: when anything was last sent, a ping too
	recvAt, sentAt     int64  // ms, by the view's clock: the last data that was more than a ping

	// What activity and times were before a small frame came or went, which is
	// a ping if it is answered by one.
	before struct {
		pending        uint8
		activity       activity
		recvAt, sentAt int64
		bytes          uint64
	}
}

// What a small frame that is not answered yet was, for memory.before.pending.
const (
	cameSmall = 1
	wentSmall = 2
)

// fresh is the past of a connection that has just been made.
func fresh() memory { return memory{pureIn: handshakeSegments} }
