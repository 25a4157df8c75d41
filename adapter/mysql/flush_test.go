package mysql_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/adapter/mysql"
)

// elsewhere completes keys as another process, and gives the records.
func elsewhere(t *testing.T, url string, ids ...string) []semel.Record {
	t.Helper()
	other := connect(t, url, mysql.Options{})
	defer other.Close()
	var done []semel.Record
	for _, id := range ids {
		done = append(done, swap(t, other, completion(swap(t, other, claim(id)), "receipt")))
	}
	return done
}

// asks are the ways in which a record that is done is handed out.
func asks(s semel.Store) map[string]func(id string) (semel.Reading, error) {
	return map[string]func(id string) (semel.Reading, error){
		"a reading": func(id string) (semel.Reading, error) {
			return s.Get(context.Background(), claim(id).Digest)
		},
		"a duplicate": func(id string) (semel.Reading, error) {
			return s.CompareAndSwap(context.Background(), semel.Version{}, claim(id))
		},
		"a duplicate in a batch": func(id string) (semel.Reading, error) {
			out := s.(semel.Batcher).SwapMany(context.Background(), []semel.Swap{{Next: claim(id + " beside")}, {Next: claim(id)}})
			return out[1].Reading, out[1].Err
		},
		"a completion that comes too late": func(id string) (semel.Reading, error) {
			late := claim(id)
			late.Version = semel.Version{Epoch: 1, Counter: 1}
			return s.CompareAndSwap(context.Background(), late.Version, completion(late, "late"))
		},
	}
}

// replays tells whether an answer is the record.
func replays(r semel.Reading, err error, want *semel.Record) bool {
	return (err == nil || errors.Is(err, semel.ErrConflict)) && r.Record.Version == want.Version && r.Record.State == want.State
}

// A replay of what another session has committed, but the server's disk does not
// have yet, dies with the server: no answer comes before the flush, none if it
// fails, and it is asked for once.
func TestFieldBug28_ReplayWaitsForTheFlush(t *testing.T) {
	url := database(t, name())
	p, through := between(t, url)
	for _, o := range []mysql.Options{{}, {Alone: true}, {Connections: 1}} {
		s := connect(t, through, o)
		defer s.Close()
		for what, ask := range asks(s) {
			id := fmt.Sprintf("%s %+v", what, o)
			done := elsewhere(t, url, id)
			p.reset()
			p.loseFlush()
			r, err := ask(id)
			if err == nil || errors.Is(err, semel.ErrConflict) || errors.Is(err, semel.ErrRejected) || r.Record.Held() {
				t.Errorf("%s, and the flush is lost: got %v, %v; want an error that says so, and no record", id, r.Record.State, err)
			} else if !strings.Contains(err.Error(), "not known to be on the server's disk") || !strings.Contains(err.Error(), "try again") {
				t.Errorf("%s: the error says %q", id, err)
			}
			release := p.holdFlushes()
			answered := make(chan bool, 1)
			go func() {
				r, err := ask(id)
				answered <- replays(r, err, &done[0])
			}()
			waitFor(t, "a flush", func() bool { return p.flushed() == 2 })
			select {
			case <-answered:
				t.Errorf("%s: answered before the flush", id)
				release()
				continue
			default:
			}
			release()
			if !<-answered {
				t.Errorf("%s: the record was not given after the flush", id)
			}
			for again, ask := range asks(s) {
				if r, err := ask(id); !replays(r, err, &done[0]) {
					t.Errorf("%s, then %s: got %v, %v", id, again, r.Record.State, err)
				}
			}
			if n := p.flushed(); n != 2 {
				t.Errorf("%s: %d flushes, want one that is lost and one that is not", id, n)
			}
		}
	}
}

// TestFlushNotNeeded: what this process has completed is known to be on disk, and
// what nobody relies on needs not be.
func TestFlushNotNeeded(t *testing.T) {
	url := database(t, name())
	p, through := between(t, url)
	s := connect(t, through, mysql.Options{})
	defer s.Close()
	other := connect(t, url, mysql.Options{})
	defer other.Close()
	swap(t, other, claim("pending"))
	p.reset()
	for i := range 100 {
		id := fmt.Sprint("k", i)
		held := swap(t, s, claim(id))
		if _, err := s.CompareAndSwap(t.Context(), semel.Version{}, claim(id)); !errors.Is(err, semel.ErrConflict) {
			t.Fatal(err)
		}
		done := swap(t, s, completion(held, "receipt"))
		for what, ask := range asks(s) {
			if r, err := ask(id); !replays(r, err, &done) {
				t.Fatalf("%s: %v, %v", what, r.Record.State, err)
			}
		}
	}
	for what, ask := range asks(s) {
		if r, err := ask("pending"); err != nil && !errors.Is(err, semel.ErrConflict) || r.Record.State != semel.Pending {
			t.Fatalf("%s of what is pending: %v, %v", what, r.Record.State, err)
		}
		if r, err := s.Get(t.Context(), claim("nobody has it").Digest); err != nil || r.Record.Held() {
			t.Fatalf("%v, %v", r.Record.State, err)
		}
	}
	if n := p.flushed(); n != 0 {
		t.Errorf("%d flushes, want none", n)
	}
}

// TestFlushOfOnesOwn: the caller's own write, met after its answer was lost, is
// not on disk before it is known to be.
func TestFlushOfOnesOwn(t *testing.T) {
	url := database(t, name())
	p, through := between(t, url)
	s := connect(t, through, mysql.Options{})
	defer s.Close()
	db := sqlDB(t, url)
	next := claim("k")
	p.cutNext(true)
	if _, err := s.CompareAndSwap(t.Context(), semel.Version{}, next); err == nil {
		t.Fatal("the answer was not lost")
	}
	waitFor(t, "the record", func() bool { return number(t, db, "SELECT COUNT(*) FROM semel_record") == 1 })
	p.reset()
	p.loseFlush()
	if r, err := s.CompareAndSwap(t.Context(), semel.Version{}, next); err == nil || errors.Is(err, semel.ErrConflict) {
		t.Errorf("the flush is lost: got %v, %v; want an error that says so", r.Record.State, err)
	}
	for range 2 {
		r, err := s.CompareAndSwap(t.Context(), semel.Version{}, next)
		if !errors.Is(err, semel.ErrConflict) || r.Record.Nonce != next.Nonce || r.Record.State != semel.Pending {
			t.Errorf("got %v, %v; want a conflict with its own claim", r.Record.State, err)
		}
	}
	if n := p.flushed(); n != 2 {
		t.Errorf("%d flushes, want one that is lost and one that is not", n)
	}
	// What was known of the claim says nothing about its completion.
	r, err := s.Get(t.Context(), next.Digest)
	if err != nil {
		t.Fatal(err)
	}
	other := connect(t, url, mysql.Options{})
	defer other.Close()
	swap(t, other, completion(r.Record, "receipt"))
	for range 2 {
		if r, err := s.Get(t.Context(), next.Digest); err != nil || r.Record.State != semel.Done {
			t.Errorf("%v, %v", r.Record.State, err)
		}
	}
	if n := p.flushed(); n != 3 {
		t.Errorf("%d flushes, want one for the completion", n-2)
	}
}

// TestFlushIsShared: many duplicates of many keys at once, with a pool of one
// connection, wait for a few flushes.
func TestFlushIsShared(t *testing.T) {
	url := database(t, name())
	p, through := between(t, url)
	s := connect(t, through, mysql.Options{Connections: 1})
	defer s.Close()
	const keys, callers = 20, 10
	var ids []string
	for i := range keys {
		ids = append(ids, fmt.Sprint("k", i))
	}
	done := elsewhere(t, url, ids...)
	p.reset()
	release := p.holdFlushes()
	var wg sync.WaitGroup
	for i := range keys * callers {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(context.Background(), 8*time.Second)
			defer cancel()
			want := done[i%keys]
			if i/keys%2 == 0 {
				if r, err := s.Get(ctx, want.Digest); !replays(r, err, &want) {
					t.Errorf("a reading: %v, %v", r.Record.State, err)
				}
			} else if r, err := s.CompareAndSwap(ctx, semel.Version{}, claim(want.Key.ID)); !replays(r, err, &want) {
				t.Errorf("a duplicate: %v, %v", r.Record.State, err)
			}
		})
	}
	waitFor(t, "a flush", func() bool { return p.flushed() == 1 })
	release()
	wg.Wait()
	if n := p.flushed(); n > keys { // with one connection, most come while others read
		t.Errorf("%d callers made %d flushes", keys*callers, n)
	}
	t.Logf("%d callers, %d keys: %d flushes", keys*callers, keys, p.flushed())
	p.reset()
	out := s.SwapMany(t.Context(), swapsOf(elsewhere(t, url, "a", "b", "c", "d")))
	for i := range out {
		if !errors.Is(out[i].Err, semel.ErrConflict) || out[i].Reading.Record.State != semel.Done {
			t.Errorf("a batch: %v, %v", out[i].Reading.Record.State, out[i].Err)
		}
	}
	if n := p.flushed(); n != 1 {
		t.Errorf("a batch of duplicates made %d flushes, want 1", n)
	}
}

// swapsOf are duplicates of records.
func swapsOf(records []semel.Record) []semel.Swap {
	var swaps []semel.Swap
	for _, r := range records {
		swaps = append(swaps, semel.Swap{Next: claim(r.Key.ID)})
	}
	return swaps
}

// TestFlushAndBinaryLog: a commit is in the binary log before others see it, so
// none is flushed for, unless a filter keeps the database out of the log.
func TestFlushAndBinaryLog(t *testing.T) {
	for filter, want := range map[string]int{"": 0, "semel": 1, "another": 0} {
		settings := map[string]string{"log_bin": "binlog", "sync_binlog": "1"}
		if filter != "" {
			settings["binlog_ignore_db"] = filter
		}
		_, url := private(t, settings)
		p, through := between(t, url)
		s := connect(t, through, mysql.Options{})
		done := elsewhere(t, url, "k")
		p.reset()
		for what, ask := range asks(s) {
			if r, err := ask("k"); !replays(r, err, &done[0]) {
				t.Errorf("%s: %v, %v", what, r.Record.State, err)
			}
		}
		if n := p.flushed(); n != want {
			t.Errorf("binlog_ignore_db=%q: %d flushes, want %d", filter, n, want)
		}
		s.Close()
	}
}

// TestFlushOfAnotherServer: a flush proves nothing about what was read before the
// server was restarted, and what was known of it then is forgotten.
func TestFlushOfAnotherServer(t *testing.T) {
	m, url := private(t, nil)
	p, through := between(t, url)
	s := connect(t, through, mysql.Options{})
	defer s.Close()
	done := elsewhere(t, url, "first", "second")
	p.reset()
	release := p.holdFlushes()
	answers := make(chan error, 2)
	get := func(i int) {
		_, err := s.Get(context.Background(), done[i].Digest)
		answers <- err
	}
	go get(0)
	waitFor(t, "a flush", func() bool { return p.flushed() == 1 })
	go get(1) // makes a connection, reads, and waits for the flush after that
	waitFor(t, "a reading", func() bool { commands, _ := p.counts(); return commands == 4 })
	time.Sleep(100 * time.Millisecond) // that it had its answer; else the test shows less
	restart(t, m)
	release()
	if said := fmt.Sprint(<-answers, <-answers); strings.Contains(said, "<nil>") || !strings.Contains(said, "restarted or replaced") {
		t.Errorf("read before a restart and flushed after it: %s", said)
	}
	for range 2 {
		before := p.flushed()
		if r, err := s.Get(t.Context(), done[0].Digest); !replays(r, err, &done[0]) {
			t.Errorf("after a restart: %v, %v", r.Record.State, err)
		}
		if p.flushed() != before+1 {
			t.Errorf("%d flushes after a restart, want one", p.flushed()-before)
		}
		restart(t, m)
	}
}

// TestFlushNeedsItsRow: a flush that changes nothing flushes nothing.
func TestFlushNeedsItsRow(t *testing.T) {
	s, url := opened(t, mysql.Options{})
	done := elsewhere(t, url, "k")
	db := sqlDB(t, url)
	execute(t, db, "DELETE FROM semel_flush")
	if r, err := s.Get(t.Context(), done[0].Digest); err == nil || !strings.Contains(err.Error(), "INSERT INTO semel_flush") {
		t.Errorf("got %v, %v; want an error that says what to do", r.Record.State, err)
	}
	refuses(t, url, mysql.Options{}, "semel_flush has lost its row")
	execute(t, db, "INSERT INTO semel_flush (id, n) VALUES (1, 0)")
	if r, err := s.Get(t.Context(), done[0].Digest); !replays(r, err, &done[0]) {
		t.Errorf("got %v, %v", r.Record.State, err)
	}
}

// TestFieldBug28_KillTakesNothingBack kills the server while some write and
// others read: what was handed out as done is done after the restart, as what was
// acknowledged is. SEMEL_KILLS sets how many kills there are, 5 if it is not set.
func TestFieldBug28_KillTakesNothingBack(t *testing.T) {
	kills := 5
	if text := os.Getenv("SEMEL_KILLS"); text != "" {
		var err error
		if kills, err = strconv.Atoi(text); err != nil {
			t.Fatal("SEMEL_KILLS: ", err)
		}
	} else if testing.Short() {
		kills = 2
	}
	m, url := private(t, nil)
	writer, reader := connect(t, url, mysql.Options{Connections: 32, Alone: true}), connect(t, url, mysql.Options{Connections: 32})
	defer writer.Close()
	defer reader.Close()
	var c seenDone
	for kill := range kills {
		c.round(t, kill, writer, reader, func() {
			if err := m.Kill(); err != nil {
				t.Fatal(err)
			}
		})
		startAgain(t, m)
		c.verify(t, reader)
	}
	t.Logf("%d kills: of %d readings handed out as done %d were lost (95 %%: <= %.5f), of %d completions acknowledged %d",
		kills, c.reads, c.readLost, 3/float64(c.reads), c.writes, c.writeLost)
	if c.readLost+c.writeLost > 0 {
		t.Error("lost, see above")
	}
}

// seenDone is what was handed out as done.
type seenDone struct {
	mu                                 sync.Mutex
	read, written                      []semel.Record // in this round
	reads, writes, readLost, writeLost int
}

// round has eight write and eight wait for what they write, until they are
// killed.
func (c *seenDone) round(t *testing.T, kill int, writer, reader *mysql.Store, end func()) {
	c.read, c.written = nil, nil
	var wg sync.WaitGroup
	var total atomic.Int64
	reached := make(chan struct{})
	for client := range 8 {
		next := make(chan semel.Record, 1)
		wg.Go(func() {
			defer close(next)
			for i := range 100_000 {
				held, err := writer.CompareAndSwap(context.Background(), semel.Version{}, claim(fmt.Sprintf("%d-%d-%d", kill, client, i)))
				if err != nil {
					return // the server is dead
				}
				next <- held.Record
				done, err := writer.CompareAndSwap(context.Background(), held.Record.Version, completion(held.Record, "receipt"))
				if err != nil {
					return
				}
				c.note(&c.written, done.Record)
				if total.Add(1) == int64(200+kill%50*4) { // at another moment each time
					close(reached)
				}
			}
		})
		wg.Go(func() {
			for held := range next {
				for {
					r, err := reader.Get(context.Background(), held.Digest)
					if err != nil {
						break
					}
					if r.Record.State == semel.Done {
						c.note(&c.read, r.Record)
						break
					}
				}
			}
		})
	}
	<-reached
	end()
	wg.Wait()
}

func (c *seenDone) note(to *[]semel.Record, r semel.Record) {
	c.mu.Lock()
	defer c.mu.Unlock()
	*to = append(*to, r)
}

// verify looks for what was handed out.
func (c *seenDone) verify(t *testing.T, s *mysql.Store) {
	t.Helper()
	lost := func(all []semel.Record) (n int) {
		for _, want := range all {
			r, err := s.Get(t.Context(), want.Digest)
			if err != nil {
				t.Fatal(err)
			}
			if r.Record.State != semel.Done || r.Record.Version != want.Version {
				t.Logf("%s was done at %v, and is %v at %v", want.Key.ID, want.Version, r.Record.State, r.Record.Version)
				n++
			}
		}
		return n
	}
	c.reads, c.writes = c.reads+len(c.read), c.writes+len(c.written)
	c.readLost, c.writeLost = c.readLost+lost(c.read), c.writeLost+lost(c.written)
}
