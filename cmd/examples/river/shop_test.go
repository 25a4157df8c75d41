package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/semelhq/semel/internal/server"
)

var servers server.Set

func TestMain(m *testing.M) { os.Exit(servers.Run(m)) }

// database makes one of the test's own, and gives its URL and a connection to it.
func database(t *testing.T) (string, *pgx.Conn) {
	t.Helper()
	db := servers.Postgres(t)
	name := strings.ToLower(t.Name())
	connect(t, db.URL("postgres")).exec("CREATE DATABASE " + name)
	url := db.URL(name)
	return url, connect(t, url).Conn
}

type conn struct {
	*pgx.Conn
	t *testing.T
}

func connect(t *testing.T, url string) conn {
	t.Helper()
	c, err := pgx.Connect(context.Background(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close(context.Background()) })
	return conn{c, t}
}

func (c conn) exec(sql string) {
	c.t.Helper()
	if _, err := c.Exec(context.Background(), sql); err != nil {
		c.t.Fatal(err)
	}
}

// far is the warehouse of a test: its book is what really left.
type far struct {
	*httptest.Server
	mu     sync.Mutex
	calls  []string       // the key of each call
	left   map[string]int // parcels by body, one for each key
	seen   map[string]bool
	hold   chan struct{} // if it is set, answers wait until it is closed
	called chan struct{}
}

func newFar(t *testing.T) *far {
	f := &far{left: map[string]int{}, seen: map[string]bool{}, called: make(chan struct{}, 100)}
	f.Server = httptest.NewServer(f)
	t.Cleanup(f.Close)
	return f
}

func (f *far) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	key := r.Header.Get("Idempotency-Key")
	f.mu.Lock()
	f.calls = append(f.calls, key)
	if !f.seen[key] {
		f.left[string(body)]++
	}
	f.seen[key] = true
	hold := f.hold
	f.mu.Unlock()
	f.called <- struct{}{}
	if hold != nil {
		<-hold
	}
	w.WriteHeader(http.StatusCreated)
	fmt.Fprint(w, "parcel")
}

// await waits for n calls.
func (f *far) await(t *testing.T, n int) {
	t.Helper()
	limit := time.After(30 * time.Second)
	for range n {
		select {
		case <-f.called:
		case <-limit:
			t.Fatal("the warehouse was not called")
		}
	}
}

// check counts orders, jobs, shipped orders, and parcels that left.
func check(t *testing.T, db *pgx.Conn, f *far, orders, jobs, parcels int) {
	t.Helper()
	var gotOrders, gotJobs int
	err := db.QueryRow(t.Context(), "SELECT (SELECT count(*) FROM orders), (SELECT count(*) FROM river_job)").Scan(&gotOrders, &gotJobs)
	if err != nil {
		t.Fatal(err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	left := 0
	for _, n := range f.left {
		left += n
	}
	if gotOrders != orders || gotJobs != jobs || left != parcels {
		t.Errorf("%d orders, %d jobs, %d parcels %v; want %d, %d, %d", gotOrders, gotJobs, left, f.left, orders, jobs, parcels)
	}
}

// shipped waits until every order has its shipment.
func shipped(t *testing.T, db *pgx.Conn) {
	t.Helper()
	await(t, db, "SELECT count(*) > 0 AND count(*) = count(shipment) FROM orders")
}

// await waits until the query gives true.
func await(t *testing.T, db *pgx.Conn, query string) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		var yes bool
		if err := db.QueryRow(t.Context(), query).Scan(&yes); err != nil {
			t.Fatal(err)
		}
		if yes {
			return
		}
		if time.Now().After(end) {
			t.Fatal("never: ", query)
		}
	}
}

// answer is what came back for an order. The zero value: nothing came back.
type answer struct {
	status   int
	body     string
	replayed bool
}

// send orders a lamp at url, under key.
func send(ctx context.Context, url, key string) answer {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, url+"/orders", bytes.NewReader([]byte(`{"item":"lamp"}`)))
	if err != nil {
		return answer{}
	}
	r.Header.Set("Authorization", "Bearer alice")
	r.Header.Set("Idempotency-Key", `"`+key+`"`)
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return answer{}
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return answer{}
	}
	return answer{resp.StatusCode, string(body), resp.Header.Get("Idempotent-Replayed") == "true"}
}

// serve opens a shop in this process, and serves it.
func serve(t *testing.T, database string, f *far) (*shop, string) {
	t.Helper()
	s, err := open(t.Context(), database, f.URL)
	if err != nil {
		t.Fatal(err)
	}
	front := httptest.NewServer(s.handler)
	t.Cleanup(func() {
		front.Close()
		s.close()
	})
	return s, front.URL
}

func TestOrderJobAndAnswerAreOneCommit(t *testing.T) {
	url, db := database(t)
	f := newFar(t)
	s, at := serve(t, url, f)
	first := send(t.Context(), at, "one")
	if first.status != http.StatusCreated || first.replayed {
		t.Fatalf("%+v", first)
	}
	check(t, db, f, 1, 1, 0)
	var wg sync.WaitGroup
	for range 10 {
		wg.Go(func() {
			if got := send(t.Context(), at, "one"); got != (answer{first.status, first.body, true}) {
				t.Errorf("%+v; want the first answer, %+v, as a replay", got, first)
			}
		})
	}
	wg.Wait()
	check(t, db, f, 1, 1, 0)
	if err := s.jobs.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	shipped(t, db)
	check(t, db, f, 1, 1, 1)
}

func TestHerdIsOneOrder(t *testing.T) {
	url, db := database(t)
	f := newFar(t)
	_, one := serve(t, url, f)
	_, other := serve(t, url, f)
	var mu sync.Mutex
	bodies := map[string]int{}
	var wg sync.WaitGroup
	for i := range 40 {
		wg.Go(func() {
			got := send(t.Context(), []string{one, other}[i%2], "herd")
			mu.Lock()
			defer mu.Unlock()
			bodies[fmt.Sprint(got.status, " ", got.body)]++
		})
	}
	wg.Wait()
	if len(bodies) != 1 || bodies["201 {\"id\":1,\"item\":\"lamp\"}\n"] != 40 {
		t.Errorf("%d answers: %v", len(bodies), bodies)
	}
	check(t, db, f, 1, 1, 0)
}

// TestCommitThatFailsStagesNothing: the handler has answered 201 by then.
func TestCommitThatFailsStagesNothing(t *testing.T) {
	url, db := database(t)
	f := newFar(t)
	_, at := serve(t, url, f)
	conn{db, t}.exec(`
		CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'no orders today'; END $$;
		CREATE CONSTRAINT TRIGGER closed AFTER INSERT ON orders DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION refuse()`)
	if got := send(t.Context(), at, "one"); got.status < 500 {
		t.Errorf("%+v; want an error", got)
	}
	check(t, db, f, 0, 0, 0)
	conn{db, t}.exec("DROP TRIGGER closed ON orders")
	if got := send(t.Context(), at, "one"); got.status != http.StatusCreated || got.replayed {
		t.Errorf("%+v; want a fresh 201", got)
	}
	check(t, db, f, 1, 1, 0)
}

// TestJobThatCannotBeStaged: the order is undone with it.
func TestJobThatCannotBeStaged(t *testing.T) {
	url, db := database(t)
	f := newFar(t)
	_, at := serve(t, url, f)
	conn{db, t}.exec("ALTER TABLE river_job ADD CONSTRAINT closed CHECK (kind <> 'ship')")
	if got := send(t.Context(), at, "one"); got.status != http.StatusInternalServerError {
		t.Errorf("%+v; want 500", got)
	}
	check(t, db, f, 0, 0, 0)
	conn{db, t}.exec("ALTER TABLE river_job DROP CONSTRAINT closed")
	if got := send(t.Context(), at, "one"); got.status != http.StatusCreated || got.replayed {
		t.Errorf("%+v; want a fresh 201", got)
	}
	check(t, db, f, 1, 1, 0)
}
