package main

import (
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/adapter/sqlite"
	"github.com/semelhq/semel/cmd/internal/upkeep"
	"github.com/semelhq/semel/lifecycle"
)

// old makes a store in which of n keys each is over, each third only its result, and
// one that is pending; its journal is a hundred days old.
func old(t *testing.T, dir string, n int) {
	t.Helper()
	path := filepath.Join(dir, "semel.db")
	store, err := sqlite.Open(path, sqlite.Options{})
	if err != nil {
		t.Fatal(err)
	}
	var swaps []semel.Swap
	for i := range n + 1 {
		key := semel.Key{Scope: semel.JoinScope(fmt.Sprintf("client-%02d", i%15), "POST /orders", "key"), ID: fmt.Sprintf("k%d", i)}
		r := semel.Record{Digest: key.Digest(nil), State: semel.Done, Attempt: 1, TTL: time.Millisecond, Replay: time.Millisecond, Key: key, Code: 201, Result: make([]byte, 300)}
		switch {
		case i == n:
			r.State, r.TTL, r.Result, r.Replay, r.Code = semel.Pending, time.Millisecond, nil, 0, 0
		case i%3 == 0:
			r.TTL = 100 * 24 * time.Hour
		}
		swaps = append(swaps, semel.Swap{Next: r})
	}
	for _, s := range store.SwapMany(t.Context(), swaps) {
		if s.Err != nil {
			t.Fatal(s.Err)
		}
	}
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Exec("UPDATE journal_day SET day = day - 100"); err != nil {
		t.Fatal(err)
	}
}

func TestSweep(t *testing.T) {
	dir := t.TempDir()
	old(t, dir, 300)
	archive := filepath.Join(dir, "archive")
	if err := os.Mkdir(archive, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, refused := range []struct {
		args, want string
		code       int
	}{
		{"sweep --store sqlite:none.db", "there is no store at", 1},
		{"sweep --journal 90", `--journal: "90" has no unit`, 2},
		{"sweep --journal 1d", "the trail would end before the key", 2},
		{"sweep --journal 95d", "keys that are remembered for 100d", 2},
		{"sweep --archive archive", "the journal stays in the store for ever", 2},
		{"sweep --journal 110d --archive none", "create it", 2},
		{"sweep --share 0", "no part of the time", 2},
	} {
		code, out, errs := semelRun(t, dir, strings.Fields(refused.args)...)
		if code != refused.code || !strings.Contains(errs, refused.want) {
			t.Errorf("%s: %d, %s%s; want %d and %q", refused.args, code, out, errs, refused.code, refused.want)
		}
	}
	var due upkeep.Due
	code, out, errs := semelRun(t, dir, "sweep", "--dry-run", "--json")
	if err := json.Unmarshal([]byte(out), &due); err != nil || code != 0 || due.Forgotten < 200 || due.Forgotten > 205 || due.Emptied != 100 || due.Estimated || len(due.Days) != 0 {
		t.Errorf("--dry-run: %d %+v %v %s", code, due, err, errs)
	}
	code, out, errs = semelRun(t, dir, "sweep", "--dry-run", "--json", "--journal", "90d")
	if err := json.Unmarshal([]byte(out), &due); err != nil || code != 0 || len(due.Days) != 1 {
		t.Errorf("--dry-run --journal: %d %+v %v %s", code, due, err, errs)
	}
	// Nothing of this has changed anything.
	code, out, errs = semelRun(t, dir, "sweep")
	if code != 0 || !strings.HasPrefix(out, "30") || !strings.Contains(out, " records swept, in ") || errs != "" {
		t.Errorf("sweep: %d %s%s", code, out, errs)
	}
	if _, out, _ = semelRun(t, dir, "list", "--json", "--limit", "1000"); strings.Count(out, `"key":"k`) != 101 || !strings.Contains(out, `"key":"k300"`) {
		t.Errorf("left are %d keys, want a hundred and the one in doubt", strings.Count(out, `"key":"k`))
	}
	if code, out, _ = semelRun(t, dir, "sweep", "--json"); code != 0 || !strings.Contains(out, `"swept":1,`) || // its own trial of the store
		!strings.Contains(out, `"drained":true`) {
		t.Errorf("again: %d %s", code, out)
	}
}

// The journal goes into the archive by whole days, and can be read there.
func TestSweepArchives(t *testing.T) {
	dir := t.TempDir()
	old(t, dir, 30)
	db, err := sql.Open("sqlite", filepath.Join(dir, "semel.db"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.Exec("UPDATE journal_day SET day = day - 100"); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "semel.yaml")
	archive := t.TempDir()
	if err := os.WriteFile(file, []byte("lifecycle: {journal: 110d, archive: "+archive+"}\nremember: 110d\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	code, out, errs := semelRun(t, dir, "sweep", "--config", file)
	if code != 0 || !strings.Contains(out, "1 days of the journal archived, with 31 lines, 1 days of the journal dropped") {
		t.Fatalf("%d %s%s", code, out, errs)
	}
	files, err := os.ReadDir(archive)
	if err != nil || len(files) != 1 {
		t.Fatalf("the archive has %v, %v", files, err)
	}
	f, err := os.Open(filepath.Join(archive, files[0].Name()))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	lines := 0
	for e, err := range lifecycle.ReadArchive(f) {
		if err != nil || !strings.HasPrefix(e.Record.Key.ID, "k") {
			t.Fatal(e, err)
		}
		lines++
	}
	if lines != 31 {
		t.Errorf("%d lines, want 31", lines)
	}
}

// Another process is at work: nothing is done, and it is said.
func TestSweepWaitsForAnother(t *testing.T) {
	dir := t.TempDir()
	old(t, dir, 10)
	store, err := sqlite.Open(filepath.Join(dir, "semel.db"), sqlite.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	guard, err := semel.NewGuard(store, semel.Options{})
	if err != nil {
		t.Fatal(err)
	}
	key := semel.Key{Scope: semel.JoinScope("semel", "lifecycle"), ID: "sweeper"}
	policy, err := semel.Policy{Name: "test", Class: semel.AtLeastOnce}.Filled()
	if err != nil {
		t.Fatal(err)
	}
	claim, v, err := guard.Begin(t.Context(), semel.Ask{Key: key, Policy: &policy})
	if err != nil || claim == nil {
		t.Fatal(v, err)
	}
	code, out, errs := semelRun(t, dir, "sweep", "--wait", "300ms")
	if code != 1 || out != "" || !strings.Contains(errs, "waiting for up to 300ms") || !strings.Contains(errs, "nothing was done: another process") {
		t.Errorf("%d %s%s", code, out, errs)
	}
	if err := claim.Release(semel.Result{}); err != nil {
		t.Fatal(err)
	}
	if code, out, errs = semelRun(t, dir, "sweep"); code != 0 || !strings.Contains(out, " records swept") {
		t.Errorf("afterwards: %d %s%s", code, out, errs)
	}
}

func TestListGrowth(t *testing.T) {
	dir := t.TempDir()
	old(t, dir, 300)
	code, out, errs := semelRun(t, dir, "list", "--growth", "--json")
	var r upkeep.Report
	if err := json.Unmarshal([]byte(out), &r); err != nil || code != 0 {
		t.Fatal(code, err, out, errs)
	}
	if r.Records != 301 || !r.Complete || r.Bytes == nil || *r.BytesPerRecord < 300 || r.JournalBytes == nil || r.PendingSeconds <= 0 || r.LagSeconds <= 0 ||
		len(r.Scopes) != topScopes || r.Others == nil || r.NewPerDay <= 0 || len(r.Scopes[0].ID) != 12 || r.Others.ID != "" {
		t.Errorf("got %s", out)
	}
	code, out, errs = semelRun(t, dir, "list", "--growth", "--remember", "30d")
	for _, want := range []string{"  records                  301\n", " B each, with indexes", "B, in ", "if remembered for 30d", "client-00 POST /orders", "all others", "All 301 records were looked at."} {
		if code != 0 || !strings.Contains(out, want) {
			t.Errorf("got %d\n%s%swant %q", code, out, errs, want)
		}
	}
	for line := range strings.SplitSeq(out, "\n") {
		if len([]rune(line)) > columns {
			t.Errorf("%d columns: %s", len([]rune(line)), line)
		}
	}
	if code, _, errs = semelRun(t, dir, "list", "--growth", "--limit", "3"); code != 2 || !strings.Contains(errs, "--limit is for a list of keys") {
		t.Error(code, errs)
	}
	if code, _, errs = semelRun(t, dir, "list", "--remember", "3d"); code != 2 || !strings.Contains(errs, "belongs to --growth") {
		t.Error(code, errs)
	}
	if !errors.Is(lifecycleError(t), semel.ErrInProgress) {
		t.Error("the error that the verb looks for has changed")
	}
}

// lifecycleError is what a sweeper says that another one keeps from working.
func lifecycleError(t *testing.T) error {
	t.Helper()
	store, err := sqlite.Open(filepath.Join(t.TempDir(), "semel.db"), sqlite.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	guard, err := semel.NewGuard(store, semel.Options{})
	if err != nil {
		t.Fatal(err)
	}
	var inner error
	var second *lifecycle.Sweeper
	first, err := lifecycle.New(guard, lifecycle.Options{Observe: func(lifecycle.Event) {
		if inner == nil {
			_, inner = second.Once(t.Context())
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	if second, err = lifecycle.New(guard, lifecycle.Options{}); err != nil {
		t.Fatal(err)
	}
	if _, err := first.Once(t.Context()); err != nil {
		t.Fatal(err)
	}
	return inner
}
