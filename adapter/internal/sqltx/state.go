package sqltx

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/semelhq/semel"
)

// state is what is known of an open transaction.
type state struct {
	rules  *Rules
	scoped bool // a scope has begun it, and alone ends it

	mu      sync.Mutex
	ending  bool // by the scope
	keyed   bool // a key was written in it: from then on errors count
	failed  error
	fatal   bool     // a savepoint does not mend it
	savings []string // names of savepoints that are set
	// open are keys that were taken in a caller's transaction and have no result yet.
	open map[semel.Digest]struct{}
}

// errPoisoned: the operation did not report an error, or went on after it.
var errPoisoned = errors.New("an earlier statement of this transaction failed, so nothing of it may be committed")

// admit refuses statements that would end the transaction behind its owner's
// back, and all after one that failed.
func (s *state) admit(c *controlled) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	mended := c.verb == rollbackTo && c.alone && !s.fatal && s.saved(c.name) >= 0
	switch {
	case s.failed != nil && (s.keyed || s.fatal) && !mended:
		return fmt.Errorf("%w: %w", errPoisoned, s.failed)
	case c.verb == ends && s.keyed:
		s.failed = fmt.Errorf("the statement %s would end the transaction, which is committed or undone as a whole by who has begun it: "+
			"return from the operation, with an error to undo it", c.name)
		s.fatal = true
		return s.failed
	}
	return nil
}

// note takes notice of what a statement came to, and gives its error back.
func (s *state) note(c *controlled, err error) error {
	if err == driver.ErrSkip { //nolint:errorlint // a signal of the driver, which is never wrapped
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		if s.failed == nil || !s.fatal {
			s.failed = err
		}
		s.fatal = s.fatal || s.rules.Fatal(err) || lost(err)
		return err
	}
	at := s.saved(c.name)
	switch {
	case c.verb == savepoint:
		s.savings = append(s.savings, c.name)
	case c.verb == release && at >= 0:
		s.savings = s.savings[:at]
	case c.verb == rollbackTo && at >= 0:
		s.savings = s.savings[:at+1]
		if c.alone {
			s.failed = nil
		}
	}
	return nil
}

// lost tells whether after err nothing is known of the connection. Drivers close
// it when a context ends.
func lost(err error) bool {
	return errors.Is(err, driver.ErrBadConn) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}

// saved finds a savepoint, the newest of its name. It gives -1 if there is none.
func (s *state) saved(name string) int {
	for i := len(s.savings) - 1; i >= 0; i-- {
		if strings.EqualFold(s.savings[i], name) {
			return i
		}
	}
	return -1
}

// key has errors count from now on, and one of before as well: whether the
// transaction is whole, nobody knows then.
func (s *state) key() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keyed = s.keyed || s.failed == nil
	return s.poison()
}

// broken gives an error if the transaction must not be committed.
func (s *state) broken() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case !s.keyed && !s.fatal:
		return nil
	case s.failed == nil && len(s.open) > 0:
		return errOpen
	}
	return s.poison()
}

// errOpen: who commits has not waited for the end, or goes on after an error.
var errOpen = errors.New("a key was taken in this transaction and its operation has not ended well, so nothing of it may be committed: roll back")

// wrote notes a record that was written.
func (s *state) wrote(r *semel.Record) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.State != semel.Pending {
		delete(s.open, r.Digest)
		return
	}
	if s.open == nil {
		s.open = make(map[semel.Digest]struct{})
	}
	s.open[r.Digest] = struct{}{}
}

func (s *state) poison() error {
	if s.failed == nil {
		return nil
	}
	return fmt.Errorf("%w: %w", errPoisoned, s.failed)
}

// fail notes a failure of our own statements.
func (s *state) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failed, s.fatal = err, true
}

// end tells the state that the scope ends the transaction now.
func (s *state) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ending = true
}

// ended is called when the *sql.Tx of a scope is ended, by the scope or by the
// operation, which must not.
func (s *state) ended(how string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ending {
		return nil
	}
	err := fmt.Errorf("the operation must not %s its transaction, which the scope does: return from it, with an error to undo what it did", how)
	if s.failed == nil {
		s.failed = err
	}
	s.fatal = true
	return err
}

// first gives the error that was noted first, or nil.
func (s *state) first() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.failed
}
