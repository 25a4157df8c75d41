package postgres_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/adapter/postgres"
)

// 8: a driver that sends a write again after its answer was lost tells the owner
// "duplicate". Here the caller hears that nobody knows, the statement was sent
// once, and its nonce tells the owner that the write is its own.
func TestFieldBug08_NoHiddenResend(t *testing.T) {
	url := servers.Postgres(t).URL("postgres")
	for _, alone := range []bool{true, false} {
		schema := fmt.Sprintf("resend_%t", alone)
		p, through := between(t, url)
		s := opened(t, through, schema, postgres.Options{Alone: alone, ListenURL: url})
		db := sql(t, url)
		mustSwap(t, s, semel.Version{}, pending("warm"))
		sent := p.executes.Load()
		p.lose.Store(1)
		next := pending("k")
		_, err := s.CompareAndSwap(t.Context(), semel.Version{}, next)
		unknown(t, "a swap whose answer was lost", err)
		if n := p.executes.Load() - sent; n != 1 {
			t.Errorf("alone %t: the swap was sent %d times, want once", alone, n)
		}
		if n := number(t, db, `SELECT count(*) FROM `+schema+`.journal WHERE digest = $1`, next.Digest[:]); n != 1 {
			t.Errorf("alone %t: %d lines in the journal, want one: the write was carried out once", alone, n)
		}
		r, err := s.CompareAndSwap(t.Context(), semel.Version{}, next)
		if !errors.Is(err, semel.ErrConflict) || r.Record.Nonce != next.Nonce {
			t.Errorf("alone %t: the same once more: %+v, %v; want the owner's own write", alone, r.Record, err)
		}
	}
}

// 20: a unique violation is not an outage. Many inserts of one key at once are
// one success and conflicts that name the winner, and the server's log has no error.
func TestFieldBug20_DuplicatesAreNoErrors(t *testing.T) {
	url := servers.Postgres(t).URL("postgres")
	db := sql(t, url)
	for _, alone := range []bool{true, false} {
		s := opened(t, url, fmt.Sprintf("outage_%t", alone), postgres.Options{Alone: alone, MaxConns: 8})
		before := number(t, db, `SELECT xact_rollback FROM pg_stat_database WHERE datname = 'postgres'`)
		for round := range 20 {
			var wg sync.WaitGroup
			got := make([]semel.Reading, 16)
			errs := make([]error, len(got))
			for i := range got {
				next := pending(fmt.Sprint("k", round))
				next.Nonce[15] = byte(i + 1)
				wg.Go(func() { got[i], errs[i] = s.CompareAndSwap(t.Context(), semel.Version{}, next) })
			}
			wg.Wait()
			winner := slices.Index(errs, nil)
			for i := range got {
				if i != winner && !errors.Is(errs[i], semel.ErrConflict) || winner < 0 || got[i].Record.Nonce != got[winner].Record.Nonce {
					t.Fatalf("alone %t, rival %d: %+v, %v; the winner is %d", alone, i, got[i].Record, errs[i], winner)
				}
			}
		}
		if after := number(t, db, `SELECT xact_rollback FROM pg_stat_database WHERE datname = 'postgres'`); after != before {
			t.Logf("alone %t: %d transactions were rolled back on the whole server meanwhile", alone, after-before)
		}
	}
}

// 27: at SERIALIZABLE a statement does not see the row that ON CONFLICT DO
// NOTHING met. The store asks for READ COMMITTED whatever the default is, and is
// right where the snapshot is older than the row.
func TestFieldBug27_DefaultIsolationSerializable(t *testing.T) {
	p := private(t, map[string]string{"default_transaction_isolation": "serializable"})
	b, err := p.Bouncer(t.TempDir() + "/bouncer")
	must(t, err)
	defer b.Kill()
	db := sql(t, p.URL("postgres"))
	for i, url := range []string{p.URL("postgres"), b.URL("postgres")} {
		schema := fmt.Sprint("isolation_", i)
		s := opened(t, url, schema, postgres.Options{Alone: true})
		if n := number(t, db, `SELECT count(*) FROM pg_settings WHERE name = 'default_transaction_isolation' AND setting = 'serializable'`); n != 1 {
			t.Fatal("the server's default is not serializable")
		}
		// A trigger writes down under which level the store's inserts are made.
		run(t, db, fmt.Sprintf(`CREATE TABLE %[1]s.seen (level text); CREATE FUNCTION %[1]s.see() RETURNS trigger LANGUAGE plpgsql AS
			$$BEGIN INSERT INTO %[1]s.seen VALUES (current_setting('transaction_isolation')); RETURN NEW; END$$;
			CREATE TRIGGER see BEFORE INSERT ON %[1]s.records FOR EACH ROW EXECUTE FUNCTION %[1]s.see()`, schema))
		mustSwap(t, s, semel.Version{}, pending("level"))
		if n := number(t, db, `SELECT count(*) FROM `+schema+`.seen WHERE level = 'read committed'`); n != 1 {
			t.Errorf("%s: the insert was not made at READ COMMITTED", schema)
		}
		run(t, db, `DROP TRIGGER see ON `+schema+`.records`)
		// A transaction has inserted the key and not committed: the store's insert
		// waits for it, and its snapshot will not show the row.
		rival := pending("rival")
		tx, err := db.Begin(t.Context())
		must(t, err)
		want := mustSwap(t, s, semel.Version{}, pending("original"))
		_, err = tx.Exec(t.Context(), `INSERT INTO `+schema+`.records SELECT epoch, counter, written, expires, due, state, $1, meta, result FROM `+schema+`.records WHERE digest = $2`,
			rival.Digest[:], want.Digest[:])
		must(t, err)
		answered := make(chan error, 1)
		go func() {
			_, err := s.CompareAndSwap(context.Background(), semel.Version{}, rival)
			answered <- err
		}()
		eventually(t, "the rival waits for the row", func() bool {
			return number(t, db, `SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = 'transactionid'`) > 0
		})
		must(t, tx.Commit(t.Context()))
		// The row is a copy under another digest, so it does not decode: damaged, which
		// is to say that it was seen.
		if err := <-answered; !errors.Is(err, semel.ErrDamaged) {
			t.Errorf("%s: the rival was told %v, want that a row is there", url, err)
		}
	}
}

// 31: a unique index on a table partitioned by time holds the time, and one key
// fits in twice. The records are one table, and their unique index is on the
// digest alone.
func TestFieldBug31_UniqueOnTheDigestAlone(t *testing.T) {
	url := servers.Postgres(t).URL("postgres")
	opened(t, url, "uniqueness", postgres.Options{})
	db := sql(t, url)
	var kind, columns string
	err := db.QueryRow(t.Context(), `SELECT c.relkind::text, string_agg(pg_get_indexdef(i.indexrelid), '; ') FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid
		WHERE c.oid = 'uniqueness.records'::regclass AND i.indisunique AND i.indisvalid AND i.indpred IS NULL GROUP BY 1`).Scan(&kind, &columns)
	if err != nil || kind != "r" || !strings.HasSuffix(columns, "USING btree (digest)") || strings.Contains(columns, ";") {
		t.Errorf("records are of kind %q with unique indexes %q, %v; want a plain table and one on (digest)", kind, columns, err)
	}
}

// 33: a sequence's order is not commit order, and a reader that remembers the
// last number skips what commits later. Tail holds back instead.
func TestFieldBug33_TailMissesNothing(t *testing.T) {
	url := servers.Postgres(t).URL("postgres")
	s := opened(t, url, "tailing", postgres.Options{Alone: true, MaxConns: 8})
	db := sql(t, url)
	// A slow transaction has taken its number; others overtake it.
	mustSwap(t, s, semel.Version{}, pending("first"))
	tx, err := db.Begin(t.Context())
	must(t, err)
	_, err = tx.Exec(t.Context(), `INSERT INTO tailing.journal SELECT epoch, nextval('tailing.version'), pg_current_xact_id()::text::int8, written, digest, meta FROM tailing.journal LIMIT 1`)
	must(t, err)
	mustSwap(t, s, semel.Version{}, pending("overtakes"))

	naive := func(last int64) (int64, int64) {
		return number(t, db, `SELECT coalesce(max(counter), $1) FROM tailing.journal WHERE counter > $1`, last),
			number(t, db, `SELECT count(*) FROM tailing.journal WHERE counter > $1`, last)
	}
	last, seen := naive(0)
	var at postgres.Position
	lines := tail(t, s, &at)
	must(t, tx.Commit(t.Context()))
	_, more := naive(last)
	total := number(t, db, `SELECT count(*) FROM tailing.journal`)
	if seen+more == total {
		t.Fatal("a reader by number missed nothing: the test shows nothing")
	}
	if lines += tail(t, s, &at); int64(lines) != total {
		t.Errorf("Tail gave %d of %d lines", lines, total)
	}
	tailUnderLoad(t, s, &at)
}

// tail reads all that there is after at.
func tail(t testing.TB, s *postgres.Store, at *postgres.Position) (n int) {
	t.Helper()
	for {
		lines, err := s.Tail(t.Context(), *at, 7)
		must(t, err)
		for _, l := range lines {
			*at = l.At
		}
		n += len(lines)
		if len(lines) < 7 {
			return n
		}
	}
}

// tailUnderLoad reads while eight callers write, and counts.
func tailUnderLoad(t *testing.T, s *postgres.Store, at *postgres.Position) {
	var wg sync.WaitGroup
	const callers, each = 8, 100
	for c := range callers {
		wg.Go(func() {
			for i := range each {
				if _, err := s.CompareAndSwap(t.Context(), semel.Version{}, pending(fmt.Sprintf("load %d %d", c, i))); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	written := make(chan struct{})
	go func() {
		wg.Wait()
		close(written)
	}()
	n := 0
	for running := true; running; {
		select {
		case <-written:
			running = false
		default:
		}
		n += tail(t, s, at)
	}
	for end := time.Now().Add(30 * time.Second); n < callers*each && time.Now().Before(end); { // a snapshot of another test may hold lines back
		n += tail(t, s, at)
	}
	if n != callers*each {
		t.Errorf("Tail gave %d of %d lines that were written beside it", n, callers*each)
	}
}
