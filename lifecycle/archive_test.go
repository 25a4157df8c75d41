package lifecycle_test

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/lifecycle"
)

func directory(t *testing.T) (lifecycle.Archive, string) {
	t.Helper()
	path := t.TempDir()
	a, err := lifecycle.Directory(path)
	if err != nil {
		t.Fatal(err)
	}
	return a, path
}

func text(s string) func(io.Writer) error {
	return func(w io.Writer) error {
		_, err := io.WriteString(w, s)
		return err
	}
}

// holds checks that the directory has this file with these contents, and no other.
func holds(t *testing.T, path, name, want string) {
	t.Helper()
	entries, err := os.ReadDir(path)
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != 1 || entries[0].Name() != name {
		t.Fatalf("the directory has %v, want %s alone", entries, name)
	}
	got, err := os.ReadFile(filepath.Join(path, name))
	if err != nil || string(got) != want {
		t.Fatalf("%s has %q, %v; want %q", name, got, err, want)
	}
}

// Under a name is all that was written, or what was there before.
func TestADirectoryKeepsAllOrNothing(t *testing.T) {
	a, path := directory(t)
	ctx := t.Context()
	if err := a.Put(ctx, "day", text("first")); err != nil {
		t.Fatal(err)
	}
	holds(t, path, "day", "first")
	if info, err := os.Stat(filepath.Join(path, "day")); err != nil || info.Mode().Perm()&0o077 != 0 {
		t.Errorf("others may read it: %v, %v", info.Mode(), err)
	}
	if err := a.Put(ctx, "day", func(w io.Writer) error { return errors.Join(text("half")(w), errBroken) }); !errors.Is(err, errBroken) {
		t.Errorf("got %v", err)
	}
	holds(t, path, "day", "first")
	func() {
		defer func() { _ = recover() }()
		_ = a.Put(ctx, "day", func(w io.Writer) error { panic(text("half")(w)) })
	}()
	holds(t, path, "day", "first")
	ended, cancel := context.WithCancel(ctx)
	if err := a.Put(ended, "day", func(w io.Writer) error { cancel(); return text("late")(w) }); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	holds(t, path, "day", "first")
	// The disk keeps something else than what was written.
	if err := a.Put(ctx, "day", func(w io.Writer) error {
		files, err := filepath.Glob(filepath.Join(path, ".semel-*"))
		return errors.Join(err, text("good")(w), os.WriteFile(files[0], []byte("bad!"), 0o600))
	}); err == nil || !strings.Contains(err.Error(), "not what was written") {
		t.Errorf("got %v", err)
	}
	holds(t, path, "day", "first")
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			if err := a.Put(ctx, "day", text(strings.Repeat("second ", 10_000))); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	holds(t, path, "day", strings.Repeat("second ", 10_000))
	for _, name := range []string{"", ".", "..", "../day", "a/day", "/day", ".hidden"} {
		if err := a.Put(ctx, name, text("x")); err == nil {
			t.Errorf("%q was taken as a name", name)
		}
	}
	holds(t, path, "day", strings.Repeat("second ", 10_000))
}

func TestDirectoriesThatCannotBe(t *testing.T) {
	path := t.TempDir()
	file := filepath.Join(path, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ path, want string }{
		{filepath.Join(path, "none"), "create it"},
		{file, "no directory"},
		{"/proc/self", "cannot be written to"}, // nobody may, not even root
	} {
		if _, err := lifecycle.Directory(c.path); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", c.path, err, c.want)
		}
	}
}

// What a process that died was writing is removed some day; what another is writing
// now is not.
func TestADirectoryIsTidied(t *testing.T) {
	path := t.TempDir()
	for name, age := range map[string]time.Duration{".semel-1": 72 * time.Hour, ".semel-2": time.Hour, "day": 72 * time.Hour} {
		at := filepath.Join(path, name)
		if err := os.WriteFile(at, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(at, time.Now().Add(-age), time.Now().Add(-age)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := lifecycle.Directory(path); err != nil {
		t.Fatal(err)
	}
	left, err := os.ReadDir(path)
	if err != nil || len(left) != 2 || left[0].Name() != ".semel-2" || left[1].Name() != "day" {
		t.Errorf("left are %v, %v", left, err)
	}
}

// The whole way: a store's days, through a directory, back into entries.
func TestAStoreIntoADirectory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, path := directory(t)
		g := guardOf(t, w)
		stop := w.run(w.sweeper(w.trail, lifecycle.Options{Journal: 72 * time.Hour, Archive: a}))
		for range 3 {
			w.many(g, 40, policy(t, semel.Policy{}))
			w.sleep(day)
		}
		w.sleep(5 * day)
		stop()
		names, err := filepath.Glob(filepath.Join(path, "2000-01-0[123]-*.ndjson.gz"))
		if err != nil || len(names) != 3 {
			t.Fatalf("the directory has %v, %v", names, err)
		}
		keys := make(map[string]int)
		for _, name := range names {
			file, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range readAll(t, file) {
				if e.Record.Key.Scope == "shop" {
					keys[e.Record.Key.ID]++
				}
			}
		}
		for id, n := range keys {
			if n != 2 {
				t.Errorf("%q has %d lines, want the claim and the end", id, n)
			}
		}
		if len(keys) != 120 || len(w.dump(w)) != 0 {
			t.Errorf("the archive has %d keys of 120; %d are still held", len(keys), len(w.dump(w)))
		}
	})
}
