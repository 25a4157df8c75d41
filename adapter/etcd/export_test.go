package etcd

import (
	"time"

	"google.golang.org/grpc"
)

// SharingClock gives o with the clock of a store that is open, so that a test
// with hundreds of stores does not wait for hundreds of seconds to change.
func SharingClock(o Options, s *Store) Options {
	o.clock = s.cluster.clock
	return o
}

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
