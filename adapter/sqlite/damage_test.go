package sqlite

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/semelhq/semel"
)

// mustBeInDoubt fails the test unless the damaged key of want is neither absent
// nor replayed nor run, whoever asks.
func mustBeInDoubt(t *testing.T, s *Store, want semel.Record) {
	t.Helper()
	if r, err := s.Get(t.Context(), want.Digest); !errors.Is(err, semel.ErrDamaged) || r.Record.Held() {
		t.Fatalf("get: %+v, %v; want ErrDamaged", r.Record, err)
	}
	if r, err := s.CompareAndSwap(t.Context(), semel.Version{}, pending(1)); !errors.Is(err, semel.ErrDamaged) || r.Record.Held() {
		t.Fatalf("insert: %+v, %v; want ErrDamaged", r.Record, err)
	}
	if out := s.SwapMany(t.Context(), []semel.Swap{{Next: pending(1)}, {Next: done(77)}}); !errors.Is(out[0].Err, semel.ErrDamaged) || out[1].Err != nil && !errors.Is(out[1].Err, semel.ErrConflict) {
		t.Fatalf("insert in a batch: %v, %v; want ErrDamaged for the first alone", out[0].Err, out[1].Err)
	}
	if n, err := s.Sweep(t.Context(), 100); n != 0 || err != nil {
		t.Fatalf("sweep: %d, %v; want it left where it is", n, err)
	}
}

// Each change of the row of a finished record is found, in whichever column.
func TestDamagedRow(t *testing.T) {
	path := newPath(t)
	s := openTest(t, path, Options{})
	next := done(1)
	next.TTL, next.Replay = 1, 1 // expired at once: the sweeper would take it
	want := mustSwap(t, s, semel.Version{}, next)
	db := openSQL(t, path)
	var meta []byte
	if err := db.QueryRow("SELECT meta FROM record").Scan(&meta); err != nil {
		t.Fatal(err)
	}
	restore := func() {
		execSQL(t, db, "UPDATE record SET epoch = ?, counter = ?, state = 2, due = ?, meta = ?, result = ? WHERE digest = ?",
			int64(want.Version.Epoch), int64(want.Version.Counter), due(&want), meta, want.Result, want.Digest[:])
	}
	for _, change := range []string{
		"epoch = epoch + 1", "counter = counter - 1", "state = 3", "state = 1", "state = 9", "due = due + 1", "due = 0",
		"meta = x''", "meta = zeroblob(200)", "meta = substr(meta, 2)", "meta = CAST(meta || x'00' AS BLOB)", "meta = substr(meta, 1, 150)",
		"result = NULL", "result = x''", "result = x'41'", "result = CAST(result || x'00' AS BLOB)",
	} {
		t.Run(change, func(t *testing.T) {
			execSQL(t, db, "UPDATE record SET "+change+" WHERE digest = ?", want.Digest[:])
			mustBeInDoubt(t, s, want)
			restore()
		})
	}
	for i := range meta {
		for _, bit := range []byte{1, 0x80} {
			changed := bytes.Clone(meta)
			changed[i] ^= bit
			execSQL(t, db, "UPDATE record SET meta = ? WHERE digest = ?", changed, want.Digest[:])
			if r, err := s.Get(t.Context(), want.Digest); !errors.Is(err, semel.ErrDamaged) {
				t.Fatalf("byte %d, bit %#x: %+v, %v; want ErrDamaged", i, bit, r.Record, err)
			}
		}
	}
	restore()
	mustHold(t, s, want)
}

// The guard in front of a damaged record refuses, and does not run.
func TestDamagedRowIsNotRun(t *testing.T) {
	path := newPath(t)
	s := openTest(t, path, Options{})
	guard, err := semel.NewGuard(s, semel.Options{})
	if err != nil {
		t.Fatal(err)
	}
	key := semel.Key{Scope: "tenant", ID: "order"}
	runs := 0
	do := func() error {
		_, err := guard.Do(context.Background(), semel.Ask{Key: key}, func(context.Context) (semel.Result, error) {
			runs++
			return semel.Result{Data: []byte("ok")}, nil
		})
		return err
	}
	if err := do(); err != nil {
		t.Fatal(err)
	}
	digest := guard.Digest(key)
	execSQL(t, openSQL(t, path), "UPDATE record SET result = x'6f4b' WHERE digest = ?", digest[:])
	if err := do(); !errors.Is(err, semel.ErrInDoubt) || runs != 1 {
		t.Errorf("got %v after %d runs, want in doubt after 1", err, runs)
	}
}

func TestListAndHistoryTellOfDamage(t *testing.T) {
	path := newPath(t)
	s := openTest(t, path, Options{})
	for i := range 5 {
		r := mustSwap(t, s, semel.Version{}, pending(i))
		mustSwap(t, s, r.Version, done(i))
	}
	digest := done(3).Digest
	db := openSQL(t, path)
	execSQL(t, db, "UPDATE record SET result = x'00' WHERE digest = ?", digest[:])
	list, err := s.List(t.Context(), semel.Filter{})
	if len(list) != 4 || !errors.Is(err, semel.ErrDamaged) || !bytes.Contains([]byte(err.Error()), []byte(digest.String())) {
		t.Errorf("list: %d records, %v; want 4 and an error that names %v", len(list), err, digest)
	}
	execSQL(t, db, "UPDATE journal SET meta = x'00' WHERE n = (SELECT min(n) FROM journal WHERE digest = ?)", digest[:])
	history, err := s.History(t.Context(), digest)
	if len(history) != 1 || !errors.Is(err, semel.ErrDamaged) {
		t.Errorf("history: %d entries, %v; want 1 and ErrDamaged", len(history), err)
	}
}

// filled makes a file with n finished records and closes it.
func filled(t *testing.T, path string, n int) (all []semel.Record) {
	t.Helper()
	s := openTest(t, path, Options{})
	for i := range n {
		all = append(all, mustSwap(t, s, semel.Version{}, done(i)))
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return all
}

// same opens a file that was tampered with and looks for every record: it is as
// it was, or there is an error. It gives how many were as they were.
func same(t *testing.T, path string, all []semel.Record) (intact int, opened error) {
	t.Helper()
	s, err := Open(path, Options{ReadOnly: true, Readers: 1})
	if err != nil {
		return 0, err
	}
	defer s.Close()
	for _, want := range all {
		r, err := s.Get(t.Context(), want.Digest)
		switch {
		case err != nil:
		case r.Record.Version == want.Version && bytes.Equal(r.Record.Result, want.Result) && r.Record.State == want.State:
			intact++
		default:
			t.Errorf("key %v: got %+v, want %+v or an error", want.Key, r.Record, want)
		}
	}
	return intact, nil
}

// Every byte of a row as it lies in the file, its header included, is changed
// once.
func TestFlippedBytesInTheFile(t *testing.T) {
	path := newPath(t)
	all := filled(t, path, 3)
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	want := all[1]
	e := want.Entry()
	bytesOf := e.AppendTo(nil)
	meta := bytes.Index(file, append(bytesOf, want.Result...)) // in the journal there is no result
	row := bytes.LastIndex(file[:meta], want.Digest[:])
	if row < 0 || meta-row > 80 {
		t.Fatalf("the row is not where it should be: digest at %d, meta at %d", row, meta)
	}
	changed := filepath.Join(filepath.Dir(path), "changed.db")
	unseen := 0
	for i := row - 8; i < meta+len(bytesOf)+len(want.Result); i++ {
		b := bytes.Clone(file)
		b[i] ^= 0x10
		if err := os.WriteFile(changed, b, 0o600); err != nil {
			t.Fatal(err)
		}
		if intact, err := same(t, changed, all); err == nil && intact == len(all) {
			unseen++
			if i >= row+len(want.Digest) { // before that: the index has the digest, too
				t.Errorf("byte %d after the digest: nobody noticed", i-row-len(want.Digest))
			}
		}
	}
	t.Logf("%d bytes of the row's header and digest did not matter", unseen)
}

func TestTruncatedFile(t *testing.T) {
	path := newPath(t)
	all := filled(t, path, 200)
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	cut := filepath.Join(filepath.Dir(path), "cut.db")
	for size := 50; size < len(file); size += 1800 {
		if err := os.WriteFile(cut, file[:size], 0o600); err != nil {
			t.Fatal(err)
		}
		intact, err := same(t, cut, all)
		if err == nil && intact == len(all) {
			t.Errorf("cut to %d of %d bytes: nobody noticed", size, len(file))
		}
		// Where only the last page is cut off, SQLite opens the file, and finds it when
		// it reads that page.
		if s, err := Open(cut, Options{}); err == nil && size < len(file)-4096 {
			t.Errorf("cut to %d bytes, it was opened to be written: %v", size, s.Close())
		} else if err == nil {
			if err := s.Close(); err != nil {
				t.Logf("closing it: %v", err)
			}
		}
	}
}

func TestPageOfGarbage(t *testing.T) {
	path := newPath(t)
	all := filled(t, path, 200)
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	changed := filepath.Join(filepath.Dir(path), "changed.db")
	for at := 4096; at < len(file); at += 4096 {
		b := bytes.Clone(file)
		copy(b[at:at+4096], bytes.Repeat([]byte{0xa5, 0x5a, 0xff}, 1366))
		if err := os.WriteFile(changed, b, 0o600); err != nil {
			t.Fatal(err)
		}
		intact, err := same(t, changed, all)
		t.Logf("page %d: %d of %d records intact, %v", at/4096+1, intact, len(all), err)
	}
}

// What no reading of one key can find, a hidden entry of the index, Check does.
func TestCheck(t *testing.T) {
	path := newPath(t)
	all := filled(t, path, 200)
	s := openTest(t, path, Options{ReadOnly: true})
	if err := s.Check(t.Context()); err != nil {
		t.Errorf("a sound file: %v", err)
	}
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	digest := all[100].Digest
	changed := filepath.Join(filepath.Dir(path), "changed.db")
	noticed := 0
	for at := bytes.Index(file, digest[:]); at >= 0; {
		b := bytes.Clone(file)
		b[at+31] ^= 1
		if err := os.WriteFile(changed, b, 0o600); err != nil {
			t.Fatal(err)
		}
		damaged := openTest(t, changed, Options{ReadOnly: true})
		if err := damaged.Check(t.Context()); errors.Is(err, semel.ErrDamaged) {
			noticed++
		} else {
			mustHold(t, damaged, all[100]) // a leftover in the free room of a page
		}
		if err := damaged.Close(); err != nil {
			t.Fatal(err)
		}
		next := bytes.Index(file[at+1:], digest[:])
		if next < 0 {
			break
		}
		at += 1 + next
	}
	if noticed < 3 {
		t.Errorf("noticed %d changed digests, want at least those of the index, the record and the journal", noticed)
	}
}

// The table store without its row, or the journal without its newest one, must
// not begin to count from the start.
func TestLostVersion(t *testing.T) {
	for _, change := range []string{"DELETE FROM store", "UPDATE store SET epoch = 0", "DELETE FROM journal"} {
		path := newPath(t)
		s := openTest(t, path, Options{})
		mustSwap(t, s, semel.Version{}, done(1))
		execSQL(t, openSQL(t, path), change)
		if _, err := s.CompareAndSwap(t.Context(), semel.Version{}, done(2)); err == nil {
			t.Errorf("after %q it goes on as if nothing were", change)
		}
	}
}
