package mysql_test

import (
	"context"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/adapter/mysql"
	"github.com/semelhq/semel/internal/server"
)

// elsewhen is a server whose whole clock is another than this machine's.
type elsewhen struct {
	*server.MariaDB
	clock *server.Clock
}

// elsewhenServer starts one.
func elsewhenServer(t *testing.T, off time.Duration) *elsewhen {
	t.Helper()
	if runtime.GOOS != "linux" {
		t.Skip("left out: libfaketime is looked for on Linux only")
	}
	clock, err := server.NewClock()
	must(t, err)
	t.Cleanup(func() { _ = clock.Remove() })
	e := &elsewhen{clock: clock}
	e.off(t, off)
	e.MariaDB, err = server.StartMariaDB(filepath.Join(t.TempDir(), "elsewhen"), server.MariaDBOptions{Environment: clock.Environment()})
	must(t, err)
	t.Cleanup(func() { _ = e.Kill() })
	must(t, e.CreateDatabase("x5"))
	return e
}

// off sets how far the server's clock is ahead of this machine's.
func (e *elsewhen) off(t testing.TB, d time.Duration) {
	t.Helper()
	must(t, e.clock.Set(d))
}

// TestX5OnlyTheServersClockDecides: applications are an hour ahead of the server,
// or behind it, and nothing changes: a key is replayed, gone and forgotten when the
// server's clock says so, and a day of the journal is over when that does.
func TestX5OnlyTheServersClockDecides(t *testing.T) {
	for _, off := range []time.Duration{time.Hour, -time.Hour} {
		t.Run(off.String(), func(t *testing.T) { onlyTheServersClockDecides(t, off) })
	}
}

func onlyTheServersClockDecides(t *testing.T, off time.Duration) {
	m := elsewhenServer(t, off)
	s := connect(t, m.URL("x5"), mysql.Options{})
	defer s.Close()
	guard, err := semel.NewGuard(s, semel.Options{})
	must(t, err)
	defer func() { _ = guard.Close(context.Background()) }()
	policy, err := semel.Policy{Name: "x5", Lease: time.Minute, Replay: 24 * time.Hour, Remember: 72 * time.Hour}.Filled()
	must(t, err)
	runs := 0
	key := semel.Key{Scope: "tenant", ID: "order-1"}
	do := func() (semel.Answer, error) {
		return guard.Do(t.Context(), semel.Ask{Key: key, Fingerprint: semel.FingerprintOf([]byte("order")), Policy: &policy},
			func(context.Context) (semel.Result, error) {
				runs++
				return semel.Result{Code: 201, Data: []byte("receipt")}, nil
			})
	}
	first := time.Now().Add(off).UTC().Truncate(24 * time.Hour)
	for _, step := range []struct {
		passed           time.Duration
		held, kept, gone bool // when it is swept, and what the next is told
		runs             int
	}{
		{0, false, false, false, 1},
		{0, true, true, false, 1},
		{24*time.Hour - time.Minute, true, true, false, 1},
		{24*time.Hour + time.Minute, true, false, true, 1},
		{72*time.Hour - time.Minute, true, false, true, 1},
		{72*time.Hour + time.Minute, false, false, false, 2},
	} {
		m.off(t, off+step.passed)
		_, err := s.Sweep(t.Context(), 100)
		must(t, err)
		r, err := s.Get(t.Context(), key.Digest(nil))
		must(t, err)
		if away := time.Until(r.Now) - off - step.passed; away.Abs() > time.Minute {
			t.Fatalf("the server's clock is %v from where it was set", away)
		}
		answer, err := do()
		if r.Record.Held() != step.held || (r.Record.Result != nil) != step.kept || runs != step.runs || (err != nil) != step.gone {
			t.Fatalf("%v after the first: swept it is %+v, and the next is told %+v, %v after %d runs; want %+v", step.passed, r.Record, answer, err, runs, step)
		}
		over := r.Now.UTC().Truncate(24 * time.Hour).After(first)
		if err := s.DropDay(t.Context(), first); (err == nil) != over {
			t.Fatalf("%v after the first, dropping its day: %v", step.passed, err)
		}
	}
}
