package mysql_test

import (
	"context"
	"database/sql"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	client "github.com/go-sql-driver/mysql"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/adapter/mysql"
)

// name gives a new name for a database.
func name() string { return fmt.Sprintf("t%d", time.Now().UnixNano()) }

// sqlDB opens the database at a mysql:// URL with the driver alone.
func sqlDB(t testing.TB, url string) *sql.DB {
	t.Helper()
	user, rest, _ := strings.Cut(strings.TrimPrefix(url, "mysql://"), "@")
	host, name, _ := strings.Cut(rest, "/")
	c, err := client.ParseDSN(user + "@tcp(" + host + ")/" + name + "?multiStatements=true")
	if err != nil {
		t.Fatal(err)
	}
	connector, err := client.NewConnector(c)
	if err != nil {
		t.Fatal(err)
	}
	db := sql.OpenDB(connector)
	t.Cleanup(func() { db.Close() })
	return db
}

func execute(t testing.TB, db interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
}, query string, args ...any,
) {
	t.Helper()
	if _, err := db.ExecContext(t.Context(), query, args...); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
}

// number asks for a number.
func number(t testing.TB, db *sql.DB, query string, args ...any) (n int) {
	t.Helper()
	if err := db.QueryRowContext(t.Context(), query, args...).Scan(&n); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return n
}

// claim is a first claim on a key.
func claim(id string) semel.Record {
	key := semel.Key{Scope: "tenant|alice|POST /charges", ID: id}
	next := semel.Record{
		Digest: key.Digest(nil), Fingerprint: semel.FingerprintOf([]byte(id)), State: semel.Pending,
		Attempt: 1, TTL: time.Hour, Key: key, Owner: "host:1",
	}
	binary.BigEndian.PutUint64(next.Nonce[:], uint64(time.Now().UnixNano()))
	return next
}

func completion(r semel.Record, result string) semel.Record {
	r.State, r.Code, r.Result, r.TTL, r.Replay = semel.Done, 201, []byte(result), 72*time.Hour, 24*time.Hour
	r.Nonce[15]++
	return r
}

// swap writes next over what it was made from, which must succeed.
func swap(t testing.TB, s semel.Store, next semel.Record) semel.Record {
	t.Helper()
	r, err := s.CompareAndSwap(t.Context(), next.Version, next)
	if err != nil {
		t.Fatalf("CompareAndSwap over %v: %v", next.Version, err)
	}
	return r.Record
}

// proxy stands between store and server. It counts the commands that pass, and
// cuts connections instead of passing an answer.
type proxy struct {
	target string
	listen net.Listener
	wg     sync.WaitGroup
	ended  chan struct{} // closed with the test

	mu       sync.Mutex
	open     map[net.Conn]bool
	commands int           // of the protocol, so round trips, since the last reset
	writes   int           // of them, those that insert or update records, or commit a scope's transaction
	cut      bool          // the next answer to a write
	lose     bool          // the next write itself
	flushes  int           // of the commands, those that have the log flushed
	noFlush  bool          // the next of them is lost
	hold     chan struct{} // they wait until it is closed, if it is there
}

// between puts a proxy in front of the server of a URL, and gives the URL of that.
func between(t testing.TB, url string) (*proxy, string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	before, rest, _ := strings.Cut(url, "@")
	host, after, _ := strings.Cut(rest, "/")
	p := &proxy{target: host, listen: l, open: map[net.Conn]bool{}, ended: make(chan struct{})}
	p.wg.Go(p.accept)
	t.Cleanup(func() {
		l.Close()
		close(p.ended)
		p.mu.Lock()
		for c := range p.open {
			c.Close()
		}
		p.mu.Unlock()
		p.wg.Wait()
	})
	return p, before + "@" + l.Addr().String() + "/" + after
}

func (p *proxy) accept() {
	for {
		near, err := p.listen.Accept()
		if err != nil {
			return
		}
		far, err := net.Dial("tcp", p.target)
		if err != nil {
			near.Close()
			continue
		}
		p.mu.Lock()
		p.open[near], p.open[far] = true, true
		p.mu.Unlock()
		cut := make(chan struct{}) // closed once answers are not to pass any more
		var held sync.Mutex        // while a command is: then the client is to wait, whatever becomes of the server
		p.wg.Go(func() { p.commandsOf(far, near, cut, &held) })
		p.wg.Go(func() { answers(near, far, cut, &held) })
	}
}

// commandsOf carries packets from the client, whole.
func (p *proxy) commandsOf(far, near net.Conn, cut chan struct{}, held *sync.Mutex) {
	defer near.Close()
	for {
		var head [4]byte
		if _, err := io.ReadFull(near, head[:]); err != nil {
			far.Close()
			return
		}
		body := make([]byte, int(head[0])|int(head[1])<<8|int(head[2])<<16)
		if _, err := io.ReadFull(near, body); err != nil {
			return
		}
		hold, lose, stop := p.note(head[3], string(body))
		if hold != nil {
			held.Lock()
			select {
			case <-hold:
			case <-p.ended:
			}
			held.Unlock()
		}
		if lose {
			far.Close()
			return
		}
		if stop {
			close(cut)
		}
		if _, err := far.Write(append(head[:], body...)); err != nil {
			return
		}
		if stop {
			var drain [1]byte
			_, _ = near.Read(drain[:]) // until answers has closed it
			return
		}
	}
}

// note counts a packet, and tells what is to become of it.
func (p *proxy) note(sequence byte, body string) (hold chan struct{}, lose, cut bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if sequence != 0 {
		return nil, false, false
	}
	p.commands++
	if strings.Contains(body, "UPDATE semel_flush SET n=n+1") {
		p.flushes++
		hold, lose = p.hold, p.noFlush
		p.noFlush = false
		return hold, lose, false
	}
	if !strings.Contains(body, "INSERT INTO semel_record") && !strings.Contains(body, "UPDATE semel_record") &&
		!strings.Contains(body, "RELEASE SAVEPOINT semel_scope;COMMIT") {
		return nil, false, false
	}
	p.writes++
	lose, cut = p.lose, p.cut
	p.lose, p.cut = false, false
	return nil, lose, cut
}

// answers carries what the server says until it is cut. The server's side then
// stays open, so that the server does to the end what it was asked.
func answers(near, far net.Conn, cut chan struct{}, held *sync.Mutex) {
	defer func() {
		held.Lock()
		defer held.Unlock()
		near.Close()
	}()
	buffer := make([]byte, 64<<10)
	for {
		n, err := far.Read(buffer)
		select {
		case <-cut:
			return
		default:
		}
		if n > 0 {
			if _, err := near.Write(buffer[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// reset begins to count anew.
func (p *proxy) reset() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.commands, p.writes, p.flushes = 0, 0, 0
}

func (p *proxy) counts() (commands, writes int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.commands, p.writes
}

// cutNext cuts the next answer to a write, or loses the next write.
func (p *proxy) cutNext(answer bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut, p.lose = answer, !answer
}

// loseFlush loses the next command that has the log flushed.
func (p *proxy) loseFlush() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.noFlush = true
}

// holdFlushes holds such commands back until release is called.
func (p *proxy) holdFlushes() (release func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.hold = make(chan struct{})
	return sync.OnceFunc(func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		close(p.hold)
		p.hold = nil
	})
}

func (p *proxy) flushed() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.flushes
}

// waitFor polls until ready says so.
func waitFor(t testing.TB, what string, ready func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ready(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("after 20 s there is still not: %s", what)
		}
	}
}

// blocked waits until n transactions of the database wait for a lock. The server
// keeps what innodb_trx shows until nobody has read it for 100 ms.
func blocked(t testing.TB, db *sql.DB, n int) {
	t.Helper()
	waitFor(t, fmt.Sprintf("%d transactions that wait for a lock", n), func() bool {
		time.Sleep(150 * time.Millisecond)
		return number(t, db, `SELECT COUNT(*) FROM information_schema.innodb_trx x JOIN information_schema.processlist p
			ON p.id=x.trx_mysql_thread_id WHERE x.trx_state='LOCK WAIT' AND p.db=DATABASE()`) >= n
	})
}

// opened gives a store of a new database, with the database's URL.
func opened(t testing.TB, o mysql.Options) (*mysql.Store, string) {
	t.Helper()
	url := database(t, name())
	s := connect(t, url, o)
	t.Cleanup(func() { s.Close() })
	return s, url
}
