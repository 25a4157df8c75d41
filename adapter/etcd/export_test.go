package etcd

import (
	"time"

	"google.golang.org/grpc"
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
