package mysql_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/adapter/mysql"
	"github.com/semelhq/semel/internal/server"
)

// private starts a server of the test's own, with a database.
func private(t testing.TB, settings map[string]string) (*server.MariaDB, string) {
	t.Helper()
	m, err := server.StartMariaDB(t.TempDir(), server.MariaDBOptions{Settings: settings})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Kill() })
	if err := m.CreateDatabase("semel"); err != nil {
		t.Fatal(err)
	}
	return m, m.URL("semel")
}

// TestFieldBug35_KillLosesNothing kills the server while clients write: what was
// acknowledged is there, the journal has one line for each version, and versions
// go on above all that were given.
func TestFieldBug35_KillLosesNothing(t *testing.T) {
	m, url := private(t, nil)
	s := connect(t, url, mysql.Options{})
	defer s.Close()
	kills := 5
	if testing.Short() {
		kills = 2
	}
	var mu sync.Mutex
	acknowledged := map[string]semel.Record{}
	written := func(r semel.Record) int {
		mu.Lock()
		defer mu.Unlock()
		acknowledged[r.Key.ID] = r
		return len(acknowledged)
	}
	for kill := range kills {
		enough := len(acknowledged) + 200
		reached := make(chan struct{})
		var once sync.Once
		var wg sync.WaitGroup
		for client := range 8 {
			wg.Go(func() {
				for i := range 100_000 {
					next := claim(fmt.Sprintf("%d-%d-%d", kill, client, i))
					for range 2 {
						r, err := s.CompareAndSwap(context.Background(), next.Version, next)
						if err != nil {
							return // the server is dead
						}
						if written(r.Record) >= enough {
							once.Do(func() { close(reached) })
						}
						next = completion(r.Record, "receipt")
					}
				}
			})
		}
		<-reached
		if err := m.Kill(); err != nil {
			t.Fatal(err)
		}
		wg.Wait()
		startAgain(t, m)
		verify(t, s, acknowledged)
	}
	t.Logf("%d acknowledged keys over %d kills: 0 lost (95 %%: <= %.4f)", len(acknowledged), kills, 3/float64(len(acknowledged)))
}

// startAgain starts a server that was killed, as another than before: it tells
// its start in whole seconds, and was started a moment ago.
func startAgain(t *testing.T, m *server.MariaDB) {
	t.Helper()
	time.Sleep(time.Until(time.Now().Truncate(time.Second).Add(time.Second)))
	if err := m.Start(); err != nil {
		t.Fatal(err)
	}
}

func restart(t *testing.T, m *server.MariaDB) {
	t.Helper()
	if err := m.Kill(); err != nil {
		t.Fatal(err)
	}
	startAgain(t, m)
}

// verify checks that all that was acknowledged is there, or what came after it.
func verify(t *testing.T, s *mysql.Store, acknowledged map[string]semel.Record) {
	t.Helper()
	epoch := uint64(0)
	for id, want := range acknowledged {
		r, err := s.Get(t.Context(), want.Digest)
		if err != nil {
			t.Fatal(err)
		}
		got := r.Record
		if got.Version.Compare(want.Version) < 0 || got.Version == want.Version && got.Nonce != want.Nonce {
			t.Fatalf("%s was acknowledged at %v with nonce %v, and is held at %v with %v", id, want.Version, want.Nonce, got.Version, got.Nonce)
		}
		epoch = max(epoch, want.Version.Epoch)
	}
	if r := swap(t, s, claim(fmt.Sprint("after ", len(acknowledged)))); r.Version.Epoch <= epoch {
		t.Errorf("after a restart a version is %v; want an epoch above %d", r.Version, epoch)
	}
	for id, want := range acknowledged {
		entries, err := s.History(t.Context(), want.Digest)
		if err != nil || len(entries) == 0 || entries[len(entries)-1].Record.Version.Compare(want.Version) < 0 {
			t.Fatalf("the journal of %s: %d lines, %v; want one of %v", id, len(entries), err, want.Version)
		}
		break // each reads all of the journal
	}
}

// TestFieldBug35_LazyFlushIsTold: kill -9 does not show a flush that is put off,
// so the settings are read.
func TestFieldBug35_LazyFlushIsTold(t *testing.T) {
	for _, c := range []struct {
		settings map[string]string
		want     semel.Survival
		cautions int
	}{
		{nil, semel.SurvivesCrash, 0},
		{map[string]string{"innodb_flush_log_at_trx_commit": "2"}, semel.SurvivesProcess, 1},
		{map[string]string{"log_bin": "binlog", "sync_binlog": "0", "server_id": "7"}, semel.SurvivesProcess, 2},
		{map[string]string{"log_bin": "binlog", "sync_binlog": "1"}, semel.SurvivesCrash, 1},
		{map[string]string{"innodb_doublewrite": "OFF", "max_allowed_packet": "1M"}, semel.SurvivesCrash, 2},
	} {
		_, url := private(t, c.settings)
		s := connect(t, url, mysql.Options{})
		d := s.Describe()
		if d.Survives != c.want || len(d.Cautions) != c.cautions || d.Durability == "" || d.Clock == "" {
			t.Errorf("%v: got %+v; want it to survive %v, with %d cautions", c.settings, d, c.want, c.cautions)
		}
		swap(t, s, claim("k"))
		s.Close()
	}
}

// TestPaused: a server that does not answer ends in an error at the deadline, and
// what became of the swap is recognised afterwards.
func TestPaused(t *testing.T) {
	m, url := private(t, nil)
	s := connect(t, url, mysql.Options{Timeout: 2 * time.Second})
	defer s.Close()
	next := claim("k")
	if err := m.Pause(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	_, err := s.CompareAndSwap(ctx, semel.Version{}, next)
	if err == nil || errors.Is(err, semel.ErrConflict) || errors.Is(err, semel.ErrRejected) {
		t.Errorf("a swap at a server that is stopped: got %v", err)
	}
	if _, err := s.Get(ctx, next.Digest); err == nil {
		t.Error("a reading at a server that is stopped gave no error")
	}
	if _, err := mysql.Open(ctx, url, mysql.Options{}); err == nil {
		t.Error("a server that is stopped was opened")
	}
	if err := m.Resume(); err != nil {
		t.Fatal(err)
	}
	r, err := s.CompareAndSwap(t.Context(), semel.Version{}, next)
	if err != nil && !errors.Is(err, semel.ErrConflict) || r.Record.Nonce != next.Nonce {
		t.Errorf("repeated: got %v, %v", r.Record.Nonce, err)
	}
}

// TestRestored puts older tables back: no version is given out twice.
func TestRestored(t *testing.T) {
	s, url := opened(t, mysql.Options{})
	db := sqlDB(t, url)
	held := swap(t, s, claim("k"))
	for _, table := range []string{"semel_record", "semel_store"} {
		execute(t, db, "CREATE TABLE backup_"+table+" AS SELECT * FROM "+table)
	}
	lost := swap(t, s, completion(held, "lost"))
	other := swap(t, s, claim("other"))
	for _, table := range []string{"semel_record", "semel_store"} {
		execute(t, db, "DELETE FROM "+table+"; INSERT INTO "+table+" SELECT * FROM backup_"+table)
	}
	again := connect(t, url, mysql.Options{})
	defer again.Close()
	r := swap(t, again, completion(held, "again"))
	if r.Version.Compare(lost.Version) <= 0 {
		t.Errorf("%v was lost, and its version is given again as %v", lost.Version, r.Version)
	}
	r = swap(t, again, claim("other"))
	if r.Version.Compare(other.Version) <= 0 {
		t.Errorf("%v was lost, and its version is given again as %v", other.Version, r.Version)
	}
	// The store that was open all the time goes on with the new epoch.
	if third := swap(t, s, claim("third")); third.Version.Epoch != r.Version.Epoch {
		t.Errorf("two stores write under two epochs: %v and %v", third.Version, r.Version)
	}
	if _, err := s.CompareAndSwap(t.Context(), lost.Version, completion(lost, "late")); !errors.Is(err, semel.ErrConflict) {
		t.Errorf("the owner of a lost version: got %v, want a conflict", err)
	}
}

// TestCancelCutsNothing: a caller that leaves does not end the commit that it has
// asked for.
func TestCancelCutsNothing(t *testing.T) {
	s, url := opened(t, mysql.Options{LockWait: 20 * time.Second, Timeout: 30 * time.Second})
	db := sqlDB(t, url)
	held := swap(t, s, claim("k"))
	lock, err := db.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Rollback()
	execute(t, lock, "UPDATE semel_record SET due=1 WHERE digest=?", held.Digest[:])
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() {
		_, err := s.CompareAndSwap(ctx, held.Version, completion(held, "receipt"))
		ended <- err
	}()
	blocked(t, db, 1)
	cancel()
	if err := lock.Rollback(); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err != nil {
		t.Errorf("the swap was cut off: %v", err)
	}
}
