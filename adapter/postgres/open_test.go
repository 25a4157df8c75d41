package postgres_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/adapter/postgres"
	"github.com/semelhq/semel/internal/server"
)

// refused opens a store that must not open, and says why not.
func refused(t *testing.T, url string, o postgres.Options, says ...string) {
	t.Helper()
	start := time.Now()
	s, err := postgres.Open(t.Context(), url, o)
	if err == nil {
		_ = s.Close()
		t.Fatalf("a store opened; want an error that says %q", says)
	}
	for _, want := range says {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("got %q, want an error that says %q", err, want)
		}
	}
	if took := time.Since(start); took > 20*time.Second {
		t.Errorf("it took %v to be refused", took)
	}
	for _, secret := range []string{server.LoginPassword, "wrong-horse"} {
		if strings.Contains(err.Error(), secret) {
			t.Errorf("the error discloses the password: %v", err)
		}
	}
}

func TestRefused(t *testing.T) {
	p := servers.Postgres(t)
	url := p.URL("postgres")
	db := sql(t, url)
	schema := func(name string) postgres.Options { return postgres.Options{Schema: name} }
	opened(t, url, "refused_newer", postgres.Options{})
	run(t, db, `UPDATE refused_newer.schema_version SET version = 99`)
	opened(t, url, "refused_older", postgres.Options{})
	run(t, db, `UPDATE refused_older.schema_version SET version = 0`)
	run(t, db, `CREATE SCHEMA refused_foreign; CREATE TABLE refused_foreign.records (id int)`)
	run(t, db, `CREATE ROLE semel_reader LOGIN; ALTER ROLE semel_reader SET default_transaction_read_only = on`)
	run(t, db, `CREATE ROLE semel_nobody LOGIN`)
	opened(t, url, "refused_rights", postgres.Options{})
	run(t, db, `CREATE ROLE semel_half LOGIN; GRANT USAGE ON SCHEMA refused_rights TO semel_half; GRANT SELECT ON ALL TABLES IN SCHEMA refused_rights TO semel_half`)
	for _, c := range []struct {
		name, url string
		o         postgres.Options
		says      []string
	}{
		{"no URL", "", postgres.Options{}, []string{"no URL given", "postgres://"}},
		{"another product's URL", "redis://127.0.0.1:6379", postgres.Options{}, []string{"not one of PostgreSQL's", "postgres://"}},
		{"a port that is none", "postgres://127.0.0.1:notaport/x", postgres.Options{}, []string{"not one of PostgreSQL's"}},
		{"a schema's name with a quote", url, schema(`x"; DROP`), []string{"no name for a schema"}},
		{"a schema's name with capitals", url, schema("Semel"), []string{"a-z"}},
		{"a ListenURL that is none", url, postgres.Options{Schema: "refused_listen", ListenURL: "redis://x"}, []string{"ListenURL"}},
		{"nobody listens", "postgres://127.0.0.1:1/postgres", postgres.Options{}, []string{"nobody listens"}},
		{"wrong password", p.URLAs(server.LoginRole, "wrong-horse", "postgres"), postgres.Options{}, []string{"does not let this user in"}},
		{"no such user", p.URLAs("stranger", "x", "postgres"), postgres.Options{}, []string{"does not let this user in"}},
		{"no such database", p.URL("nowhere"), postgres.Options{}, []string{"no such database", "nowhere"}},
		{"a newer schema", url, schema("refused_newer"), []string{"newer Semel", "99"}},
		{"an older schema", url, schema("refused_older"), []string{"older Semel", "semel migrate"}},
		{"another application's schema", url, schema("refused_foreign"), []string{"another application"}},
		{"a user for reading", p.URLAs("semel_reader", "", "postgres"), schema("refused_rights"), []string{"default_transaction_read_only"}},
		{"a user who may not make a schema", p.URLAs("semel_nobody", "", "postgres"), schema("refused_none"), []string{"semel migrate"}},
		{"a user without rights", p.URLAs("semel_half", "", "postgres"), schema("refused_rights"), []string{"lacks rights", "GRANT INSERT ON", "GRANT USAGE ON SEQUENCE"}},
	} {
		t.Run(c.name, func(t *testing.T) { refused(t, c.url, c.o, c.says...) })
	}
}

func TestRefusesUnsafeServers(t *testing.T) {
	p := private(t, map[string]string{"fsync": "off"})
	refused(t, p.URL("postgres"), postgres.Options{}, "fsync = off")
	good := private(t, nil)
	s := opened(t, good.URL("postgres"), "semel", postgres.Options{})
	mustSwap(t, s, semel.Version{}, pending("k"))
	second := standby(t, good, false)
	refused(t, second.URL("postgres"), postgres.Options{}, "standby", "primary")
}

// A server that hangs ends no call later than its context says; afterwards the
// store goes on.
func TestServerHangs(t *testing.T) {
	p := private(t, nil)
	s := opened(t, p.URL("postgres"), "semel", postgres.Options{MaxConns: 2})
	held := mustSwap(t, s, semel.Version{}, done("k"))
	must(t, p.Pause())
	for i := range 4 { // more calls than connections
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		_, err := s.CompareAndSwap(ctx, semel.Version{}, pending(fmt.Sprint(i)))
		unknown(t, "a swap", err)
		_, err = s.Get(ctx, held.Digest)
		unknown(t, "a read", err)
		cancel()
	}
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	if again, err := postgres.Open(ctx, p.URL("postgres"), postgres.Options{}); err == nil {
		_ = again.Close()
		t.Error("a store opened at a server that hangs")
	}
	must(t, p.Resume())
	mustConflict(t, s, held)
	mustSwap(t, s, semel.Version{}, pending("after"))
}

// A lock that somebody holds ends a swap after Options.Timeout, with nothing
// written, whoever waits for it.
func TestRowIsLocked(t *testing.T) {
	p := private(t, nil)
	b, err := p.Bouncer(t.TempDir() + "/bouncer")
	must(t, err)
	defer b.Kill()
	for i, url := range []string{p.URL("postgres"), b.URL("postgres")} {
		schema := fmt.Sprint("locked_", i)
		s := opened(t, url, schema, postgres.Options{Timeout: 300 * time.Millisecond})
		claim := mustSwap(t, s, semel.Version{}, pending("k"))
		tx, err := sql(t, p.URL("postgres")).Begin(t.Context())
		must(t, err)
		_, err = tx.Exec(t.Context(), `SELECT FROM `+schema+`.records FOR UPDATE`)
		must(t, err)
		_, err = s.CompareAndSwap(t.Context(), claim.Version, done("k"))
		unknown(t, "a completion of a locked row", err)
		if !strings.Contains(err.Error(), "Options.Timeout") {
			t.Errorf("got %v, want an error that names Options.Timeout", err)
		}
		mustConflict(t, s, claim) // a duplicate does not wait for the lock
		must(t, tx.Rollback(t.Context()))
		mustSwap(t, s, claim.Version, done("k"))
	}
}

// Settings of the role and of the database that weaken a commit are overruled.
func TestWeakCommitsAreOverruled(t *testing.T) {
	p := private(t, map[string]string{"synchronous_commit": "off", "full_page_writes": "off"})
	b, err := p.Bouncer(t.TempDir() + "/bouncer")
	must(t, err)
	defer b.Kill()
	db := sql(t, p.URL("postgres"))
	for i, url := range []string{p.URL("postgres"), b.URL("postgres")} {
		schema := fmt.Sprint("weak_", i)
		s := opened(t, url, schema, postgres.Options{})
		if said := strings.Join(s.Describe().Cautions, "\n"); !strings.Contains(said, "synchronous_commit is off") || !strings.Contains(said, "full_page_writes") {
			t.Errorf("the cautions are %q", said)
		}
		// What was in force when the row was written is written down by a trigger.
		run(t, db, fmt.Sprintf(`CREATE TABLE %[1]s.seen (setting text); CREATE FUNCTION %[1]s.see() RETURNS trigger LANGUAGE plpgsql AS
			$$BEGIN INSERT INTO %[1]s.seen VALUES (current_setting('synchronous_commit')); RETURN NEW; END$$;
			CREATE TRIGGER see BEFORE INSERT ON %[1]s.records FOR EACH ROW EXECUTE FUNCTION %[1]s.see()`, schema))
		mustSwap(t, s, semel.Version{}, pending("k"))
		if n := number(t, db, `SELECT count(*) FILTER (WHERE setting = 'on') - count(*) FILTER (WHERE setting <> 'on') FROM `+schema+`.seen`); n != 1 {
			t.Errorf("%s: the commit was made with another synchronous_commit than on", schema)
		}
	}
}

func TestCautions(t *testing.T) {
	for _, c := range []struct {
		name, pages, commit, standbys string
		streaming                     int
		away                          time.Duration
		says                          string
	}{
		{"nothing", "on", "on", "", 0, time.Second, ""},
		{"an hour off", "on", "on", "", 0, time.Hour, "1h0m0s apart"},
		{"asynchronous standbys", "on", "on", "", 2, 0, "asynchronous"},
		{"remote_write", "on", "remote_write", "*", 1, 0, "remote_write"},
		{"local", "on", "local", "*", 1, 0, "synchronous_commit is local"},
		{"torn pages", "off", "on", "", 0, 0, "full_page_writes"},
	} {
		got := postgres.Cautions(c.pages, c.commit, c.standbys, c.streaming, c.away)
		if c.says == "" && len(got) > 0 || c.says != "" && (len(got) != 1 || !strings.Contains(got[0], c.says)) {
			t.Errorf("%s: %q, want one that says %q", c.name, got, c.says)
		}
	}
}

// Migrations run once, whoever runs them, at once or again.
func TestMigrate(t *testing.T) {
	url := servers.Postgres(t).URL("postgres")
	o := postgres.Options{Schema: "migrated"}
	var wg sync.WaitGroup
	errs := make([]error, 6)
	for i := range errs {
		wg.Go(func() {
			if i%2 == 0 {
				errs[i] = postgres.Migrate(t.Context(), url, o)
				return
			}
			s, err := postgres.Open(t.Context(), url, o)
			if errs[i] = err; err == nil {
				errs[i] = s.Close()
			}
		})
	}
	wg.Wait()
	must(t, errors.Join(errs...))
	s := opened(t, url, "migrated", postgres.Options{})
	held := mustSwap(t, s, semel.Version{}, done("k"))
	must(t, postgres.Migrate(t.Context(), url, o))
	mustConflict(t, s, held)
	db := sql(t, url)
	run(t, db, `UPDATE migrated.schema_version SET version = 99`)
	if err := postgres.Migrate(t.Context(), url, o); err == nil || !strings.Contains(err.Error(), "newer") {
		t.Errorf("migrating a newer schema: %v", err)
	}
	if n := number(t, db, `SELECT count(*) FROM pg_tables WHERE schemaname = 'migrated' AND tablename LIKE 'journal\_2%'`); n < 4 {
		t.Errorf("the journal has %d days ahead", n)
	}
	if n := number(t, db, `SELECT count(*) FROM migrated.journal_default`); n != 0 {
		t.Errorf("%d lines are in the default partition", n)
	}
}

// A user without any privilege of an administrator, who may create in the
// database, is enough; and so is one who was granted what the README lists.
func TestOrdinaryUsers(t *testing.T) {
	p := servers.Postgres(t)
	db := sql(t, p.URL("postgres"))
	run(t, db, `GRANT CREATE ON DATABASE postgres TO `+server.LoginRole)
	owner := opened(t, p.URLAs(server.LoginRole, server.LoginPassword, "postgres"), "ordinary", postgres.Options{})
	use := func(s *postgres.Store, id string) {
		t.Helper()
		claim := mustSwap(t, s, semel.Version{}, pending(id))
		next := done(id)
		next.TTL, next.Replay = 0, 0
		held := mustSwap(t, s, claim.Version, next)
		mustConflict(t, s, held)
		if list, err := s.List(t.Context(), semel.Filter{ID: id}); err != nil || len(list) != 1 {
			t.Errorf("List: %v, %v", list, err)
		}
		if history, err := s.History(t.Context(), held.Digest); err != nil || len(history) != 2 {
			t.Errorf("History: %v, %v", history, err)
		}
		if n, err := s.Sweep(t.Context(), 10); n != 1 || err != nil {
			t.Errorf("Sweep: %d, %v", n, err)
		}
	}
	use(owner, "as owner")
	run(t, db, `CREATE ROLE semel_granted LOGIN; GRANT USAGE ON SCHEMA ordinary TO semel_granted;
		GRANT SELECT, INSERT, UPDATE, DELETE ON ordinary.records TO semel_granted; GRANT SELECT, INSERT ON ordinary.journal TO semel_granted;
		GRANT SELECT, INSERT, UPDATE ON ordinary.epochs TO semel_granted; GRANT SELECT ON ordinary.schema_version TO semel_granted;
		GRANT USAGE ON SEQUENCE ordinary.version TO semel_granted`)
	granted := opened(t, p.URLAs("semel_granted", "", "postgres"), "ordinary", postgres.Options{})
	use(granted, "as granted")
}
