package chaos

import (
	"fmt"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	root "github.com/semelhq/semel"
	"github.com/semelhq/semel/cmd/internal/lossy"
	"github.com/semelhq/semel/cmd/internal/storm"
	"github.com/semelhq/semel/internal/server"
)

func startPostgres(t *testing.T) *server.Postgres {
	t.Helper()
	db, err := server.StartPostgres(filepath.Join(t.TempDir(), "postgres"), server.PostgresOptions{Settings: map[string]string{
		// A standby that comes back lets those finish who ask whether it is ready.
		"max_standby_archive_delay": "-1", "max_standby_streaming_delay": "-1",
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Kill() })
	return db
}

func startStandby(t *testing.T, of *server.Postgres, sync bool) *server.Postgres {
	t.Helper()
	db, err := of.Standby(filepath.Join(t.TempDir(), "standby"), sync)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Kill() })
	return db
}

// promote kills a primary while its standby is away, so that what the primary
// did meanwhile is not there, and has the standby take over. A standby that is
// merely stopped would find it in its socket.
func promote(primary, standby *server.Postgres, meanwhile func() error) error {
	for _, step := range []func() error{standby.Kill, meanwhile, primary.Kill, standby.Start, standby.Promote} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// TestSynchronousPromotion loses nothing that was acknowledged: every definitive
// answer is the same after the promotions, and every key goes on.
func TestSynchronousPromotion(t *testing.T) {
	t.Parallel()
	primary := startPostgres(t)
	standby := startStandby(t, primary, true)
	relay, err := lossy.Start(lossy.Options{Upstream: primary.Address(), Seed: seed})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = relay.Close() })
	address := strings.Replace(primary.URL("postgres"), primary.Address(), relay.Addr(), 1)
	s := newScene(t, 2, planned(3*sizes.promotions), address, storm.APIOptions{}, "--cache", "none")
	var at []time.Duration
	s.storm(t.Context(), func() error {
		for n := range sizes.promotions {
			if err := s.busy(t.Context(), 200); err != nil {
				return fmt.Errorf("before promotion %d: %w", n+1, err)
			}
			err := promote(primary, standby, func() error {
				time.Sleep(100 * time.Millisecond) // commits wait for the standby meanwhile
				at = append(at, time.Since(s.zero))
				return nil
			})
			if err != nil {
				return err
			}
			relay.SetUpstream(standby.Address())
			if primary = standby; n+1 < sizes.promotions {
				standby = startStandby(t, primary, true)
				// The store notes that commits wait for a standby again when a process opens it.
				s.dump()
			}
		}
		return s.busy(t.Context(), 200)
	})
	s.settle()
	c := s.account(s.evidence(at), fmt.Sprintf("PostgreSQL, synchronous standby: %d promotions", len(at)))
	if c.Paid < c.Keys/2 {
		t.Errorf("the storm proves too little: %d of %d keys paid", c.Paid, c.Keys)
	}
}

// TestAsynchronousPromotion loses what the standby had not received. The store
// knows that it may lack keys, and refuses those that it does not know: none runs
// twice. When an operator ends that, the lost ones do run again, which shows that
// it was the refusal that prevented it.
func TestAsynchronousPromotion(t *testing.T) {
	for n := range sizes.promotions {
		t.Run(strconv.Itoa(n+1), asynchronous)
	}
}

func asynchronous(t *testing.T) {
	t.Parallel()
	primary := startPostgres(t)
	standby := startStandby(t, primary, false)
	s := newScene(t, 2, planned(5), several(primary, standby), storm.APIOptions{}, "--cache", "none")
	var at []time.Duration
	s.storm(t.Context(), func() error {
		if err := s.busy(t.Context(), 200); err != nil {
			return err
		}
		return promote(primary, standby, func() error {
			err := s.made(t.Context(), lagging) // what it does now is lost
			at = append(at, time.Since(s.zero))
			return err
		})
	})
	told := len(s.journal.All())
	s.askAll()
	e := s.evidence(at)
	c := storm.Account(e)
	w := s.window(e, told)
	t.Logf("PostgreSQL, asynchronous standby: 1 promotion\n%s%s", c.String(), w)
	if c.Double+c.Swallowed+c.Leaked+c.Regressed+c.Untold+c.Unexpected > 0 {
		t.Errorf("found:\n%s\n%s", strings.Join(c.Findings, "\n"), c.Story(&e, 2))
	}
	if w.gone == 0 || w.refused != w.gone || w.again > 0 {
		t.Errorf("of the keys that were made and lost all must be refused, and some must be there: %s", w)
	}
	s.endQuarantine(standby.URL("postgres"))
	s.askAll()
	if c := storm.Account(s.evidence(at)); c.Double < w.gone/2 {
		t.Errorf("after the quarantine was ended %d keys were made twice, and %d were lost: it was not the quarantine that refused them", c.Double, w.gone)
	} else {
		t.Logf("with the quarantine ended by hand, %d of the %d lost keys ran again: that is what it prevents", c.Double, w.gone)
	}
}

// several is a URL of two servers, of which the one that takes writes is meant.
func several(servers ...*server.Postgres) string {
	u, err := url.Parse(servers[0].URL("postgres"))
	if err != nil {
		panic(err) // it is one
	}
	var hosts []string
	for _, s := range servers {
		hosts = append(hosts, s.Address())
	}
	u.Host = strings.Join(hosts, ",")
	return u.String() + "&target_session_attrs=read-write"
}

// askAll asks once for everything that was begun. A key may be refused for ever.
func (s *scene) askAll() {
	time.Sleep(lease)                   // what nobody finishes is in doubt now
	s.client.Patience(20 * time.Second) // a claim that the store refuses is given up after 5 s
	var all sync.WaitGroup
	for i := range s.clients.Begun() {
		all.Go(func() {
			p := &s.clients.Payments[i]
			s.client.Ask(s.t.Context(), p, storm.Copy{Amount: p.Amount}, i%len(s.gateways))
		})
	}
	all.Wait()
}

// window is what became of the keys that a promotion may have lost.
type window struct {
	gone     int // made, and the store knows nothing of them
	paid     int // of these, answered with the result before
	refused  int // of these, asked for since, and told to ask again or nothing at all
	again    int // of these, made again
	doubtful int // answered as paid before, and in doubt now: the claim was there, its end was not
	keys     int
}

func (w window) String() string {
	return fmt.Sprintf("  lag window: %d of %d keys were made and are gone (%d of them were answered as paid); %d refused since, %d made again (95 %%: <= %.2g); %d answered as paid are in doubt now",
		w.gone, w.keys, w.paid, w.refused, w.again, storm.Three(w.gone), w.doubtful)
}

// window looks at each key that was made before; the clients' journal has told
// entries from before the promotion.
func (s *scene) window(e storm.Evidence, told int) window {
	type fate struct{ charges, paid, since, answered int }
	fates := map[storm.Name]*fate{}
	get := func(account, key string) *fate {
		name := storm.Name{Account: account, Key: key}
		if fates[name] == nil {
			fates[name] = &fate{}
		}
		return fates[name]
	}
	for _, c := range e.Ledger {
		get(c.Account, c.Reference).charges++
	}
	for i, a := range e.Journal {
		f := get(a.Account, a.Key)
		switch {
		case i < told && a.Status == 201:
			f.paid++
		case i >= told && a.Definitive():
			f.since++
			f.answered++
		case i >= told:
			f.since++
		}
	}
	w := window{keys: len(fates)}
	for name, f := range fates {
		held := e.Kept[name].Record
		if f.charges > 0 && !held.Held() {
			w.gone++
			w.paid += min(f.paid, 1)
			if f.since > 0 && f.answered == 0 {
				w.refused++
			}
			if f.charges > 1 {
				w.again++
			}
		}
		if f.paid > 0 && held.State == root.Pending {
			w.doubtful++
		}
	}
	return w
}

// endQuarantine does what the store's README tells an operator to do who knows
// that nothing is repeated any more.
func (s *scene) endQuarantine(url string) {
	s.t.Helper()
	connection, err := pgx.Connect(s.t.Context(), url)
	if err != nil {
		s.t.Fatal(err)
	}
	defer connection.Close(s.t.Context())
	if _, err := connection.Exec(s.t.Context(), "UPDATE semel.epochs SET quarantined = now() WHERE quarantined IS NOT NULL"); err != nil {
		s.t.Fatal(err)
	}
}
