package lifecycle

import (
	"database/sql"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/semelhq/semel/adapter/sqlite"
	"github.com/semelhq/semel/cmd/e2e/internal/program"
	"github.com/semelhq/semel/lifecycle"
)

// TestLifeOfAKey: the answer can be had for as long as it was said; then 410 tells
// the status that it had; then the key is forgotten; and its lines of the journal go
// into the archive.
func TestLifeOfAKey(t *testing.T) {
	const replay, remember = 2 * time.Second, 4 * time.Second
	archive := t.TempDir()
	s := open(t, 1, fmt.Sprintf("replay: %v\nremember: %v\nlifecycle: {every: 100ms, journal: 48h, archive: %s}\n", replay, remember, archive))
	first := s.send(0, "k")
	if first.status != 202 || first.body != "run 1" {
		t.Fatalf("the first: %+v", first)
	}
	var last answer
	s.wait("the answer is gone", func() bool {
		last = s.send(0, "k")
		return last != first
	})
	if began := s.ran("k")[0]; last.status != 410 || last.kind != "result-gone" || last.original != 202 || time.Since(began) < replay {
		t.Fatalf("%v after it began: %+v; want 410 with the status 202, after %v", time.Since(began), last, replay)
	}
	s.wait("the sweeper has made a tombstone", func() bool { r, ok := s.list("")["k"]; return !ok || r.Bytes == 0 })
	s.wait("the key is forgotten", func() bool { return len(s.list("")) == 0 })
	runs := s.ran("k")
	if len(runs) != 1 || time.Since(runs[0]) < remember {
		t.Fatalf("it ran at %v, and was forgotten %v after that, want %v", runs, time.Since(runs[0]), remember)
	}
	if again := s.send(0, "k"); again.body != "run 2" {
		t.Errorf("a key that is forgotten is a new one, and here it is %+v", again)
	}
	s.age(t)
	var file string
	s.wait("a day is in the archive", func() bool {
		files, err := os.ReadDir(archive)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			if strings.HasSuffix(f.Name(), ".ndjson.gz") {
				file = f.Name()
			}
		}
		return file != ""
	})
	states := archived(t, filepath.Join(archive, file), "k")
	if !slices.Equal(states, []string{"pending", "done", "pending", "done"}) {
		t.Errorf("the archive has of the key %v, want both runs", states)
	}
	s.wait("the day is gone from the store", func() bool { return len(s.days(t)) == 1 })
}

// age makes the journal 100 days older, while no gateway runs.
func (s *scene) age(t *testing.T) {
	t.Helper()
	if code, err := s.gateways[0].Process.Terminate(20 * time.Second); err != nil || code != 0 {
		t.Fatal(code, err)
	}
	db, err := sql.Open("sqlite", strings.TrimPrefix(s.store, "sqlite:"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.Exec("UPDATE journal_day SET day = day - 100"); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.gateways[0].Start(20 * time.Second); err != nil {
		t.Fatal(err)
	}
}

// days gives the days of the journal.
func (s *scene) days(t *testing.T) []time.Time {
	t.Helper()
	store, err := sqlite.Open(strings.TrimPrefix(s.store, "sqlite:"), sqlite.Options{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	days, err := store.Days(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return days
}

// archived gives the states that a key went through.
func archived(t *testing.T, path, key string) (states []string) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for e, err := range lifecycle.ReadArchive(f) {
		if err != nil {
			t.Fatal(err)
		}
		if e.Record.Key.ID == key {
			states = append(states, e.Record.State.String())
		}
	}
	return states
}

// TestSweeperIsTakenOver: the gateway that sweeps is killed in the middle of it, and
// the other one goes on; five times.
func TestSweeperIsTakenOver(t *testing.T) {
	// A share this small makes a pass long, so that somebody is always at it.
	s := open(t, 2, "replay: 1s\nremember: 1s\nlifecycle: {every: 50ms, share: 0.1%, lease: 500ms, growth: none}\n")
	leads := func() (gateway int, ok bool) {
		lead := s.list("semel|lifecycle")["sweeper"]
		_, pid, _ := strings.Cut(lead.Owner, ":")
		gateway = slices.IndexFunc(s.gateways, func(g *program.Gateway) bool { return fmt.Sprint(g.Process.PID()) == pid })
		return gateway, lead.State == "pending" && gateway >= 0
	}
	for i := range 5 {
		key := fmt.Sprintf("k%d", i)
		var leader int
		s.wait("one of them sweeps", func() (ok bool) { leader, ok = leads(); return ok })
		if a := s.send(leader, key); a.body != "run 1" {
			t.Fatalf("%+v", a)
		}
		s.gateways[leader].Kill()
		s.wait("the other one sweeps", func() bool { other, ok := leads(); return ok && other == 1-leader })
		s.wait("the key is forgotten", func() bool { _, held := s.list("")[key]; return !held })
		if err := s.gateways[leader].Start(20 * time.Second); err != nil {
			t.Fatal(err)
		}
		if runs := s.ran(key); len(runs) != 1 {
			t.Errorf("%s ran at %v", key, runs)
		}
	}
}
