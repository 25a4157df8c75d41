package gateway

import (
	"context"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/lifecycle"
	"github.com/semelhq/semel/store/memory"
)

// unmeasured gives a guard over a store that sweeps and lists, and cannot measure.
func unmeasured(t *testing.T) *semel.Guard {
	t.Helper()
	store := memory.New(memory.Options{})
	g, err := semel.NewGuard(struct {
		semel.Store
		semel.Sweeper
		semel.Lister
	}{store, store, store}, semel.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// A served gateway forgets what is over, tells of it, and stops before its guard.
func TestServeSweeps(t *testing.T) {
	drained := make(chan lifecycle.Event, 1000)
	d := open(t, serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "done") })), func(c *Config) {
		o := &c.Routes[0].Options
		o.Policy.Lease, o.Policy.Replay, o.Policy.Remember = 50*time.Millisecond, 50*time.Millisecond, 100*time.Millisecond
		c.Guard = unmeasured(t)
		c.Lifecycle = lifecycle.Options{Every: 20 * time.Millisecond, Observe: func(e lifecycle.Event) { drained <- e }}
	})
	ctx, stop := context.WithCancel(t.Context())
	served := make(chan error, 1)
	public := listen(t)
	d.url = "http://" + public.Addr().String()
	go func() { served <- d.Serve(ctx, public, nil) }()
	if a := d.ask(t, "POST", "/pay", "k", "x"); a.body != "done" {
		t.Fatalf("got %v", a)
	}
	lister, _ := semel.As[semel.Lister](d.config.Guard.Store())
	kept := func() []semel.Record {
		all, err := lister.List(t.Context(), semel.Filter{})
		if err != nil {
			t.Fatal(err)
		}
		return all
	}
	operation := func(r semel.Record) bool { return r.Key.ID == "k" }
	swept := 0
	for deadline := time.After(10 * time.Second); slices.ContainsFunc(kept(), operation) || swept == 0; {
		select {
		case e := <-drained:
			swept += e.Pass.Swept
		case <-deadline:
			t.Fatalf("%d swept, and the store still has %v", swept, kept())
		}
	}
	stop()
	if err := <-served; err != nil {
		t.Fatal(err)
	}
	leads := 0
	for _, r := range kept() {
		if r.Key.ID == "sweeper" {
			leads++
			if r.State == semel.Pending {
				t.Errorf("the lead was not given back: %+v", r)
			}
		}
	}
	if leads != 1 {
		t.Errorf("%d records of the lead, want 1", leads)
	}
	if _, ok := d.Growth(); ok {
		t.Error("a store that cannot measure itself was measured, and nobody had asked for it")
	}
}

// What lifecycle refuses, the gateway refuses.
func TestLifecycleIsChecked(t *testing.T) {
	guard := unmeasured(t)
	config := func(o lifecycle.Options) error {
		c := open(t, "http://127.0.0.1:1", nil).config
		c.Guard, c.Routes[0].Guard, c.Lifecycle = guard, guard, o
		_, err := New(c)
		return err
	}
	if err := config(lifecycle.Options{}); err != nil {
		t.Errorf("nothing set: %v", err)
	}
	for want, o := range map[string]lifecycle.Options{
		"keeps no journal by days":   {Journal: 100 * time.Hour},
		"would end before the key":   {Journal: time.Hour},
		"set Journal to how long":    {Archive: nowhereArchive{}},
		"a share of 2":               {Share: 2},
		"every -1s is negative":      {Every: -time.Second},
		"too short to be renewed in": {Lease: time.Millisecond},
	} {
		if err := config(o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %q", o, err, want)
		}
	}
	// A store that is measured at the cost of a walk is not, unless somebody asks.
	store := memory.New(memory.Options{})
	walks, err := semel.NewGuard(struct {
		semel.Store
		semel.Measurer
		semel.Lister
	}{store, store, store}, semel.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for every, want := range map[time.Duration]bool{0: false, time.Minute: true} {
		c := open(t, "http://127.0.0.1:1", nil).config
		c.Guard, c.Routes[0].Guard, c.Lifecycle.Growth = walks, walks, every
		if g, err := New(c); err != nil || (g.sweeper != nil) != want {
			t.Errorf("growth %v: %v, %v", every, g.sweeper, err)
		}
	}
	// Where there is nothing to do, nothing is refused.
	bare, err := semel.NewGuard(struct{ semel.Store }{guard.Store()}, semel.Options{})
	if err != nil {
		t.Fatal(err)
	}
	c := open(t, "http://127.0.0.1:1", nil).config
	c.Guard, c.Routes[0].Guard = bare, bare
	g, err := New(c)
	if err != nil || g.sweeper != nil {
		t.Errorf("a store whose records end by themselves: %v, %v", g.sweeper, err)
	}
}

type nowhereArchive struct{}

func (nowhereArchive) Put(context.Context, string, func(io.Writer) error) error {
	return errors.New("there is none")
}
