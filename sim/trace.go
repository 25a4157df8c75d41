package sim

import (
	"fmt"
	"time"

	"github.com/semelhq/semel"
)

// note is one line of a trace: what happened, to whom, with which key, and up
// to two numbers.
type note uint8

const (
	noteClient note = iota
	noteAsk
	noteSend
	noteRead
	noteApply
	noteConflict
	noteAnswer
	noteError
	noteSleep
	noteGrant
	noteStart
	noteEffect
	noteRefusedEffect
	noteReturn
	noteRenewed
	noteLost
	noteCancel
	noteSettled
	noteLinger
	noteDisown
	noteTell
	noteGone
	noteCrash
	noteRestart
	notePause
	noteResume
	noteStore
	noteFailover
	noteSweep
	noteSettle
	noteHeal
	noteFault
	noteCount
)

// text gives the words of a note, a format for both numbers as words gives them.
func (n note) text() string {
	texts := [...]string{
		noteClient: "client %d sends try %d", noteAsk: "request of client %d arrives, payload %d",
		noteSend: "attempt %d sends a swap over version %d", noteRead: "attempt %[1]d sends a read",
		noteApply: "store: version %d written, %v", noteConflict: "store: conflict, version %d is held, %v",
		noteAnswer: "attempt %d hears of version %d", noteError: "attempt %[1]d hears an error",
		noteSleep: "attempt %d sleeps %v", noteGrant: "attempt %d is granted version %d",
		noteStart: "attempt %d starts its handler, which %v", noteEffect: "attempt %d has its effect, token %d",
		noteRefusedEffect: "attempt %d: the target refuses token %d", noteReturn: "attempt %d: handler returns, to be %v",
		noteRenewed: "attempt %d renewed to version %d", noteLost: "attempt %d lost its claim at version %d",
		noteCancel: "attempt %[1]d: context cancelled", noteSettled: "attempt %d ends, %v",
		noteLinger: "attempt %[1]d goes on storing behind its caller", noteDisown: "attempt %[1]d takes its claim back",
		noteTell: "client %d is told: %v", noteGone: "client %[1]d leaves", noteCrash: "crashes, life %d, %d flights",
		noteRestart: "restarts, life %[1]d", notePause: "pauses for %[1]v", noteResume: "resumes, %[1]d late events",
		noteStore: "store: down for %[2]v", noteFailover: "store: fails over to epoch %d, clock off by %v",
		noteSweep: "store: version %d is swept, %v", noteSettle: "operator settles as %v over version %d",
		noteHeal: "all faults end, %[1]d attempts alive", noteFault: "%v for %v",
	}
	return texts[n]
}

// words gives the numbers of a note as people read them.
func (n note) words(x, y int64) (any, any) {
	switch n {
	case noteApply, noteConflict, noteSweep, noteReturn:
		return x, semel.State(y)
	case noteSettle:
		return semel.State(x), y
	case noteSettled:
		if y == 0 {
			return x, "the store was of no help"
		}
		return x, semel.Reason(y)
	case noteStart:
		return x, plan(y)
	case noteTell:
		return x, kind(y)
	case noteSleep, noteStore, noteFailover:
		return x, time.Duration(y)
	case notePause:
		return time.Duration(x), y
	case noteFault:
		return Fault(x), time.Duration(y)
	}
	return x, y
}

// line is the note as it is read.
func (n note) line(x, y int64) string {
	first, second := n.words(x, y)
	return fmt.Sprintf(n.text(), first, second)
}

// note adds a step to the trace's hash, and to the trace if there is one.
func (w *world) note(n note, p *process, k *key, x, y int64) {
	who, which := int64(-1), int64(-1)
	if p != nil {
		who = int64(p.number)
	}
	if k != nil {
		which = int64(k.number)
	}
	h := w.hash
	for _, v := range [...]int64{w.now, int64(n)<<32 ^ who<<16 ^ which, x, y} {
		h = mix(h ^ uint64(v))
	}
	w.hash = h
	if w.trace == nil {
		return
	}
	place, name := "  -", " -"
	if p != nil {
		place = fmt.Sprintf("p%d", p.number)
	}
	if k != nil {
		name = fmt.Sprintf("k%d", k.number)
	}
	// A trace that cannot be written is the reader's loss only.
	_, _ = fmt.Fprintf(w.trace, "%14s %3s %4s  %s\n", time.Duration(w.now), place, name, n.line(x, y))
}

// mix is the finalizer of SplitMix64.
func mix(h uint64) uint64 {
	h += 0x9e3779b97f4a7c15
	h = (h ^ h>>30) * 0xbf58476d1ce4e5b9
	h = (h ^ h>>27) * 0x94d049bb133111eb
	return h ^ h>>31
}
