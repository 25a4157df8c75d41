package sim

import (
	"encoding/binary"
	"fmt"
	"io"
	"time"

	"github.com/semelhq/semel"
)

const (
	ms  = int64(time.Millisecond)
	sec = int64(time.Second)
)

// world is one simulated deployment: processes, a store, clients, and the
// ledger that knows the truth. Everything in it happens in one goroutine and
// follows from the seed.
type world struct {
	seed    uint64
	dice    dice
	queue   *queue
	now     int64 // virtual nanoseconds since the start
	healed  bool
	weather weather
	faults  [faultCount]int64
	paths   [pathCount]int64
	planted *planted
	hash    uint64
	trace   io.Writer

	store    store
	procs    []*process
	keys     []*key
	clients  []*client
	attempts []*attempt
	requests []*request

	room       *room
	operations int64
	sent       int64 // numbers the calls
	extra      int64 // extra starts of AtLeastOnce
	bad        *Violation
}

// key is one operation that clients ask for, and what is true of it.
type key struct {
	number int
	slot   int // its place in the store
	name   semel.Key
	digest semel.Digest
	policy *semel.Policy
	timed  bool
	born   time.Time // what a timed key says
	wide   bool      // clients use it with more than one payload
	truth  truth
}

// label begins every result of the key, so that a result tells whose it is.
func (k *key) label() string { return k.name.Scope + "/" + k.name.ID }

// epoch is the store's clock at virtual time 0: a Unix time, since keys carry
// such times.
const epoch = int64(1_800_000_000) * sec

// outcome is what one seed came to.
type outcome struct {
	seed       uint64
	hash       uint64
	operations int64
	extra      int64
	faults     [faultCount]int64
	paths      [pathCount]int64
	bad        *Violation
}

// simulate runs one seed to its end or to its first violation.
func simulate(seed uint64, p *planted, trace io.Writer, r *room) outcome {
	w := &world{seed: seed, dice: newDice(seed), planted: p, trace: trace, hash: seed, room: r}
	r.attempts.used, r.calls.used = 0, 0
	w.queue = &r.queue
	w.queue.reset()
	w.build()
	w.storm()
	w.calm()
	return outcome{seed, w.hash, w.operations, w.extra, w.faults, w.paths, w.bad}
}

// after lets something happen outside of all processes.
func (w *world) after(d int64, do func()) {
	w.queue.push(w.now+max(d, 0), event{do: do})
}

// run lets events happen until a virtual time, or until a violation.
func (w *world) run(until int64) {
	for w.bad == nil {
		at, ok := w.queue.next()
		if !ok || at > until {
			break
		}
		w.now = max(w.now, at)
		e := w.queue.pop()
		switch p := e.home; {
		case p == nil:
			e.do()
		case p.life != e.life:
		case p.paused:
			p.late = append(p.late, e)
		default:
			e.do()
		}
	}
	if w.bad == nil {
		w.now = max(w.now, until)
	}
}

func (w *world) fail(invariant, format string, args ...any) {
	if w.bad == nil {
		w.bad = &Violation{Seed: w.seed, Invariant: invariant, At: time.Duration(w.now), Text: fmt.Sprintf(format, args...)}
	}
}

func (w *world) build() {
	d := w.dice
	w.weather = newWeather(d)
	var routes [3]*semel.Policy
	for i, class := range [...]semel.Class{semel.AtMostOnce, semel.AtLeastOnce, semel.Fenced} {
		routes[i] = newPolicy(d, class)
	}
	w.store = store{w: w, epoch: 1}
	operations := int(d.between(4, 10))
	for i := range operations {
		id, timed, born := fmt.Sprintf("op-%d", i), false, time.Time{}
		if w.strikes(TimedKey) {
			// Clients' clocks are up to 4 minutes off, either way.
			timed, born = true, time.Unix(0, epoch+d.between(-4, 4)*60*sec+d.between(0, 4*sec)).Truncate(time.Millisecond)
			id = timedID(born, d.pcg.Uint64())
		}
		tenants := 1
		if w.strikes(ForeignKey) {
			tenants = 2
		}
		for tenant := range tenants {
			w.addKey(semel.Key{Scope: semel.JoinScope(fmt.Sprintf("tenant-%d", tenant), "pay"), ID: id}, routes[i%len(routes)], timed, born)
		}
	}
	w.store.held = make([]semel.Record, len(w.keys))
	w.store.damaged = make([]int64, len(w.keys))
	for range d.between(2, 5) {
		w.addProcess()
	}
	for _, k := range w.keys {
		w.addClients(k)
	}
}

func (w *world) addKey(name semel.Key, policy *semel.Policy, timed bool, born time.Time) {
	k := &key{number: len(w.keys), slot: len(w.keys), name: name, policy: policy, timed: timed, born: born}
	k.digest = name.Digest(nil)
	if w.planted.digest != nil {
		k.digest = w.planted.digest(name)
	}
	for _, other := range w.keys {
		if other.digest == k.digest {
			k.slot = other.slot
		}
	}
	w.keys = append(w.keys, k)
}

func newPolicy(d dice, class semel.Class) *semel.Policy {
	lease := d.spread(200*ms, 3*sec)
	p := semel.Policy{
		Class:        class,
		Lease:        time.Duration(lease),
		Wait:         time.Duration(d.spread(20*ms, 3*sec)),
		Replay:       time.Duration(d.spread(lease, 20*sec)),
		ClaimWithin:  time.Duration(d.spread(100*ms, 5*sec)),
		FinishWithin: time.Duration(d.spread(50*ms, 5*sec)),
		MaxResult:    200,
	}
	if d.oneIn(4) {
		p.Wait = -1
	}
	p.Remember = p.Replay + time.Duration(d.spread(100*ms, 10*sec))
	filled, err := p.Filled()
	if err != nil {
		panic("sim: a policy of the scenario is refused: " + err.Error())
	}
	return &filled
}

// timedID writes a UUID of version 7.
func timedID(at time.Time, tail uint64) string {
	var b [16]byte
	binary.BigEndian.PutUint64(b[:8], uint64(at.UnixMilli())<<16|0x7000|tail&0xfff)
	binary.BigEndian.PutUint64(b[8:], tail>>2|1<<63)
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// storm is the first phase: everything goes wrong that can.
func (w *world) storm() {
	length := w.dice.between(5*sec, 20*sec)
	for _, c := range w.clients {
		c := c
		w.after(c.first, c.send)
	}
	for _, t := range [...]struct {
		fault Fault
		mean  int64
		do    func()
	}{
		{Crash, 4 * sec, w.crashOne},
		{Pause, 4 * sec, w.pauseOne},
		{Hiccup, 2 * sec, w.hiccupOne},
		{Partition, 4 * sec, w.partitionOne},
		{Outage, 5 * sec, w.store.outage},
		{Failover, 5 * sec, w.store.failover},
		{Sweep, sec, w.store.sweep},
		{DamagedRecord, 6 * sec, w.store.damage},
		{SettledDone, sec, w.operate},
	} {
		if rate := w.weather[t.fault]; rate > 0 {
			w.repeat(t.mean/rate, t.do)
		}
	}
	w.run(length)
}

// repeat does something again and again, until the world is healed.
func (w *world) repeat(mean int64, do func()) {
	w.after(w.dice.between(mean/4, 2*mean), func() {
		if !w.healed {
			do()
			w.repeat(mean, do)
		}
	})
}
