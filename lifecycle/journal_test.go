package lifecycle_test

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/lifecycle"
)

const day = 24 * time.Hour

// randomEntry gives an entry as a journal may have it, of a day.
func randomEntry(r *rand.Rand, of time.Time) semel.Entry {
	text := func() string {
		b := make([]byte, r.IntN(40))
		for i := range b {
			b[i] = byte(r.IntN(256)) // not UTF-8, and what JSON escapes
		}
		return string(b)
	}
	e := semel.Entry{Record: semel.Record{
		State: semel.State(1 + r.IntN(3)), Class: semel.Class(r.IntN(4)), Version: semel.Version{Epoch: r.Uint64(), Counter: r.Uint64()},
		Attempt: r.IntN(100), Code: r.IntN(600), WrittenAt: of.Add(time.Duration(r.Int64N(int64(day)))),
		TTL: time.Duration(r.Int64()), Replay: time.Duration(r.Int64()), Key: semel.Key{Scope: text(), ID: text()}, Owner: text(),
	}}
	for _, b := range [][]byte{e.Record.Digest[:], e.Record.Fingerprint[:], e.Record.Nonce[:], e.ResultSum[:]} {
		for i := range b {
			b[i] = byte(r.IntN(256))
		}
	}
	if r.IntN(2) == 0 {
		e.ResultSum = [32]byte{}
	}
	return e
}

// archived gives a store's first day, of n random entries, as it is archived.
func archived(t *testing.T, seed uint64, n int) (entries []semel.Entry, name string, file []byte) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		r := rand.New(rand.NewPCG(seed, 1))
		today := time.Now().UTC().Truncate(day)
		for range n {
			w.write(randomEntry(r, today))
		}
		entries = w.days[today]
		shelf := newShelf()
		w.sleep(day + 72*time.Hour + 2*time.Hour)
		s := w.sweeper(w.trail, lifecycle.Options{Journal: 72 * time.Hour, Archive: shelf})
		if p, err := s.Once(t.Context()); err != nil || p.Archived != 1 || p.Lines != int64(n) || p.Dropped != 1 {
			t.Fatalf("%+v, %v", p, err)
		}
		if len(shelf.names()) != 1 {
			t.Fatalf("%d files", len(shelf.names()))
		}
		name = shelf.names()[0]
		file = shelf.kept[name]
	})
	return entries, name, file
}

func sameEntries(t *testing.T, got, want []semel.Entry) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%d entries, want %d", len(got), len(want))
	}
	for i := range want {
		a, b := got[i], want[i]
		if !a.Record.WrittenAt.Equal(b.Record.WrittenAt) {
			t.Fatalf("entry %d was written at %v, want %v", i, a.Record.WrittenAt, b.Record.WrittenAt)
		}
		a.Record.WrittenAt = b.Record.WrittenAt
		if !reflect.DeepEqual(a, b) {
			t.Fatalf("entry %d: got %+v, want %+v", i, a, b)
		}
	}
}

// What is archived is read back entry by entry, and the same day gives the same file.
func TestAnArchivedDayIsReadBack(t *testing.T) {
	for _, n := range []int{1, 2, 499, 500, 501, 3000} {
		entries, name, file := archived(t, 7, n)
		sameEntries(t, readAll(t, file), entries)
		_, again, same := archived(t, 7, n)
		if name != again || !bytes.Equal(file, same) {
			t.Errorf("%d entries gave %s of %d bytes, and then %s of %d", n, name, len(file), again, len(same))
		}
		if _, other, _ := archived(t, 8, n); other == name {
			t.Errorf("other entries have the same name, %s", name)
		}
	}
}

func unzip(t *testing.T, file []byte) []byte {
	t.Helper()
	z, err := gzip.NewReader(bytes.NewReader(file))
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// verdict reads an archive to its end.
func verdict(file []byte) (n int, err error) {
	for _, err = range lifecycle.ReadArchive(bytes.NewReader(file)) {
		if err != nil {
			return n, err
		}
		n++
	}
	return n, nil
}

// No byte can be changed, left out or added without being found.
func TestADamagedArchiveIsFound(t *testing.T) {
	_, _, file := archived(t, 3, 4)
	text := unzip(t, file)
	if n, err := verdict(text); n != 4 || err != nil {
		t.Fatalf("without compression: %d, %v", n, err)
	}
	check := func(what string, changed []byte) {
		if n, err := verdict(changed); !errors.Is(err, semel.ErrDamaged) {
			t.Errorf("%s: %d entries, %v", what, n, err)
		}
	}
	end := bytes.LastIndexByte(text[:len(text)-1], '\n') + 1
	for i := range text[:end] {
		changed := bytes.Clone(text)
		changed[i] ^= 1
		check(fmt.Sprintf("byte %d of the text changed", i), changed)
	}
	for i := range text {
		check(fmt.Sprintf("the text cut off at %d", i), text[:i])
	}
	for i := range file {
		check(fmt.Sprintf("the file cut off at %d", i), file[:i])
	}
	lines := bytes.SplitAfter(text, []byte("\n"))
	check("a line left out", bytes.Join(append([][]byte{lines[0]}, lines[2:]...), nil))
	check("two lines exchanged", bytes.Join(append([][]byte{lines[1], lines[0]}, lines[2:]...), nil))
	check("a line twice", bytes.Join(append([][]byte{lines[0]}, lines...), nil))
	check("more after the end", append(bytes.Clone(text), lines[0]...))
	check("a format of the future", bytes.Replace(text, []byte(`"format":1`), []byte(`"format":2`), 1))
	check("nothing", nil)
	check("a line that does not end", bytes.Repeat([]byte("x"), 20<<20))
}

// The lines are for people, too: this is what they look like.
func TestTheFormatOfAnArchive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		shelf := newShelf()
		s := w.sweeper(w.trail, lifecycle.Options{Journal: 72 * time.Hour, Archive: shelf})
		w.set(func() { clear(w.days) })
		r := semel.Record{
			State: semel.Done, Class: semel.Fenced, Version: semel.Version{Epoch: 1, Counter: 7}, Attempt: 2, Code: 201, WrittenAt: time.Now(),
			TTL: 72 * time.Hour, Replay: 24 * time.Hour, Result: []byte("receipt"), Key: semel.Key{Scope: "shop|anna", ID: "order <42>"}, Owner: "host:1",
		}
		r.Digest = r.Key.Digest(nil)
		w.write(r.Entry())
		w.sleep(6 * day)
		if _, err := s.Once(t.Context()); err != nil {
			t.Fatal(err)
		}
		got := unzip(t, shelf.kept[shelf.names()[0]])
		golden := filepath.Join("testdata", "journal.ndjson")
		want, err := os.ReadFile(golden)
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("the lines are not those of %s (%v):\n%s", golden, err, got)
		}
	})
}

// Whatever the day: while a key is remembered, the store has its lines, even if the
// journal is kept no longer than the key.
func TestTheTrailOutlivesTheKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		g := guardOf(t, w)
		p := policy(t, semel.Policy{Replay: 24 * time.Hour, Remember: 60 * time.Hour})
		stop := w.run(w.sweeper(w.trail, lifecycle.Options{Journal: 60 * time.Hour, Policies: []*semel.Policy{p}, Growth: -1}))
		defer stop()
		for hour := range 24 * 8 {
			w.done(g, "shop", fmt.Sprint("k", hour), p, 10)
			// A key with a time of its own is remembered a little longer.
			at := time.Now().Add(4 * time.Minute).UnixMilli()
			w.done(g, "shop", fmt.Sprintf("%08x-%04x-7000-8000-%012x", at>>16, at&0xffff, hour), p, 10)
			w.sleep(time.Hour)
			lines := make(map[semel.Digest]int)
			for _, entries := range w.days {
				for _, e := range entries {
					lines[e.Record.Digest]++
				}
			}
			for _, r := range w.dump(w) {
				if lines[r.Digest] != 2 {
					t.Fatalf("after %d h key %q of %v has %d lines", hour, r.Key.ID, r.WrittenAt, lines[r.Digest])
				}
			}
		}
		if n := len(w.days); n > 5 {
			t.Errorf("%d days are kept for 60 h", n)
		}
	})
}

// A day goes when its last line has been kept for as long as Journal says, and it has
// been over for an hour.
func TestWhenADayGoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		s := w.sweeper(w.trail, lifecycle.Options{Journal: 72 * time.Hour, Growth: -1})
		w.sleep(day + 72*time.Hour + time.Hour - time.Second)
		if p, err := s.Once(t.Context()); err != nil || p.Dropped != 0 {
			t.Errorf("a second too early: %+v, %v", p, err)
		}
		w.sleep(time.Second)
		if p, err := s.Once(t.Context()); err != nil || p.Dropped != 1 || p.Archived != 0 {
			t.Errorf("at its time: %+v, %v", p, err)
		}
	})
}

// all gives the entries of the days that are over and were written so far.
func (w *world) all() (out []semel.Entry) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, d := range w.days {
		out = append(out, d...)
	}
	return out
}

// covers checks that each entry is there, at least once.
func covers(t *testing.T, got, want []semel.Entry) {
	t.Helper()
	has := make(map[semel.Version]bool)
	for _, e := range got {
		has[e.Record.Version] = true
	}
	for _, e := range want {
		if !has[e.Record.Version] {
			t.Fatalf("of %d entries, that of %q, version %v, is nowhere", len(want), e.Record.Key.ID, e.Record.Version)
		}
	}
}

// spoiled is a way in which the journal's way to the archive fails.
type spoiled struct {
	name  string
	spoil func(w *world, shelf *shelf) (mend func())
	files int // in the archive, after it is mended
}

func waysToFail() []spoiled {
	return []spoiled{
		{"the archive fails", func(_ *world, shelf *shelf) func() {
			shelf.onPut = func(string) error { return errBroken }
			return func() { shelf.onPut = nil }
		}, 1},
		{"the archive panics", func(_ *world, shelf *shelf) func() {
			shelf.onPut = func(string) error { panic("crash") }
			return func() { shelf.onPut = nil }
		}, 1},
		{"the lines cannot be read", func(w *world, _ *shelf) func() {
			w.onLines = func(time.Time) error { return semel.ErrDamaged }
			return func() { w.onLines = nil }
		}, 1},
		{"dropping fails", func(w *world, _ *shelf) func() {
			w.onDrop = func(time.Time) (int, error) { return 0, errBroken }
			return func() { w.onDrop = nil }
		}, 1},
		{"a crash between archiving and dropping", func(w *world, _ *shelf) func() {
			w.onDrop = func(time.Time) (int, error) { panic("crash") }
			return func() { w.onDrop = nil }
		}, 1},
		{"a crash in the middle of dropping", func(w *world, _ *shelf) func() {
			first := true
			w.onDrop = func(time.Time) (int, error) {
				if !first {
					return 0, errBroken
				}
				first = false
				return 7, errBroken
			}
			return func() { w.onDrop = nil }
		}, 2},
		{"a line comes between the two readings", func(w *world, _ *shelf) func() {
			r := rand.New(rand.NewPCG(1, 1))
			first := true
			w.onLines = func(at time.Time) error {
				if first {
					first = false
					w.write(randomEntry(r, at))
				}
				return nil
			}
			return func() { w.onLines = nil }
		}, 1},
	}
}

// A line is dropped only when it is archived, whatever fails or dies, and when.
func TestNothingIsLostOnItsWayToTheArchive(t *testing.T) {
	o := func(a lifecycle.Archive) lifecycle.Options {
		return lifecycle.Options{Journal: 72 * time.Hour, Archive: a, Growth: -1}
	}
	for _, c := range waysToFail() {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				shelf := newShelf()
				w.many(guardOf(t, w), 10, policy(t, semel.Policy{}))
				written := w.all()
				w.sleep(day + 72*time.Hour + 90*time.Minute)
				mend := c.spoil(w, shelf)
				told := false
				for range 3 {
					func() {
						defer func() {
							told = recover() != nil || told
						}()
						_, err := w.sweeper(w.trail, o(shelf)).Once(t.Context())
						told = told || err != nil
					}()
					covers(t, append(shelf.entries(t), w.all()...), written)
				}
				mend()
				p, err := w.sweeper(w.trail, o(shelf)).Once(t.Context())
				if !told || err != nil || len(w.days) != 1 {
					t.Errorf("once it is mended: %+v, %v; %d days are left (failures were told: %v)", p, err, len(w.days), told)
				}
				covers(t, shelf.entries(t), written)
				if got := shelf.names(); len(got) != c.files || !strings.HasPrefix(got[0], "2000-01-01-") {
					t.Errorf("the archive has %q, want %d files", got, c.files)
				}
			})
		})
	}
}

// A day that fails keeps no other waiting, and is not read again all the time.
func TestADayThatFailsBlocksNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		shelf := newShelf()
		g := guardOf(t, w)
		bad := time.Now().UTC().Truncate(day)
		reads := 0
		w.onLines = func(at time.Time) error {
			if at.Equal(bad) {
				reads++
				return semel.ErrDamaged
			}
			return nil
		}
		stop := w.run(w.sweeper(w.trail, lifecycle.Options{Journal: 72 * time.Hour, Archive: shelf}))
		defer stop()
		for range 8 {
			w.many(g, 5, policy(t, semel.Policy{}))
			w.sleep(day)
		}
		if n := len(shelf.names()); n < 3 {
			t.Errorf("%d days are archived", n)
		}
		if w.days[bad] == nil || reads < 24 || reads > 4*24+20 {
			t.Errorf("the bad day was read %d times in 4 days (kept: %v)", reads, w.days[bad] != nil)
		}
		failed := w.told(lifecycle.Failed)
		if len(failed) != reads || !failed[0].Day.Equal(bad) {
			t.Errorf("%d reads failed, %d were told: %+v", reads, len(failed), failed[0])
		}
	})
}

func FuzzReadArchive(f *testing.F) {
	golden, err := os.ReadFile(filepath.Join("testdata", "journal.ndjson"))
	if err != nil {
		f.Fatal(err)
	}
	var z bytes.Buffer
	out := gzip.NewWriter(&z)
	if _, err := out.Write(golden); err != nil || out.Close() != nil {
		f.Fatal(err)
	}
	f.Add(golden)
	f.Add(z.Bytes())
	f.Add([]byte(`{"format":1,"day":"2026-11-20","lines":0,"sha256":"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"}` + "\n"))
	f.Fuzz(func(t *testing.T, file []byte) {
		n, err := verdict(file)
		if err == nil && n > bytes.Count(file, []byte("\n"))*2000 {
			t.Errorf("%d entries of %d bytes", n, len(file))
		}
	})
}
