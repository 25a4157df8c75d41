package pocketbase

import (
	"encoding/json"
	"net/http"
	"sync"
	"time"

	"github.com/semelhq/semel/semelhttp"
)

// meaning is what an answer tells a client.
type meaning int

const (
	nothing   meaning = iota // no answer came, or one that says to ask again
	done                     // the application's own answer
	unknown                  // it started, and nobody knows how it ended
	refused                  // the key was used with another payload
	elsewhere                // anything else, which no request here should get
)

// answer is one line of the clients' journal.
type answer struct {
	send
	meaning    meaning
	sent, came time.Time
	replayed   bool
	seen       string // status, headers that describe the content, and body: equal for equal answers
	object     record // of an answer that means done
}

// journal is what the clients saw. It is safe for concurrent use.
type journal struct {
	mu      sync.Mutex
	answers []answer
	settled map[int]bool // operations with a definitive answer
}

func newJournal() *journal { return &journal{settled: make(map[int]bool)} }

func (j *journal) add(a answer) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.answers = append(j.answers, a)
	if !a.forged && (a.meaning == done || a.meaning == unknown) {
		j.settled[a.op] = true
	}
}

// isSettled tells whether an operation has a definitive answer.
func (j *journal) isSettled(op int) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.settled[op]
}

// read says what a response means. Its body can be read again.
func read(resp *http.Response, body []byte) answer {
	a := answer{replayed: resp.Header.Get("Idempotent-Replayed") == "true"}
	a.seen = resp.Status
	for _, name := range [...]string{"Content-Type", "Content-Encoding", "Etag", "Location"} {
		a.seen += "\n" + name + ": " + resp.Header.Get(name)
	}
	a.seen += "\n\n" + string(body)
	var kind semelhttp.ProblemKind
	if p, ok := semelhttp.ReadProblem(resp); ok {
		kind = p.Kind()
	}
	switch kind {
	case semelhttp.OutcomeUnknownKind:
		a.meaning = unknown
	case semelhttp.PayloadMismatch:
		a.meaning = refused
	case semelhttp.InProgress, semelhttp.StoreUnavailable, semelhttp.UpstreamUnreachable, semelhttp.TooManyInFlight:
		a.meaning = nothing
	default:
		a.meaning = elsewhere
		if resp.StatusCode == http.StatusOK && json.Unmarshal(body, &a.object) == nil {
			a.meaning = done
		}
	}
	return a
}
