package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/cmd/internal/config"
	"github.com/semelhq/semel/cmd/internal/serving"
	"github.com/semelhq/semel/cmd/internal/stores"
	"github.com/semelhq/semel/cmd/internal/upkeep"
	"github.com/semelhq/semel/gateway"
	"github.com/semelhq/semel/lifecycle"
)

type sweepOptions struct {
	file, journal, archive, share string
	wait                          time.Duration
	dry, json                     bool
}

func sweepCommand() *cobra.Command {
	var o sweepOptions
	var store, secret string
	c := &cobra.Command{
		Use:   "sweep [flags]",
		Short: "forget now what is over",
		Long: `Forget what is over, now and until nothing of it is left: keys whose time is up,
answers that cannot be had again any more, and, with --journal, days of the journal.
Gateways do it by themselves, in turns; this is for a backlog, for a schedule of
one's own, and for stores without a gateway. Keys that are pending or in doubt stay.

One process sweeps a store at a time. While another one does, this one waits, and
then gives up with exit code 1, having done nothing.`,
		Example: `  semel sweep --dry-run
  semel sweep --config semel.yaml
  semel sweep --store postgres://semel@db/payments --journal 90d --archive /srv/journal`,
		Args: checked(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error { return o.run(c) },
	}
	flags := c.Flags()
	addStore(flags, &store)
	flags.StringVar(&o.file, "config", os.Getenv("SEMEL_CONFIG"), "the gateway's YAML `FILE`: its store, secret, retentions, and lifecycle")
	flags.StringVar(&secret, "secret-file", "", "`PATH` of the gateway's secret, if it has one")
	flags.StringVar(&o.journal, "journal", "", "drop days of the journal after this `TIME`, as 90d")
	flags.StringVar(&o.archive, "archive", "", "write them into this `DIRECTORY` before")
	flags.StringVar(&o.share, "share", "", "`PART` of the time in which the store is kept busy [50%]")
	flags.DurationVar(&o.wait, "wait", 10*time.Second, "`TIME` to wait while another process sweeps")
	flags.BoolVar(&o.dry, "dry-run", false, "tell what would go, and change nothing")
	flags.BoolVar(&o.json, "json", false, "print one JSON object")
	flags.BoolP("help", "h", false, "show this")
	c.DisableFlagsInUseLine = true
	return c
}

// settings are those of the gateway, as far as they are given.
func (o *sweepOptions) settings(c *cobra.Command) (config.Settings, error) {
	given := make(map[string]string)
	for _, name := range [...]string{"store", "secret-file"} {
		if f := c.Flags().Lookup(name); f.Changed {
			given[name] = f.Value.String()
		}
	}
	s, err := config.Load(config.Sources{File: o.file, Flags: given})
	if s.Upstream == "" {
		s.Upstream = "http://127.0.0.1:3000" // nothing is asked of it
	}
	for name, text := range map[string]string{"journal": o.journal, "archive": o.archive, "share": o.share} {
		if text == "" {
			continue
		}
		if wrong := s.Lifecycle.Set(name, text); wrong != nil {
			err = errors.Join(err, fmt.Errorf("--%w", wrong))
		}
	}
	if s.Lifecycle.Share == 0 {
		s.Lifecycle.Share = 0.5
	}
	s.Lifecycle.Growth = -1
	return s, err
}

func (o *sweepOptions) run(c *cobra.Command) error {
	s, err := o.settings(c)
	if err != nil {
		return usageError{err}
	}
	composed, err := s.Gateway()
	if err != nil {
		return usageError{err}
	}
	ctx, stop := signal.NotifyContext(c.Context(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	store, err := readStore(ctx, s.Store) // it makes none
	if err != nil {
		return err
	}
	defer store.Close()
	if o.dry {
		return o.look(ctx, c.OutOrStdout(), store, &s)
	}
	if err := errors.Join(outlived(ctx, store, s.Lifecycle.Journal), store.Close()); err != nil {
		return err
	}
	if store, err = openStore(ctx, s.Store, "none"); err != nil {
		return err
	}
	defer store.Close()
	return o.sweep(ctx, c, store, &s, &composed)
}

// sweep makes one pass.
func (o *sweepOptions) sweep(ctx context.Context, c *cobra.Command, store *stores.Opened, s *config.Settings, composed *gateway.Config) error {
	if !can[semel.Sweeper](store) && s.Lifecycle.Journal == 0 {
		fmt.Fprintln(c.ErrOrStderr(), "Nothing to do: records end by themselves in this store.")
		return nil
	}
	log, _ := serving.Logger(c.ErrOrStderr(), "warn", "auto")
	secret, err := serving.Secret(s.SecretFile, log)
	if err != nil {
		return err
	}
	show, clear := sweepProgress(c.ErrOrStderr())
	guard, err := semel.NewGuard(upkeep.Count(store, show), semel.Options{Secret: secret})
	if err != nil {
		return err
	}
	if err := s.SetLifecycle(composed, guard); err != nil {
		return usageError{err}
	}
	composed.Lifecycle.Observe = func(e lifecycle.Event) {
		if e.Kind == lifecycle.Archived {
			clear()
			fmt.Fprintf(c.ErrOrStderr(), "%s: %s lines are in %s\n", e.Day.Format(time.DateOnly), upkeep.Grouped(e.Lines), e.Name)
		}
	}
	sweeper, err := lifecycle.New(guard, composed.Lifecycle)
	if err != nil {
		return err
	}
	pass, err := upkeep.Sweep(ctx, sweeper, o.wait, func() {
		fmt.Fprintf(c.ErrOrStderr(), "Another process sweeps this store at this moment; waiting for up to %s.\n", span(o.wait))
	})
	clear()
	if errors.Is(err, semel.ErrInProgress) {
		return errors.New("nothing was done: another process, such as a gateway, is sweeping this store, or was killed at it less than half a minute ago")
	}
	return errors.Join(err, o.print(c.OutOrStdout(), pass, err == nil), guard.Close(context.WithoutCancel(ctx)), store.Close())
}

// outlived refuses a journal that would end before keys do which the store has now.
func outlived(ctx context.Context, store semel.Store, journal time.Duration) error {
	if journal == 0 {
		return nil
	}
	g, err := lifecycle.Measure(ctx, store, lifecycle.MeasureOptions{})
	if err != nil {
		return err
	}
	const own = time.Hour // what a key with a time of its own may be kept longer
	if longest := g.Inflow.Longest; longest > journal+own {
		return usageError{fmt.Errorf("--journal %s: this store has keys that are remembered for %s, and what happened to them would be gone before they are; make it at least that", span(journal), span(longest))}
	}
	return nil
}

func (o *sweepOptions) print(w io.Writer, p lifecycle.Pass, whole bool) error {
	if o.json {
		return json.NewEncoder(w).Encode(struct {
			Swept    int     `json:"swept"`
			Batches  int     `json:"batches"`
			Drained  bool    `json:"drained"`
			Archived int     `json:"archived_days"`
			Lines    int64   `json:"archived_lines"`
			Dropped  int     `json:"dropped_days"`
			Seconds  float64 `json:"seconds"`
			Busy     float64 `json:"busy_seconds"`
		}{p.Swept, p.Batches, p.Drained, p.Archived, p.Lines, p.Dropped, p.Took.Seconds(), p.Busy.Seconds()})
	}
	parts := []string{upkeep.Grouped(int64(p.Swept)) + " records swept"}
	if p.Archived > 0 {
		parts = append(parts, fmt.Sprintf("%d days of the journal archived, with %s lines", p.Archived, upkeep.Grouped(p.Lines)))
	}
	if p.Dropped > 0 {
		parts = append(parts, fmt.Sprintf("%d days of the journal dropped", p.Dropped))
	}
	left := ""
	if !p.Drained || !whole {
		left = " There is more left."
	}
	_, err := fmt.Fprintf(w, "%s, in %s.%s\n", strings.Join(parts, ", "), span(p.Took), left)
	return err
}

// look tells what a pass would deal with.
func (o *sweepOptions) look(ctx context.Context, w io.Writer, store *stores.Opened, s *config.Settings) error {
	due, err := upkeep.Look(ctx, store, s.Lifecycle.Journal)
	if err != nil {
		return err
	}
	if o.json {
		return json.NewEncoder(w).Encode(due)
	}
	about := ""
	if due.Estimated {
		about = "about "
	}
	fmt.Fprintf(w, "%s%s keys would be forgotten.\n%s%s answers would be dropped, whose keys stay.\n", about, upkeep.Grouped(due.Forgotten), about, upkeep.Grouped(due.Emptied))
	if due.Overdue > 0 {
		fmt.Fprintf(w, "What waits longest has been due for %s.\n", span(time.Duration(due.Overdue*float64(time.Second))))
	}
	if n := len(due.Days); n > 0 {
		fmt.Fprintf(w, "%d days of the journal would be dropped: %s to %s.\n", n, due.Days[0], due.Days[n-1])
	}
	return nil
}

// sweepProgress gives a function that rewrites a line of a terminal, and one that
// takes it away.
func sweepProgress(w io.Writer) (show func(swept int64), clear func()) {
	if !serving.IsTerminal(w) {
		return func(int64) {}, func() {}
	}
	var last time.Time
	return func(swept int64) { // sweeps come one after the other
		if now := time.Now(); now.Sub(last) > 100*time.Millisecond {
			last = now
			fmt.Fprintf(w, "\r\x1b[K%s records swept", upkeep.Grouped(swept))
		}
	}, func() { fmt.Fprint(w, "\r\x1b[K") }
}
