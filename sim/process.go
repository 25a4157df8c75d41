package sim

import (
	"time"

	"github.com/semelhq/semel"
)

// process is one instance of the application: a clock of its own, a memory that
// a crash empties, and the flights in which its duplicates wait.
type process struct {
	w      *world
	number int
	life   int // grows with each crash
	up     bool
	paused bool
	late   []event // what came while it was paused
	cut    int64   // until when it cannot reach the store
	offset int64   // how far its clock is off at the start
	drift  int64   // how much faster it runs than the store's, in millionths
	ahead  time.Duration
	// flights is looked up and never walked through: its order is chance.
	flights map[flightKey]*attempt
	// previous and cached are what planted bugs mix answers up with.
	previous semel.Reading
	cached   map[int]semel.Reading
}

type flightKey struct {
	slot    int
	payload int
}

func (w *world) addProcess() *process {
	p := &process{w: w, number: len(w.procs), up: true, flights: map[flightKey]*attempt{}}
	if w.strikes(WrongClock) {
		p.offset = w.dice.between(-2*3600, 2*3600) * sec
	}
	if w.strikes(DriftingClock) {
		p.drift = w.dice.between(-50_000, 50_000)
	}
	p.learn()
	w.procs = append(w.procs, p)
	return p
}

// local is the process' own clock at a virtual time.
func (p *process) local(at int64) time.Time {
	return time.Unix(0, epoch+p.offset+at+at*p.drift/1_000_000)
}

func (p *process) clock() time.Time { return p.local(p.w.now) }

// learn is the guard's self-test at its start: a call of the store that tells,
// among other things, how far its clock is ahead of ours.
func (p *process) learn() {
	if p.w.planted.clockNotLearned {
		p.ahead = 0
		return
	}
	way := time.Duration(p.w.latency())
	p.ahead = p.w.store.clock().Add(-way).Sub(p.clock())
}

// in lets something happen in this life of the process after d of virtual time.
func (p *process) in(d int64, do func()) {
	p.w.queue.push(p.w.now+max(d, 0), event{home: p, life: p.life, do: do})
}

// when lets something happen once the process' own clock shows at.
func (p *process) when(at time.Time, do func()) {
	left := int64(at.Sub(p.clock()))
	if left > 0 {
		left = left*1_000_000/(1_000_000+p.drift) + 1
	}
	for left > 0 && p.local(p.w.now+left).Before(at) {
		left += 1_000_000
	}
	p.in(left, do)
}

// one gives a process for a client to talk to.
func (w *world) one() *process { return w.procs[w.dice.below(int64(len(w.procs)))] }

func (w *world) crashOne() {
	p := w.one()
	if !p.up {
		return
	}
	w.faults[Crash]++
	p.crash()
	w.after(w.dice.spread(10*ms, 3*sec), p.restart)
}

// crash ends the process as kill -9 does: what is on its way to the store may
// still get there.
func (p *process) crash() {
	p.w.note(noteCrash, p, nil, int64(p.life), int64(len(p.flights)))
	p.life++
	p.up, p.paused, p.late = false, false, nil
	clear(p.flights)
}

func (p *process) restart() {
	if p.up {
		return
	}
	p.up = true
	p.w.faults[Restart]++
	p.w.note(noteRestart, p, nil, int64(p.life), 0)
	p.learn()
}

func (w *world) pauseOne() { w.one().pause(Pause, w.dice.spread(sec, 8*sec)) }

func (w *world) hiccupOne() { w.one().pause(Hiccup, w.dice.spread(10*ms, 400*ms)) }

// pause stops the process as SIGSTOP does.
func (p *process) pause(f Fault, length int64) {
	if !p.up || p.paused {
		return
	}
	w, life := p.w, p.life
	p.paused = true
	w.faults[f]++
	w.note(notePause, p, nil, length, 0)
	w.after(length, func() {
		if p.life == life && p.paused {
			p.resume()
		}
	})
}

// resume delivers what came meanwhile: in order, or in any order, since timers
// and connections wake up as they like.
func (p *process) resume() {
	w := p.w
	p.paused = false
	late := p.late
	p.late = nil
	w.note(noteResume, p, nil, int64(len(late)), 0)
	if w.dice.oneIn(2) {
		for i := len(late) - 1; i > 0; i-- {
			j := w.dice.below(int64(i + 1))
			late[i], late[j] = late[j], late[i]
		}
	}
	for _, e := range late {
		if w.bad == nil && p.life == e.life {
			e.do()
		}
	}
}

func (w *world) partitionOne() {
	p := w.one()
	length := w.dice.spread(20*ms, 5*sec)
	p.cut = w.now + length
	w.faults[Partition]++
	w.note(noteFault, p, nil, int64(Partition), length)
}

// nonce gives a new one, from the world's dice.
func (w *world) nonce() semel.Nonce {
	var n semel.Nonce
	a, b := w.dice.pcg.Uint64(), w.dice.pcg.Uint64()
	for i := range 8 {
		n[i], n[8+i] = byte(a>>(8*i)), byte(b>>(8*i))
	}
	return n
}
