package storm

import (
	"sync"
	"time"
)

// The refusals that a storm knows; others are kept as they come.
const (
	ReasonInProgress = "in-progress"
	ReasonMismatch   = "payload-mismatch"
	ReasonUnknown    = "outcome-unknown"
	ReasonNoStore    = "store-unavailable"
	ReasonNoUpstream = "upstream-unreachable"
	ReasonFull       = "too-many-requests-in-flight"
	// ReasonNone: there was no answer, or a part of one.
	ReasonNone = "no-answer"
)

// An Entry is one request of a client and what came back.
type Entry struct {
	Account string
	Key     string
	Amount  int           // asked for; another amount under the same key is another body
	Sent    time.Duration // since the storm began
	Ended   time.Duration
	Status  int // 0 without an answer
	// Reason is the refusal's problem kind, ReasonNone without an answer, "" for a
	// 2xx, and "status NNN" for an answer that is neither.
	Reason   string
	Replayed bool
	// Unconfirmed: the answer says that the authoritative store was not asked.
	Unconfirmed bool
	Location    string
	Body        string
}

// done tells whether the answer is the operation's result.
func (e *Entry) done() bool { return e.Status >= 200 && e.Status < 300 && e.Reason == "" }

// Definitive tells whether the client need not ask again: it has the result, or
// was told that nobody knows it, or that the key is another payment's.
func (e *Entry) Definitive() bool {
	switch e.Reason {
	case ReasonNone, ReasonInProgress, ReasonNoStore, ReasonNoUpstream, ReasonFull:
		return false
	}
	return true
}

// Journal is the clients' memory: every request, every answer. Its zero value is
// empty. It is safe for concurrent use.
type Journal struct {
	mu      sync.Mutex
	entries []Entry
	counts  Tally
}

// A Tally is what a live view shows of a journal.
type Tally struct {
	Requests, Lost, Replayed, InProgress, Mismatch, Unknown, Otherwise int
}

func (j *Journal) add(e Entry) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.entries = append(j.entries, e)
	c := &j.counts
	c.Requests++
	switch {
	case e.Replayed:
		c.Replayed++
	case e.Reason == ReasonNone:
		c.Lost++
	case e.Reason == ReasonInProgress:
		c.InProgress++
	case e.Reason == ReasonMismatch:
		c.Mismatch++
	case e.Reason == ReasonUnknown:
		c.Unknown++
	case e.Reason != "":
		c.Otherwise++
	}
}

// Tally tells how many entries there are by now, by what came back.
func (j *Journal) Tally() Tally {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.counts
}

// All gives the entries, once nobody adds any more.
func (j *Journal) All() []Entry {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.entries
}
