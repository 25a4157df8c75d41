package storetest

import (
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
)

// TestPlain runs every case, none left out, against the plain store without a flaw.
func TestPlain(t *testing.T) { Run(t, plainMaker("")) }

// TestFlaws puts one flaw after the other into the plain store. The case named
// beside it must fail.
func TestFlaws(t *testing.T) {
	flaws := [...]struct{ flaw, caught string }{
		{"versions restart when a record is forgotten", "version/a dead owner cannot complete its heir's claim"},
		{"versions restart when a record is forgotten", "version/grows after a done record was forgotten"},
		{"versions restart when a record is forgotten", "batch/a forgotten key comes again with a greater version"},
		{"keeps no result while pending", "fields/result of a pending record, over its renewals"},
		{"keeps no result while pending", "list/in doubt, with what tells how to resolve it"},
		{"the same version twice", "version/grows over 100 writes"},
		{"the caller's version", "swap/ignores the version that the caller fills in"},
		{"the caller's version", "insert/ignores the version that the caller fills in"},
		{"ignores the old version", "swap/over the version before conflicts"},
		{"ignores the old version", "version/only the current token completes"},
		{"compares counters only", "swap/over the next epoch conflicts"},
		{"compares 32 bits", "swap/over a counter 32 bits higher conflicts"},
		{"accepts newer versions", "swap/over the greatest version conflicts"},
		{"writes over nothing whatever the version", "swap/over nothing held conflicts"},
		{"writes over nothing whatever the version", "version/a dead owner cannot complete before its heir comes"},
		{"inserts over a released record", "insert/over a released record conflicts"},
		{"inserts over a lease that ended", "insert/over a claim past its lease conflicts"},
		{"a repeated write succeeds", "lost/an insert's answer"},
		{"checks, then writes", "race/16 inserts of one key: one wins"},
		{"checks, then writes", "race/8 by 20 increments of one key: none is lost"},
		{"a conflict brings nothing", "insert/over a claim conflicts"},
		{"a conflict brings no result", "swap/a conflict brings a large result whole"},
		{"a conflict brings the rival", "lost/two answers of two owners"},
		{"a conflict has no clock", "insert/over a claim conflicts"},
		{"writes in spite of a conflict", "insert/over a done record conflicts"},
		{"a conflict touches WrittenAt", "clock/a conflict does not touch WrittenAt"},
		{"a conflict is no error", "insert/of the very same record conflicts"},
		{"conflicts when cancelled", "cancel/before an insert"},
		{"reads nothing when cancelled", "cancel/before Get"},
		{"hides a pending record past its lease", "get/gives a pending record whose lease has ended"},
		{"the caller's WrittenAt", "clock/a caller an hour ahead changes nothing"},
		{"WrittenAt is kept from the insert", "clock/a renewal is written now"},
		{"a clock of whole seconds", "clock/an insert is written now"},
		{"folds case", "digest/upper and lower case letters"},
		{"cuts digests at 31 bytes", "digest/the last bit differs"},
		{"cuts digests at a zero byte", "digest/a zero in the middle, then different"},
		{"drops the owner", "fields/a bare record"},
		{"drops the nonce", "lost/an insert's answer"},
		{"TTL in milliseconds", "fields/TTL: 999ns"},
		{"replay in seconds of 32 bits", "fields/replay: 292 years"},
		{"keeps valid UTF-8 only", "fields/text: invalid UTF-8"},
		{"trims spaces", "fields/text: spaces around"},
		{"cuts a result at 64 KiB", "fields/result: 1 MiB"},
		{"cuts a result at a zero byte", "fields/result: ends in zeros"},
		{"keeps the old result where there is none", "swap/drops the fields that are empty now"},
		{"attempts in 16 bits", "fields/attempt: 2147483647"},
		{"a batch sees what was before it", "batch/two inserts of one key: the first wins"},
		{"a conflict undoes its batch", "batch/a conflict last does not undo what went before"},
		{"a batch answers in reverse", "batch/answers in the order of the swaps"},
		{"a batch changes the caller's slice", "batch/leaves the caller's slice alone, and does not keep it"},
		{"sweeps pending records", "sweep/never takes a pending record: at-most-once"},
		{"sweeps pending records of a class", "sweep/never takes a pending record: at-least-once"},
		{"sweeps before the TTL ends", "sweep/hits the instant"},
		{"sweeps nothing that was released", "sweep/takes a released record past its TTL"},
		{"sweeps without limit", "sweep/takes at most the limit"},
		{"TTL 0 is for ever", "sweep/takes a done record past its TTL"},
		{"expiry in 64 bits of nanoseconds", "sweep/leaves a record of 292 years"},
		{"keeps spent results", "tombstone/of a done record past its replay"},
		{"keeps spent results", "tombstone/of an empty result"},
		{"drops results too soon", "tombstone/at the instant"},
		{"drops memos", "tombstone/not of what is pending or released"},
		{"a tombstone is a write", "tombstone/can be written over"},
		{"a tombstone lives anew", "tombstone/of a done record past its replay"},
		{"a tombstone has no code", "tombstone/of a done record past its replay"},
		{"a tombstone could be replayed", "tombstone/of a done record past its replay"},
		{"drops a day and its records", "days/dropped, the records stay"},
		{"drops today", "days/today is not dropped"},
		{"lines of all days in each", "days/each has its own lines"},
		{"measures nothing", "measure/counts records"},
		{"what is spent is not due", "measure/tells of a result that waits for the sweeper"},
		{"the newest pending record", "measure/tells the oldest pending record"},
		{"the limit counts what is looked at", "list/page by page, filtered"},
		{"a list has no order", "list/gives every record whole, in order"},
		{"After is included", "list/page by page"},
		{"every pending record is in doubt", "list/in doubt by the store's clock"},
		{"the ID is a pattern", "list/by a pattern finds the pattern only"},
		{"the ID is compared without case", "list/by an ID that nobody has"},
		{"a conflict is journalled", "journal/a conflict leaves none"},
		{"journals no renewals", "journal/every transition leaves one entry, oldest first"},
		{"journals twice", "journal/an insert leaves one entry"},
		{"journals no sums", "journal/keeps the sum of a result, not the result"},
		{"journals results", "journal/keeps the sum of a result, not the result"},
		{"a sweep takes the journal along", "journal/outlives a sweep"},
		{"newest entry first", "journal/every transition leaves one entry, oldest first"},
		{"forgets on restart", "reopen/a claim survives"},
		{"counter found again by the greatest version held", "reopen/a forgotten newest key does not give its version away"},
	}
	checks := byName(t)
	for _, f := range flaws {
		t.Run(f.flaw+" -> "+f.caught, func(t *testing.T) {
			c, ok := checks[f.caught]
			if !ok {
				t.Fatalf("there is no case %q", f.caught)
			}
			m := plainMaker(f.flaw)
			if failed, said := outcome(t, &m, c); !failed {
				t.Errorf("the case passed; it said:\n%s", said)
			}
		})
	}
}

// TestRandomFindsFlaws: the random walk finds a flaw without knowing it.
func TestRandomFindsFlaws(t *testing.T) {
	for _, flaw := range [...]string{
		"versions restart when a record is forgotten", "ignores the old version", "writes in spite of a conflict",
		"inserts over a released record", "sweeps pending records", "a batch sees what was before it", "journals twice",
		"keeps spent results", "drops memos", "a tombstone is a write", "a tombstone has no code",
	} {
		m := plainMaker(flaw)
		m.Seed = 7
		failed, said := outcome(t, &m, byName(t)["random/300 operations on 3 keys"])
		if !failed || !strings.Contains(said, "Maker.Seed = 7") {
			t.Errorf("%s: failed %t, and must name its seed; it said:\n%s", flaw, failed, said)
		}
	}
}

// TestAbilities: a declaration that the store does not bear out fails, and what
// is not declared is skipped.
func TestAbilities(t *testing.T) {
	m := plainMaker("")
	m.Has &^= Lists
	if failed, said := outcome(t, &m, check{run: abilities}); !failed || !strings.Contains(said, "Lists: false") {
		t.Errorf("an undeclared Lister: failed %t, said:\n%s", failed, said)
	}
	if failed, said := outcome(t, &m, byName(t)["list/of nothing"]); failed || !strings.Contains(said, "does not declare Lists") {
		t.Errorf("a case that needs a Lister: failed %t, said:\n%s", failed, said)
	}
}

// TestSize: the suite is as large as it says, and no two cases have one name.
func TestSize(t *testing.T) {
	checks := byName(t)
	if len(checks) < 120 {
		t.Errorf("%d cases, want at least 120", len(checks))
	}
	t.Logf("%d cases", len(checks))
}

// byName gives every case by its name.
func byName(t *testing.T) map[string]check {
	t.Helper()
	all := map[string]check{}
	for _, g := range groups() {
		for _, c := range g.checks {
			name := g.name + "/" + c.name
			if _, twice := all[name]; twice {
				t.Errorf("two cases are named %q", name)
			}
			all[name] = c
		}
	}
	return all
}

// recorder takes down what a case says and how it ends.
type recorder struct {
	testing.TB
	mu     sync.Mutex
	failed bool
	said   strings.Builder
}

// outcome runs one case as Run does, and tells whether it failed.
func outcome(t *testing.T, m *Maker, c check) (failed bool, said string) {
	t.Helper()
	r := &recorder{TB: t}
	done := make(chan struct{})
	go func() {
		defer close(done)
		runCheck(r, m, c)
	}()
	<-done
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.failed, r.said.String()
}

func (r *recorder) say(fail bool, text string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failed = r.failed || fail
	fmt.Fprintln(&r.said, text)
}

func (r *recorder) Failed() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.failed
}

func (r *recorder) Log(args ...any)                 { r.say(false, fmt.Sprint(args...)) }
func (r *recorder) Logf(format string, args ...any) { r.say(false, fmt.Sprintf(format, args...)) }
func (r *recorder) Error(args ...any)               { r.say(true, fmt.Sprint(args...)) }
func (r *recorder) Errorf(format string, args ...any) {
	r.say(true, fmt.Sprintf(format, args...))
}

func (r *recorder) Fatal(args ...any) {
	r.say(true, fmt.Sprint(args...))
	runtime.Goexit()
}

func (r *recorder) Fatalf(format string, args ...any) {
	r.say(true, fmt.Sprintf(format, args...))
	runtime.Goexit()
}

func (r *recorder) Skip(args ...any) {
	r.say(false, fmt.Sprint(args...))
	runtime.Goexit()
}

func (r *recorder) Skipf(format string, args ...any) {
	r.say(false, fmt.Sprintf(format, args...))
	runtime.Goexit()
}
