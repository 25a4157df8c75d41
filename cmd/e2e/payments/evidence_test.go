package payments

import (
	"bufio"
	"context"
	"encoding/json"
	"net/http"
	"os"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/cmd/internal/stores"
	"github.com/semelhq/semel/semelhttp"
)

// evidence is what a run left behind: four logs.
type evidence struct {
	customers int
	journal   []request       // the customers'
	charges   []charge        // the provider's ledger
	orders    []orderRow      // the database
	entries   []entryRow      //
	kept      map[string]kept // Semel's records and journal, by name
	looked    time.Time       // on the store's clock
}

type charge struct {
	ID     string
	Key    string
	Order  int64
	Amount int64
	Status string
}

type orderRow struct {
	ID        int64
	Reference string
	Amount    int64
	Charge    *string
}

type entryRow struct {
	ID      int64
	Order   int64
	Account string
	Amount  int64
}

// kept is what Semel has of one operation.
type kept struct {
	record  semel.Record
	history []semel.Entry // oldest first
}

// settledWithin is far beyond what the completers take for what is in doubt: a
// lease, that of a completer that was killed, and some pauses.
const settledWithin = 2 * time.Minute

// evidence gathers the four logs, once nothing is in doubt any more, or it is
// too late for that.
func (s *scene) evidence(customers int) evidence {
	s.t.Helper()
	e := evidence{customers: customers, journal: s.market.journal, charges: s.charges()}
	for healed := time.Now(); ; time.Sleep(100 * time.Millisecond) {
		s.kept(&e)
		pending := 0
		for _, k := range e.kept {
			if k.record.State == semel.Pending {
				pending++
			}
		}
		if pending == 0 || time.Since(healed) > settledWithin {
			break
		}
	}
	db, err := pgx.Connect(s.t.Context(), s.url)
	if err != nil {
		s.t.Fatal(err)
	}
	defer db.Close(context.Background())
	e.orders = rows[orderRow](s, db, `SELECT id, reference, amount, charge FROM orders ORDER BY id`)
	e.entries = rows[entryRow](s, db, `SELECT id, order_id, account, amount FROM entries ORDER BY id`)
	return e
}

func rows[T any](s *scene, db *pgx.Conn, sql string) []T {
	s.t.Helper()
	found, err := db.Query(s.t.Context(), sql)
	if err != nil {
		s.t.Fatal(err)
	}
	all, err := pgx.CollectRows(found, pgx.RowToStructByPos[T])
	if err != nil {
		s.t.Fatal(err)
	}
	return all
}

// charges reads the provider's file as an auditor would: every line counts.
func (s *scene) charges() (all []charge) {
	s.t.Helper()
	file, err := os.Open(s.ledger)
	if err != nil {
		s.t.Fatal(err)
	}
	defer file.Close()
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		var c charge
		if err := json.Unmarshal(lines.Bytes(), &c); err != nil {
			s.t.Fatal(err)
		}
		all = append(all, c)
	}
	return all
}

// kept reads what the store and its journal hold of every operation.
func (s *scene) kept(e *evidence) {
	s.t.Helper()
	ctx := s.t.Context()
	opened, err := stores.Read(ctx, s.url, stores.Options{})
	if err != nil {
		s.t.Fatal(err)
	}
	defer opened.Close()
	journal, ok := semel.As[semel.Journal](opened.Store)
	if !ok {
		s.t.Fatal("the store has no journal")
	}
	e.kept = map[string]kept{}
	for customer := range e.customers {
		for _, k := range []kind{order, payment} {
			digest := digestOf(s, k, customer)
			held, err := opened.Get(ctx, digest)
			if err != nil {
				s.t.Fatal(err)
			}
			one := kept{record: held.Record}
			if one.history, err = journal.History(ctx, digest); err != nil {
				s.t.Fatal(err)
			}
			e.kept[name(k, customer)], e.looked = one, held.Now
		}
	}
}

// digestOf is where the shop's records of an operation are.
func digestOf(s *scene, k kind, customer int) semel.Digest {
	s.t.Helper()
	asker := &http.Request{Header: http.Header{"Authorization": {authorization(customer)}}}
	scope, err := semelhttp.HeaderScope("Authorization")(asker)
	if err != nil {
		s.t.Fatal(err)
	}
	asked := semel.Key{Scope: semel.JoinScope(scope, http.MethodPost, "/"+string(k)+"s", "key"), ID: key(k, customer)}
	return asked.Digest(nil)
}
