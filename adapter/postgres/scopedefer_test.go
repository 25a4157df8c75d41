package postgres_test

import (
	"context"
	stdsql "database/sql"
	"errors"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/adapter/postgres"
)

// What the server finds at COMMIT alone undoes all for good: nothing runs again,
// and the key is free. A serialization failure that it finds there runs again.
func TestScopeFailsAtCommit(t *testing.T) {
	url, schema := servers.Postgres(t).URL("postgres"), newSchema(t)
	store := opened(t, url, "k"+schema, postgres.Options{MaxConns: 2})
	db := sql(t, url)
	run(t, db, "CREATE SCHEMA IF NOT EXISTS "+schema)
	run(t, db, "CREATE TABLE "+schema+".accounts (id int PRIMARY KEY)")
	run(t, db, "CREATE TABLE "+schema+".orders (account int REFERENCES "+schema+".accounts DEFERRABLE INITIALLY DEFERRED)")
	run(t, db, "CREATE TABLE "+schema+".victims (n int)")
	run(t, db, "CREATE SEQUENCE "+schema+".seen")
	run(t, db, `CREATE FUNCTION `+schema+`.once() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
		IF nextval('`+schema+`.seen') = 1 THEN RAISE EXCEPTION 'undone for a test' USING ERRCODE = '40001'; END IF; RETURN NULL; END $$`)
	run(t, db, "CREATE CONSTRAINT TRIGGER once AFTER INSERT ON "+schema+".victims DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION "+schema+".once()")
	deferred, victim := "INSERT INTO "+schema+".orders VALUES (7)", "INSERT INTO "+schema+".victims VALUES (1)"
	for _, optimistic := range []bool{false, true} {
		policy := semel.Policy{Optimistic: optimistic}
		scope, err := postgres.NewScope(store, pooled(t, url, 2), postgres.ScopeOptions{Policy: policy})
		must(t, err)
		overSQL, err := postgres.NewSQLScope(store, openedDB(t, url), postgres.SQLScopeOptions{Policy: policy})
		must(t, err)
		for name, do := range map[string]func(key semel.Key, statement string, runs *int) (semel.Answer, error){
			"pgx": func(key semel.Key, statement string, runs *int) (semel.Answer, error) {
				return scope.Do(t.Context(), key, semel.Fingerprint{}, func(ctx context.Context, tx pgx.Tx) (semel.Result, error) {
					*runs++
					_, err := tx.Exec(ctx, statement)
					return semel.Result{Code: 201}, err
				})
			},
			"database/sql": func(key semel.Key, statement string, runs *int) (semel.Answer, error) {
				return overSQL.Do(t.Context(), key, semel.Fingerprint{}, func(ctx context.Context, tx *stdsql.Tx) (semel.Result, error) {
					*runs++
					_, err := tx.ExecContext(ctx, statement)
					return semel.Result{Code: 201}, err
				})
			},
		} {
			key := semel.Key{Scope: name, ID: map[bool]string{false: "claim", true: "optimistic"}[optimistic]}
			runs := 0
			_, err := do(key, deferred, &runs)
			if !errors.Is(err, semel.ErrNotDone) || !strings.Contains(err.Error(), "foreign key") || runs != 1 {
				t.Errorf("%v: a deferred constraint: %v after %d runs, want that nothing was done, after one", key, err, runs)
			}
			if r, err := store.Get(t.Context(), scope.Guard().Digest(key)); err != nil || r.Record.Held() {
				t.Errorf("%v: held: %+v, %v", key, r.Record, err)
			}
			run(t, db, "ALTER SEQUENCE "+schema+".seen RESTART")
			run(t, db, "DELETE FROM "+schema+".victims")
			runs = 0
			if a, err := do(key, victim, &runs); err != nil || a.Replayed || runs != 2 {
				t.Errorf("%v: a serialization failure at the commit: %+v, %v after %d runs, want the second one's answer", key, a, err, runs)
			}
			if n := number(t, db, "SELECT count(*) FROM "+schema+".victims"); n != 1 {
				t.Errorf("%v: %d effects, want 1", key, n)
			}
		}
	}
	if n := number(t, db, "SELECT count(*) FROM "+schema+".orders"); n != 0 {
		t.Errorf("%d orders of accounts that are not there", n)
	}
}

// A statement that the database undid for another's sake, and of which the
// operation says nothing: it runs again.
func TestScopeSwallowsAVictim(t *testing.T) {
	url, schema := servers.Postgres(t).URL("postgres"), newSchema(t)
	store := opened(t, url, "k"+schema, postgres.Options{MaxConns: 2})
	const victim = "DO $$ BEGIN RAISE EXCEPTION 'undone for a test' USING ERRCODE = '40P01'; END $$"
	scope, err := postgres.NewScope(store, pooled(t, url, 2), postgres.ScopeOptions{})
	must(t, err)
	runs := 0
	_, err = scope.Do(t.Context(), semel.Key{Scope: "pgx", ID: "a"}, semel.Fingerprint{}, func(ctx context.Context, tx pgx.Tx) (semel.Result, error) {
		if runs++; runs == 1 {
			_, _ = tx.Exec(ctx, victim)
		}
		return semel.Result{Code: 201}, nil
	})
	if err != nil || runs != 2 {
		t.Errorf("pgx: %v after %d runs, want the second one's answer", err, runs)
	}
	overSQL, err := postgres.NewSQLScope(store, openedDB(t, url), postgres.SQLScopeOptions{})
	must(t, err)
	runs = 0
	_, err = overSQL.Do(t.Context(), semel.Key{Scope: "sql", ID: "a"}, semel.Fingerprint{}, func(ctx context.Context, tx *stdsql.Tx) (semel.Result, error) {
		if runs++; runs == 1 {
			_, _ = tx.ExecContext(ctx, victim)
		}
		return semel.Result{Code: 201}, nil
	})
	if err != nil || runs != 2 {
		t.Errorf("database/sql: %v after %d runs, want the second one's answer", err, runs)
	}
}

// In says what is wrong with the caller's transaction.
func TestInSaysWhatIsWrong(t *testing.T) {
	url, schema := servers.Postgres(t).URL("postgres"), newSchema(t)
	store, pool := opened(t, url, "k"+schema, postgres.Options{MaxConns: 2}), pooled(t, url, 2)
	guard, err := semel.NewGuard(store, semel.Options{})
	must(t, err)
	policy, err := semel.Policy{Class: semel.Transactional}.Filled()
	must(t, err)
	for want, spoil := range map[string]func(tx pgx.Tx) error{
		"has failed already": func(tx pgx.Tx) error { _, err := tx.Exec(t.Context(), "SELECT 1/0"); return err },
		"has ended already":  func(tx pgx.Tx) error { _, err := tx.Conn().Exec(t.Context(), "COMMIT"); return err },
		"still unread":       func(tx pgx.Tx) error { _, err := tx.Query(t.Context(), "SELECT generate_series(1, 9)"); return err }, //nolint:rowserrcheck // that is the case
		"is closed":          func(tx pgx.Tx) error { return tx.Conn().Close(t.Context()) },
		"read only":          func(tx pgx.Tx) error { _, err := tx.Exec(t.Context(), "SET TRANSACTION READ ONLY"); return err },
	} {
		tx, err := pool.Begin(t.Context())
		must(t, err)
		_ = spoil(tx)
		ask := semel.Ask{Key: semel.Key{Scope: "tenant", ID: want}, Policy: &policy}
		_, err = guard.Within(t.Context(), postgres.In(store, tx), ask, func(context.Context) (semel.Result, error) {
			t.Errorf("%s: the operation ran", want)
			return semel.Result{}, nil
		})
		if !errors.Is(err, semel.ErrRejected) || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %v that says %q", err, semel.ErrRejected, want)
		}
		_ = tx.Rollback(t.Context())
		if r, err := store.Get(t.Context(), guard.Digest(ask.Key)); err != nil || r.Record.Held() {
			t.Errorf("%s: held: %+v, %v", want, r.Record, err)
		}
	}
}
