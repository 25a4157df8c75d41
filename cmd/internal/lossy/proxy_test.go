package lossy

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// counter is an upstream that counts what reaches its handler.
type counter struct {
	*httptest.Server
	began, answered atomic.Int64
	work            time.Duration
}

func newCounter(t *testing.T, work time.Duration) *counter {
	c := &counter{work: work}
	c.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.ReadAll(r.Body); err != nil {
			return // cut short
		}
		c.began.Add(1)
		time.Sleep(c.work)
		fmt.Fprintf(w, "answer %d", c.answered.Add(1))
	}))
	t.Cleanup(c.Close)
	return c
}

func start(t *testing.T, o Options) *Proxy {
	t.Helper()
	p, err := Start(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

// ask sends one request on its client's connection. The body cannot be read
// twice, so that net/http does not send again by itself.
func ask(client *http.Client, address string) (string, error) {
	body := io.NopCloser(strings.NewReader(strings.Repeat("payment ", 200)))
	r, err := http.NewRequest(http.MethodPost, "http://"+address, body)
	if err != nil {
		return "", err
	}
	r.ContentLength = 1600
	resp, err := client.Do(r)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return string(text), err
}

func newClient(t *testing.T) *http.Client {
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: 5 * time.Second}
}

func TestFaults(t *testing.T) {
	const n = 10
	for _, c := range []struct {
		faults  Faults
		fault   Fault
		answers int // that clients get
		began   int64
	}{
		{Faults{}, Pass, n, n},
		{Faults{RequestLost: 1}, RequestLost, 0, 0},
		{Faults{RequestCut: 1}, RequestCut, 0, 0},
		{Faults{AnswerLost: 1}, AnswerLost, 0, n},
		{Faults{AnswerCut: 1}, AnswerCut, 0, n},
		{Faults{HangUp: 1}, HangUp, 0, n},
	} {
		t.Run(c.fault.String(), func(t *testing.T) {
			upstream := newCounter(t, 30*time.Millisecond)
			p := start(t, Options{Upstream: upstream.Listener.Addr().String(), Seed: 1, Faults: c.faults})
			client := newClient(t)
			answers := 0
			for range n {
				if text, err := ask(client, p.Addr()); err == nil {
					answers++
				} else if strings.Contains(text, "answer 1") && len(text) > len("answer 1") {
					t.Errorf("a cut answer arrived whole: %q", text)
				}
			}
			counts := p.Counts()
			if answers != c.answers {
				t.Errorf("answers: got %d, want %d", answers, c.answers)
			}
			// What hung up is still on its way to the handler.
			for end := time.Now().Add(3 * time.Second); upstream.began.Load() < c.began && time.Now().Before(end); {
				time.Sleep(time.Millisecond)
			}
			if got := upstream.began.Load(); got != c.began {
				t.Errorf("began: got %d, want %d", got, c.began)
			}
			want := Counts{Connections: counts.Connections, Exchanges: n}
			if c.fault != Pass {
				want.Happened[c.fault] = n
			}
			if counts != want {
				t.Errorf("counts: got %+v, want %+v", counts, want)
			}
		})
	}
}

// An answer that is lost was begun: the upstream had finished with the request.
func TestAnswerLostAfterItWasApplied(t *testing.T) {
	upstream := newCounter(t, 10*time.Millisecond)
	p := start(t, Options{Upstream: upstream.Listener.Addr().String(), Faults: Faults{AnswerLost: 1}})
	for i := range int64(5) {
		if _, err := ask(newClient(t), p.Addr()); err == nil {
			t.Error("an answer arrived")
		}
		if got := upstream.answered.Load(); got != i+1 {
			t.Errorf("applied: got %d, want %d", got, i+1)
		}
	}
}

// One connection carries many exchanges, and each has a fate of its own.
func TestExchangesOfOneConnection(t *testing.T) {
	upstream := newCounter(t, 0)
	p := start(t, Options{Upstream: upstream.Listener.Addr().String(), Faults: Faults{Delayed: 1, MaxDelay: time.Millisecond}})
	client := newClient(t)
	for range 20 {
		if _, err := ask(client, p.Addr()); err != nil {
			t.Fatal(err)
		}
	}
	if c := p.Counts(); c.Connections != 1 || c.Exchanges != 20 || c.Held != 20 {
		t.Errorf("got %+v, want 20 held exchanges on one connection", c)
	}
}

func TestSeed(t *testing.T) {
	faults := Faults{RequestLost: 0.1, RequestCut: 0.1, AnswerLost: 0.1, AnswerCut: 0.1, HangUp: 0.1, Delayed: 0.3, MaxDelay: time.Second}
	draw := func(seed uint64) (fates []fate) {
		source := rand.New(rand.NewPCG(seed, 7))
		for range 1000 {
			fates = append(fates, faults.draw(source))
		}
		return fates
	}
	one, again, other := draw(1), draw(1), draw(2)
	var drawn [faultKinds]int
	same := 0
	for i := range one {
		if one[i] != again[i] {
			t.Fatalf("exchange %d: %v, then %v with the same seed", i, one[i], again[i])
		}
		if one[i] == other[i] {
			same++
		}
		drawn[one[i].fault]++
	}
	if same > 500 {
		t.Errorf("%d of 1000 fates are equal under another seed", same)
	}
	for f := RequestLost; f < faultKinds; f++ {
		if drawn[f] < 60 || drawn[f] > 140 {
			t.Errorf("%v: drawn %d times of 1000, want about 100", f, drawn[f])
		}
	}
}

// Changing the fault rates leaves the fates of the others alone: no draw takes
// more values than another.
func TestDrawTakesEqually(t *testing.T) {
	a, b := rand.New(rand.NewPCG(1, 1)), rand.New(rand.NewPCG(1, 1))
	Faults{}.draw(a)
	Faults{AnswerLost: 1, Delayed: 1, MaxDelay: time.Second}.draw(b)
	if got, want := b.Uint64(), a.Uint64(); got != want {
		t.Errorf("the next value differs: got %d, want %d", got, want)
	}
}

func TestUpstreamGoneAndBack(t *testing.T) {
	upstream := newCounter(t, 0)
	gone, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gone.Close()
	p := start(t, Options{Upstream: gone.Addr().String()})
	client := newClient(t)
	if _, err := ask(client, p.Addr()); err == nil {
		t.Error("an answer from nobody")
	}
	p.SetUpstream(upstream.Listener.Addr().String())
	if text, err := ask(client, p.Addr()); err != nil || text != "answer 1" {
		t.Errorf("got %q, %v, want the upstream's answer", text, err)
	}
	if c := p.Counts(); c.Refused != 1 || c.Exchanges != 2 {
		t.Errorf("got %+v, want one refused of two", c)
	}
}

// Close does not wait for an upstream that takes its time, nor for a delay.
func TestCloseIsPrompt(t *testing.T) {
	upstream := newCounter(t, 300*time.Millisecond)
	p := start(t, Options{Upstream: upstream.Listener.Addr().String(), Faults: Faults{Delayed: 1, MaxDelay: time.Hour}})
	failed := make(chan error, 1)
	go func() {
		_, err := ask(newClient(t), p.Addr())
		failed <- err
	}()
	for p.Counts().Exchanges == 0 {
		time.Sleep(time.Millisecond)
	}
	began := time.Now()
	if err := p.Close(); err != nil {
		t.Error(err)
	}
	if took := time.Since(began); took > time.Second {
		t.Errorf("Close took %v", took)
	}
	if err := <-failed; err == nil {
		t.Error("the request outlived the network")
	}
	if err := p.Close(); err != nil {
		t.Errorf("the second Close: %v", err)
	}
}

func TestRefusals(t *testing.T) {
	for _, o := range []Options{
		{Upstream: "nowhere"},
		{Upstream: "127.0.0.1:1", Listen: "127.0.0.1:99999"},
		{Upstream: "127.0.0.1:1", Faults: Faults{AnswerLost: 1.5}},
		{Upstream: "127.0.0.1:1", Faults: Faults{AnswerLost: 0.6, HangUp: 0.6}},
		{Upstream: "127.0.0.1:1", Faults: Faults{Delayed: 1, MaxDelay: -1}},
	} {
		if p, err := Start(o); err == nil {
			p.Close()
			t.Errorf("%+v was accepted", o)
		}
	}
}
