package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/semelhq/semel/cmd/internal/demo"
)

func demoCommand() *cobra.Command {
	o := demo.Options{Payments: 500, Storm: 15 * time.Second}
	var asJSON bool
	c := &cobra.Command{
		Use:   "demo [flags]",
		Short: "a payment API, a lossy network and a retry storm, with a live report",
		Long: `See it work, in about 20 seconds. Starts a small payment API, a gateway in front
of it as a process of its own, and a network that loses requests and answers.
Then clients ask for each payment many times, while the gateway is killed with
-9 and started again. At the end the API's ledger is held against what the
clients were told: no payment made twice, none lost, none told to a stranger;
and those of which nobody can know how they ended, named.

Afterwards all of it stays up for you to try, until Ctrl-C. It listens on the
loopback interface only and leaves nothing behind.`,
		Example: `  semel demo                 watch it, then try the three curl lines it prints
  semel demo --bypass        the same storm without Semel: payments made twice
  semel demo --exit --json   for scripts: one JSON object, exit code 1 if a
                             payment was doubled, lost or leaked`,
		Args: checked(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			o.Out, o.Environ = c.OutOrStdout(), os.Environ()
			if asJSON {
				o.JSON, o.Out = c.OutOrStdout(), c.ErrOrStderr()
			}
			return runDemo(o)
		},
	}
	f := c.Flags()
	f.BoolVar(&o.Exit, "exit", false, "end after the report")
	f.BoolVar(&asJSON, "json", false, "print one JSON object and end; progress goes to standard error")
	f.BoolVar(&o.Bypass, "bypass", false, "leave the gateway out, to see what it is for; ends after the report")
	f.Uint64Var(&o.Seed, "seed", 0, "draw payments, copies, kills and losses from `N`; how they interleave stays open (default: a new one each time)")
	f.IntVar(&o.Payments, "payments", o.Payments, "ask for `N` payments, or for what a slow machine gets done of them in the time")
	f.DurationVar(&o.Storm, "storm", o.Storm, "keep the storm up for `TIME`, 2s to 20s")
	f.BoolP("help", "h", false, "show this")
	c.DisableFlagsInUseLine = true
	return c
}

func runDemo(o demo.Options) error {
	switch {
	case o.Payments < 2 || o.Payments > 5000:
		return usageError{fmt.Errorf("--payments %d: the demo takes 2 to 5000", o.Payments)}
	case o.Storm < 2*time.Second || o.Storm > 20*time.Second:
		return usageError{fmt.Errorf("--storm %v: the demo takes 2s to 20s", o.Storm)}
	}
	var err error
	if o.Binary, err = os.Executable(); err != nil {
		return fmt.Errorf("the demo starts this program as the gateway, and cannot find it: %w", err)
	}
	// Whoever reads the output may leave: then the demo ends in good order, and
	// not by a signal that leaves its directory behind.
	signal.Ignore(syscall.SIGPIPE)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	defer context.AfterFunc(ctx, stop)() // a second Ctrl-C does not wait
	report, err := demo.Run(ctx, o)
	switch {
	case errors.Is(err, context.Canceled) && ctx.Err() != nil:
		return errors.New("the demo was interrupted; what it started has ended")
	case err != nil:
		return err
	case !report.OK:
		return errTold
	}
	return nil
}
