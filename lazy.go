package semel

import (
	"context"
	"sync"
	"time"
)

// lazyContext is a context that costs nothing until somebody waits for it:
// most operations end without ever looking at Done. It has a deadline, or can
// be cancelled with a cause, or both, and does not follow its parent's end.
type lazyContext struct {
	parent   context.Context // for values
	deadline time.Time

	mu     sync.Mutex
	cause  error
	real   context.Context
	cancel context.CancelCauseFunc
	stop   context.CancelFunc
}

// Deadline is part of [context.Context].
func (c *lazyContext) Deadline() (time.Time, bool) { return c.deadline, !c.deadline.IsZero() }

// Done is part of [context.Context].
func (c *lazyContext) Done() <-chan struct{} { return c.materialise().Done() }

// Err is part of [context.Context].
func (c *lazyContext) Err() error {
	c.mu.Lock()
	real, cause := c.real, c.cause
	c.mu.Unlock()
	switch {
	case real != nil:
		return real.Err()
	case cause != nil:
		return context.Canceled
	case !c.deadline.IsZero() && !time.Now().Before(c.deadline):
		return context.DeadlineExceeded
	}
	return nil
}

// Value is part of [context.Context]. It asks the real context once there is
// one, so that the standard library recognises its own kind in it and needs no
// goroutine for contexts derived from this one.
func (c *lazyContext) Value(key any) any {
	c.mu.Lock()
	real := c.real
	c.mu.Unlock()
	if real != nil {
		return real.Value(key)
	}
	return context.WithoutCancel(c.parent).Value(key)
}

func (c *lazyContext) materialise() context.Context {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.real == nil {
		base := context.WithoutCancel(c.parent)
		if !c.deadline.IsZero() {
			base, c.stop = context.WithDeadline(base, c.deadline)
		}
		c.real, c.cancel = context.WithCancelCause(base)
		if c.cause != nil {
			c.cancel(c.cause)
		}
	}
	return c.real
}

// again gives a context for one more use: c itself, unless it is nil or
// somebody waited for it in an earlier use, which must not see the next one's end.
func (c *lazyContext) again(parent context.Context, deadline time.Time) *lazyContext {
	if c == nil {
		return &lazyContext{parent: parent, deadline: deadline}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.real != nil {
		return &lazyContext{parent: parent, deadline: deadline}
	}
	c.parent, c.deadline, c.cause = parent, deadline, nil
	return c
}

// unseen tells whether nobody has waited for the context in its present use.
func (c *lazyContext) unseen() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.real == nil
}

// end cancels the context and frees what it holds.
func (c *lazyContext) end(cause error) {
	if cause != context.Canceled {
		c.materialise() // so that context.Cause finds it
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cause == nil {
		c.cause = cause
	}
	if c.real != nil {
		c.cancel(cause)
		if c.stop != nil {
			c.stop()
		}
	}
}
