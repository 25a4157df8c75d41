package demo

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/semelhq/semel/cmd/internal/lossy"
	"github.com/semelhq/semel/cmd/internal/storm"
)

// Options are a run's settings.
type Options struct {
	// Binary is the semel executable, which is started as the gateway.
	Binary string
	// Seed determines the traffic: payments, amounts, copies, kills and the
	// network's faults; not how they interleave. 0 takes a random one.
	Seed uint64
	// Payments is how many payments are asked for. Default 500.
	Payments int
	// Storm is how long they are asked for. Default 15 s.
	Storm time.Duration
	// Bypass leaves the gateway out: the same storm hits the payment API itself.
	Bypass bool
	// Out gets the progress and the report; with JSON, the progress only.
	Out io.Writer
	// Environ is the environment, for NO_COLOR and TERM.
	Environ []string
	// JSON gets the report as one JSON object, if it is not nil.
	JSON io.Writer
	// Exit ends the run after the report. Otherwise everything stays up until ctx
	// ends.
	Exit bool
	// flags are added to the gateway's, for the tests that make it a worse one.
	flags []string
}

// deadline is when a run stops, whatever it has done by then, and counts what
// there is. It leaves room for the report below the 45 s that a run may take.
const deadline = 40 * time.Second

// bench is everything that a run has set up.
type bench struct {
	options  Options
	began    time.Time
	dir      string
	ledger   *storm.Ledger
	payments *storm.API
	gateway  *gateway
	network  *lossy.Proxy
	journal  storm.Journal
	client   *storm.Client
	clients  *storm.Clients
	outages  *outages
	screen   *screen
}

// Run runs the demo to its report. The error says that it could not be run; that
// something was counted that must be zero is said by Report.OK.
func Run(ctx context.Context, o Options) (report *Report, err error) {
	if o.Seed == 0 {
		var b [4]byte
		_, _ = rand.Read(b[:]) // never fails
		o.Seed = uint64(binary.BigEndian.Uint32(b[:]))>>8 + 1
	}
	if o.Payments == 0 {
		o.Payments = 500
	}
	if o.Storm == 0 {
		o.Storm = 15 * time.Second
	}
	ctx, lost := context.WithCancelCause(ctx)
	defer lost(nil)
	b := &bench{options: o, began: time.Now(), screen: newScreen(o.Out, o.Environ, lost)}
	defer func() { err = errors.Join(err, b.close()) }()
	within, cancel := context.WithTimeoutCause(ctx, deadline, errors.New("the demo's own deadline"))
	defer cancel()
	b.screen.opening(o)
	if err := b.setUp(within); err != nil {
		return nil, err
	}
	if err := b.play(within); err != nil && within.Err() == nil {
		return nil, err
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	report, err = b.report(ctx)
	if err != nil {
		return nil, err
	}
	if o.JSON != nil {
		return report, report.writeJSON(o.JSON)
	}
	b.screen.report(report, o)
	if o.Exit || o.Bypass {
		return report, context.Cause(ctx) // nobody may have read it
	}
	return report, b.stay(ctx)
}

// setUp starts the ledger, the payment API, the gateway and the network.
func (b *bench) setUp(ctx context.Context) (err error) {
	o := b.options
	if b.dir, err = os.MkdirTemp("", "semel-demo-"); err != nil {
		return err
	}
	if b.ledger, err = storm.OpenLedger(b.ledgerPath()); err != nil {
		return err
	}
	if b.payments, err = storm.StartAPI(b.ledger, storm.APIOptions{Seed: o.Seed}); err != nil {
		return err
	}
	upstream := b.payments.Address()
	if !o.Bypass {
		b.gateway = &gateway{binary: o.Binary, upstream: "http://" + upstream, dir: b.dir, flags: o.flags}
		if err := b.gateway.start(ctx); err != nil {
			return err
		}
		upstream = b.gateway.address
	}
	if b.network, err = lossy.Start(lossy.Options{Upstream: upstream, Seed: o.Seed, Faults: weather()}); err != nil {
		return err
	}
	b.client = storm.NewClient(&b.journal, b.network.Addr())
	b.clients = &storm.Clients{Client: b.client, Payments: storm.Plan(o.Seed, o.Payments, o.Storm*94/100)}
	b.outages = newOutages(b)
	return nil
}

// play runs the storm and settles what it left, while the screen is kept up to
// date.
func (b *bench) play(ctx context.Context) error {
	stop := b.screen.follow(b.snapshot)
	defer stop()
	b.screen.phase("storm", b.options.Storm+storm.Lull)
	if err := b.storm(ctx); err != nil {
		return err
	}
	b.screen.phase("settling", lease)
	if err := b.network.SetFaults(lossy.Faults{}); err != nil {
		return err
	}
	b.clients.Settle(ctx)
	return nil
}

// storm has the payments asked for while the gateway is killed and restarted.
// The error is that it did not come back.
func (b *bench) storm(ctx context.Context) error {
	killed := make(chan error, 1)
	go func() { killed <- b.outages.run(ctx, time.Now()) }()
	over, cancel := context.WithTimeout(ctx, b.options.Storm)
	defer cancel()
	b.clients.Run(ctx, over.Done())
	return errors.Join(<-killed, ctx.Err())
}

// close ends everything that was started and removes the directory.
func (b *bench) close() error {
	b.screen.close()
	if b.client != nil {
		b.client.Close()
	}
	if b.network != nil {
		_ = b.network.Close() // its listener was open or it was not
	}
	if b.gateway != nil {
		b.gateway.kill()
	}
	if b.payments != nil {
		b.payments.Close()
	}
	if b.ledger != nil {
		_ = b.ledger.Close() // it is removed anyway
	}
	if b.dir == "" {
		return nil
	}
	if err := os.RemoveAll(b.dir); err != nil {
		return fmt.Errorf("the demo's directory is left behind: %w", err)
	}
	return nil
}

func (b *bench) ledgerPath() string { return filepath.Join(b.dir, "ledger.jsonl") }
