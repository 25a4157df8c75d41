package sqlite

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/semelhq/semel"
)

func TestOpenRefusesWithACause(t *testing.T) {
	dir := t.TempDir()
	write := func(name, data string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	other := filepath.Join(dir, "other.db")
	execSQL(t, openSQL(t, touch(t, other)), "CREATE TABLE customers (id)")
	newer := filepath.Join(dir, "newer.db")
	openTest(t, newer, Options{})
	execSQL(t, openSQL(t, newer), "PRAGMA user_version = 7")
	cut := write("cut.db", "")
	write("cut.db-wal", "what was committed")
	for _, c := range []struct {
		name, path string
		readOnly   bool
		says       []string
		is         error
	}{
		{"nothing", "", false, []string{"a path to a file is wanted"}, nil},
		{"memory", ":memory:", false, []string{"memory store"}, nil},
		{"a NUL", "a\x00b", false, []string{"NUL"}, nil},
		{"a directory", dir, false, []string{"is a directory", "semel.db"}, nil},
		{"no directory", filepath.Join(dir, "no", "semel.db"), false, []string{"directory must exist"}, fs.ErrNotExist},
		{"a file for a directory", filepath.Join(other, "semel.db"), false, []string{other}, nil},
		{"nothing to read", filepath.Join(dir, "none.db"), true, []string{"there must be a file"}, fs.ErrNotExist},
		{"an empty file to read", write("empty.db", ""), true, []string{"empty database"}, nil},
		{"one byte", write("one.db", "x"), false, []string{"no SQLite database", "one.db"}, nil},
		{"text", write("text.db", strings.Repeat("Dear diary, today ", 500)), false, []string{"no SQLite database", "text.db"}, semel.ErrDamaged},
		{"text to read", filepath.Join(dir, "text.db"), true, []string{"no SQLite database"}, semel.ErrDamaged},
		{"another application's", other, false, []string{"another application", "customers", "not changed"}, nil},
		{"a newer schema", newer, false, []string{"newer Semel", "schema 7"}, nil},
		{"an empty file with a -wal", cut, false, []string{"cut off", "backup"}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			before, _ := os.ReadFile(c.path)
			s, err := Open(c.path, Options{ReadOnly: c.readOnly})
			if err == nil {
				t.Fatal("it was opened", s.Close())
			}
			for _, word := range c.says {
				if !strings.Contains(err.Error(), word) {
					t.Errorf("got %q, want it to say %q", err, word)
				}
			}
			if c.is != nil && !errors.Is(err, c.is) {
				t.Errorf("got %q, want it to be %q", err, c.is)
			}
			if after, _ := os.ReadFile(c.path); string(after) != string(before) {
				t.Error("the file was changed")
			}
		})
	}
}

func TestCheckVersion(t *testing.T) {
	for version, ok := range map[string]bool{
		"3.51.3": true, "3.51.10": true, "3.53.4": true, "4.0.0": true,
		"3.51.2": false, "3.50.9": false, "2.99.99": false, "3.51": false, "": false, "x.y.z": false,
	} {
		if err := checkVersion(version); (err == nil) != ok {
			t.Errorf("%q: %v, want ok: %t", version, err, ok)
		}
	}
}

func TestOddPaths(t *testing.T) {
	for _, name := range []string{"a b.db", "a?mode=memory", "a#b%41&c.db", "ü\u202e.db", "file:x.db", "'; DROP TABLE record.db"} {
		path := filepath.Join(t.TempDir(), name)
		s := openTest(t, path, Options{})
		mustSwap(t, s, semel.Version{}, done(1))
		info, err := os.Stat(path)
		if err != nil || info.Size() == 0 {
			t.Fatalf("%q: %v, %v", path, info, err)
		}
		if mode := info.Mode().Perm(); mode&0o077 != 0 {
			t.Errorf("%q: others may read it: %v", path, mode)
		}
	}
}

func TestReadOnlyChangesNothing(t *testing.T) {
	path := newPath(t)
	s := openTest(t, path, Options{})
	want := mustSwap(t, s, semel.Version{}, done(1))
	r := openTest(t, path, Options{ReadOnly: true})
	mustHold(t, r, want)
	list, err := r.List(t.Context(), semel.Filter{})
	if err != nil || len(list) != 1 {
		t.Errorf("list: %v, %v", list, err)
	}
	history, err := r.History(t.Context(), want.Digest)
	if err != nil || len(history) != 1 {
		t.Errorf("history: %v, %v", history, err)
	}
	if _, err := r.CompareAndSwap(t.Context(), want.Version, done(1)); !errors.Is(err, semel.ErrRejected) {
		t.Errorf("swap: %v, want ErrRejected", err)
	}
	if out := r.SwapMany(t.Context(), make([]semel.Swap, 2)); len(out) != 2 || !errors.Is(out[1].Err, semel.ErrRejected) {
		t.Errorf("swaps: %v, want ErrRejected", out)
	}
	if _, err := r.Sweep(t.Context(), 10); err == nil {
		t.Error("it was swept")
	}
	// The epoch stands still: the next version follows the last one.
	next := mustSwap(t, s, semel.Version{}, done(2))
	if next.Version.Epoch != want.Version.Epoch || next.Version.Counter != want.Version.Counter+1 {
		t.Errorf("version %v after %v", next.Version, want.Version)
	}
}

func TestReadOnlyAfterTheWriterLeft(t *testing.T) {
	path := newPath(t)
	s := openTest(t, path, Options{})
	want := mustSwap(t, s, semel.Version{}, done(1))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	r := openTest(t, path, Options{ReadOnly: true})
	mustHold(t, r, want)
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if after, _ := os.ReadFile(path); string(after) != string(before) {
		t.Error("reading changed the file")
	}
}

func TestEpochGrowsAtEachOpening(t *testing.T) {
	path := newPath(t)
	at := time.UnixMilli(1_900_000_000_000)
	clock := func() time.Time { return at }
	last := semel.Version{}
	for i, move := range []time.Duration{0, 0, time.Hour, -2 * time.Hour} {
		at = at.Add(move)
		s := openTest(t, path, Options{Now: clock})
		r := mustSwap(t, s, semel.Version{}, done(i))
		if r.Version.Epoch <= last.Epoch || r.Version.Counter <= last.Counter {
			t.Errorf("opening %d: version %v after %v", i, r.Version, last)
		}
		if i == 2 && r.Version.Epoch != uint64(at.UnixMilli()) {
			t.Errorf("epoch %d, want the clock's %d", r.Version.Epoch, at.UnixMilli())
		}
		last = r.Version
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// A copy of the file that is put back must not give out a version again that
// was given out since the copy was made.
func TestRestoredCopyUsesNoVersionAgain(t *testing.T) {
	path := newPath(t)
	s := openTest(t, path, Options{})
	mustSwap(t, s, semel.Version{}, done(1))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	backup, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	s = openTest(t, path, Options{})
	later := mustSwap(t, s, semel.Version{}, pending(2))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, backup, 0o600); err != nil {
		t.Fatal(err)
	}
	s = openTest(t, path, Options{})
	heir := mustSwap(t, s, semel.Version{}, pending(2))
	if heir.Version.Compare(later.Version) <= 0 {
		t.Errorf("version %v after %v", heir.Version, later.Version)
	}
	if _, err := s.CompareAndSwap(t.Context(), later.Version, done(2)); !errors.Is(err, semel.ErrConflict) {
		t.Errorf("the owner from before the restore: %v, want a conflict", err)
	}
}

func TestClosedStore(t *testing.T) {
	s := openTest(t, newPath(t), Options{})
	mustSwap(t, s, semel.Version{}, done(1))
	if err := errors.Join(s.Close(), s.Close()); err != nil {
		t.Fatal(err)
	}
	_, get := s.Get(t.Context(), done(1).Digest)
	_, swap := s.CompareAndSwap(t.Context(), semel.Version{}, done(2))
	_, sweep := s.Sweep(t.Context(), 1)
	_, list := s.List(t.Context(), semel.Filter{})
	many := s.SwapMany(context.Background(), []semel.Swap{{Next: done(3)}})[0].Err
	for i, err := range []error{get, swap, sweep, list, many} {
		if err == nil || errors.Is(err, semel.ErrRejected) {
			t.Errorf("call %d of a closed store: %v", i, err)
		}
	}
}
