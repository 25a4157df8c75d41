package remote

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"time"

	"github.com/semelhq/semel"
)

// protocol is the version that this package speaks, in paths and in messages.
const protocol = 1

// verb is what a message asks for.
type verb uint8

const (
	verbGet verb = iota + 1
	verbSwap
	verbMany
	verbSweep
	verbList
	verbHistory
	verbWatch
	verbMeasure
	lastVerb = verbMeasure
)

// verbs names the verbs in paths.
var verbs = [...]string{
	verbGet: "get", verbSwap: "swap", verbMany: "many", verbSweep: "sweep", verbList: "list", verbHistory: "history", verbWatch: "watch",
	verbMeasure: "measure",
}

const (
	prefix       = "/semel/v1/"
	helloPath    = "/semel/hello"
	messageType  = "application/vnd.semel.v1"
	watchType    = "application/vnd.semel.watch.v1"
	headTimeout  = "Semel-Timeout"   // milliseconds that the caller will wait
	headMaxBytes = "Semel-Max-Bytes" // the largest answer that the caller reads
)

// requestID joins an answer to its question. A connection on which answers have
// slipped by one would else give a stranger's record.
type requestID [16]byte

// A message is a head, a payload and the CRC-32C of both, all integers
// big-endian. The checksum is at the end, so that a message that was cut or to
// which something was added does not fit.
//
//	3   "SML"
//	1   version of the protocol, 1
//	1   verb; in an answer 128 is added
//	16  request id
//	…   payload
//	4   CRC-32C of everything before
const (
	headSize   = 3 + 1 + 1 + 16
	frameSize  = headSize + 4
	answerFlag = 0x80
)

// begin appends a message's head.
func begin(b []byte, v verb, id requestID) []byte {
	b = append(b, 'S', 'M', 'L', protocol, byte(v))
	return append(b, id[:]...)
}

// seal appends the checksum to a message that starts at b's start.
func seal(b []byte) []byte {
	return binary.BigEndian.AppendUint32(b, checksum(b))
}

func checksum(b []byte) uint32 { return crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)) }

// open checks a message's frame and gives its id and a cursor on its payload.
func open(b []byte, v verb) (id requestID, payload cursor, err error) {
	switch {
	case len(b) < frameSize:
		return id, payload, fmt.Errorf("a message of %d bytes is shorter than its frame of %d", len(b), frameSize)
	case string(b[:3]) != "SML":
		return id, payload, fmt.Errorf("a message begins with %q and not with SML", b[:3])
	case b[3] != protocol:
		return id, payload, fmt.Errorf("a message is of version %d, and %d is spoken here", b[3], protocol)
	case binary.BigEndian.Uint32(b[len(b)-4:]) != checksum(b[:len(b)-4]):
		return id, payload, fmt.Errorf("a message of %d bytes was cut or changed on its way: its checksum differs", len(b))
	case verb(b[4]) != v:
		return id, payload, fmt.Errorf("a message has the verb %d, and %d was expected", b[4], v)
	}
	copy(id[:], b[5:])
	return id, cursor{b: b[headSize : len(b)-4]}, nil
}

// cursor reads a payload from its beginning. After a read past the end, or of a
// value that no writer writes, it is bad for good and gives zeros.
type cursor struct {
	b   []byte
	bad bool
}

// take gives the next n bytes, which are the message's own.
func (c *cursor) take(n uint64) []byte {
	if n > uint64(len(c.b)) {
		c.b, c.bad = nil, true
		return nil
	}
	out := c.b[:n:n]
	c.b = c.b[n:]
	return out
}

func (c *cursor) uint64() uint64 {
	if b := c.take(8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

func (c *cursor) uint32() uint32 {
	if b := c.take(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

func (c *cursor) byte() byte {
	if b := c.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (c *cursor) bool() bool {
	n := c.byte()
	c.bad = c.bad || n > 1
	return n == 1
}

// bytes reads what appendBytes wrote.
func (c *cursor) bytes() []byte { return c.take(uint64(c.uint32())) }

func (c *cursor) version() semel.Version {
	return semel.Version{Epoch: c.uint64(), Counter: c.uint64()}
}

// time reads what appendTime wrote. The zero time is no time that a message has.
func (c *cursor) time() time.Time {
	n := int64(c.uint64())
	c.bad = c.bad || n == 0
	return time.Unix(0, n)
}

func (c *cursor) digest() (d semel.Digest) {
	copy(d[:], c.take(uint64(len(d))))
	return d
}

// whole tells whether everything was read and nothing is left.
func (c *cursor) whole() bool { return !c.bad && len(c.b) == 0 }

func appendVersion(b []byte, v semel.Version) []byte {
	b = binary.BigEndian.AppendUint64(b, v.Epoch)
	return binary.BigEndian.AppendUint64(b, v.Counter)
}

// appendTime appends Unix nanoseconds, 0 for the zero time.
func appendTime(b []byte, t time.Time) []byte {
	if t.IsZero() {
		return binary.BigEndian.AppendUint64(b, 0)
	}
	return binary.BigEndian.AppendUint64(b, uint64(t.UnixNano()))
}

func appendBool(b []byte, is bool) []byte {
	if is {
		return append(b, 1)
	}
	return append(b, 0)
}

// appendBytes appends a length of four bytes and what it is the length of.
func appendBytes(b, data []byte) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(len(data)))
	return append(b, data...)
}
