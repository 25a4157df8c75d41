package etcd

import (
	"time"

	"google.golang.org/grpc"

	"github.com/semelhq/semel"
)

// WithLocalClock gives o with another clock of the process.
func WithLocalClock(o Options, now func() time.Time) Options {
	o.local = now
	return o
}

// WithDial gives o with options for the connection.
func WithDial(o Options, dial ...grpc.DialOption) Options {
	o.dial = dial
	return o
}

// ClockError is how far off the store's clock may be.
func ClockError(s *Store) time.Duration {
	r, _ := s.cluster.clock.now()
	return r.err
}

// Bounds are a server's clock.
type Bounds struct{ bounds }

// Seen is one more answer.
func (b Bounds) Seen(from, at, date time.Time) (Bounds, bool) {
	after, step := b.seen(from, at, date)
	return Bounds{after}, step
}

// Ends are the bounds themselves.
func (b Bounds) Ends() (low, high time.Time) { return b.low, b.high }

// Watching is how many keys are watched.
func Watching(s *Store) int {
	s.hub.mu.Lock()
	defer s.hub.mu.Unlock()
	return len(s.hub.topics)
}

// VersionBytes is how a version stands in keys.
func VersionBytes(v semel.Version) string { return versionBytes(v) }

// MeasureMost has a measure look at no more records than these.
func MeasureMost(s *Store, most int) { s.rounds.most = most }
