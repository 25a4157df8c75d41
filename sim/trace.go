package sim

import (
	"fmt"
	"time"
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
	noteProbe
	noteFault
	noteCount
)

// text gives the words of a note. A format gets both numbers.
func (n note) text() string {
	texts := [...]string{
		noteClient: "client %d sends try %d", noteAsk: "request of client %d arrives, payload %d",
		noteSend: "attempt %d sends a swap over version %d", noteRead: "attempt %d sends a read, call %d",
		noteApply: "store: version %d written, state %d", noteConflict: "store: conflict, version %d is held, state %d",
		noteAnswer: "attempt %d hears of version %d", noteError: "attempt %d hears an error, kind %d",
		noteSleep: "attempt %d sleeps %d ns", noteGrant: "attempt %d is granted version %d",
		noteStart: "attempt %d starts its handler, plan %d", noteEffect: "attempt %d has its effect, token %d",
		noteRefusedEffect: "attempt %d: the target refuses token %d", noteReturn: "attempt %d: handler returns, state %d",
		noteRenewed: "attempt %d renewed to version %d", noteLost: "attempt %d lost its claim at version %d",
		noteCancel: "attempt %d: context cancelled, deaf %d", noteSettled: "attempt %d ends, reason %d",
		noteLinger: "attempt %d goes on storing behind its caller, to %d", noteDisown: "attempt %d takes its claim back, %d",
		noteTell: "client %d is told, kind %d", noteGone: "client %d leaves, %d", noteCrash: "crashes, life %d, %d attempts",
		noteRestart: "restarts, life %d, %d", notePause: "pauses for %d ns, %d", noteResume: "resumes, %d late events, %d",
		noteStore: "store: mode %d for %d ns", noteFailover: "store: fails over to epoch %d, clock %d ns",
		noteSweep: "store: version %d is swept, state %d", noteSettle: "operator settles as state %d over version %d",
		noteHeal: "all faults end, %d attempts alive, %d", noteProbe: "probe %d of phase %d", noteFault: "fault %d, detail %d",
	}
	return texts[n]
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
	_, _ = fmt.Fprintf(w.trace, "%14s %3s %4s  "+n.text()+"\n", time.Duration(w.now), place, name, x, y)
}

// mix is the finalizer of SplitMix64.
func mix(h uint64) uint64 {
	h += 0x9e3779b97f4a7c15
	h = (h ^ h>>30) * 0xbf58476d1ce4e5b9
	h = (h ^ h>>27) * 0x94d049bb133111eb
	return h ^ h>>31
}
