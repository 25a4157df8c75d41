package demo

import (
	"sync"
	"time"
)

// The refusals that the storm knows; others are kept as they come.
const (
	reasonInProgress = "in-progress"
	reasonMismatch   = "payload-mismatch"
	reasonUnknown    = "outcome-unknown"
	reasonNoStore    = "store-unavailable"
	reasonNoUpstream = "upstream-unreachable"
	reasonFull       = "too-many-requests-in-flight"
	// reasonNone: there was no answer, or a part of one.
	reasonNone = "no-answer"
)

// An Entry is one request of a client and what came back.
type Entry struct {
	Account string
	Key     string
	Amount  int           // asked for; another amount under the same key is another body
	Sent    time.Duration // since the storm began
	Ended   time.Duration
	Status  int // 0 without an answer
	// Reason is the refusal's problem kind, reasonNone without an answer, "" for a
	// 2xx, and "status NNN" for an answer that is neither.
	Reason   string
	Replayed bool
	Location string
	Body     string
}

// done tells whether the answer is the operation's result.
func (e *Entry) done() bool { return e.Status >= 200 && e.Status < 300 && e.Reason == "" }

// definitive tells whether the client need not ask again: it has the result, or
// was told that nobody knows it, or that the key is another payment's.
func (e *Entry) definitive() bool {
	switch e.Reason {
	case reasonNone, reasonInProgress, reasonNoStore, reasonNoUpstream, reasonFull:
		return false
	}
	return true
}

// journal is the clients' memory: every request, every answer.
type journal struct {
	mu      sync.Mutex
	entries []Entry
	counts  tally
}

// A tally is what the live view shows of a journal.
type tally struct {
	requests, lost, replayed, inProgress, mismatch, unknown, otherwise int
}

func (j *journal) add(e Entry) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.entries = append(j.entries, e)
	c := &j.counts
	c.requests++
	switch {
	case e.Replayed:
		c.replayed++
	case e.Reason == reasonNone:
		c.lost++
	case e.Reason == reasonInProgress:
		c.inProgress++
	case e.Reason == reasonMismatch:
		c.mismatch++
	case e.Reason == reasonUnknown:
		c.unknown++
	case e.Reason != "":
		c.otherwise++
	}
}

func (j *journal) tally() tally {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.counts
}

// all gives the entries once nobody adds any more.
func (j *journal) all() []Entry {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.entries
}
