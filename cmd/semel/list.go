package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/cmd/internal/config"
	"github.com/semelhq/semel/cmd/internal/serving"
	"github.com/semelhq/semel/cmd/internal/stores"
	"github.com/semelhq/semel/cmd/internal/upkeep"
	"github.com/semelhq/semel/lifecycle"
)

type listOptions struct {
	store, state, scope, after string
	limit                      int
	growth                     bool
	remember                   string
	json                       bool
}

// isOurs tells a record that a program has for itself, such as the claim of whoever
// sweeps, from one of an operation.
func isOurs(r *semel.Record) bool { return strings.HasPrefix(r.Key.Scope, "semel|") }

const (
	defaultLimit = 100
	maxLimit     = 100_000
)

func listCommand() *cobra.Command {
	var o listOptions
	c := &cobra.Command{
		Use:   "list [flags]",
		Short: "which keys are remembered, and in which state",
		Long: `List the keys that are remembered, with their state:

  pending    it is running now, or its class lets the next request take over
  done       it ran; repetitions get its answer
  released   it ended without any effect; the next request runs it
  in-doubt   it was started and nobody knows whether it ran: look at these

With --growth it tells how much there is instead: records, bytes, what waits, what
comes in, and what that will come to, by scopes.

It only reads; a gateway may be running. Records come ordered by digest.`,
		Example: `  semel list --state in-doubt
  semel list --growth --remember 30d
  semel list --limit 1000 --json | jq -r '.records[].key'`,
		Args: checked(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			if o.growth {
				return o.runGrowth(c)
			}
			return o.run(c)
		},
	}
	flags := c.Flags()
	addStore(flags, &o.store)
	flags.StringVar(&o.state, "state", "", "only this `STATE`: pending, done, released, in-doubt")
	flags.StringVar(&o.scope, "scope", "", "only keys of this `SCOPE`, as shown, or the part of it before a |")
	flags.IntVar(&o.limit, "limit", defaultLimit, "at most `N` keys")
	flags.StringVar(&o.after, "after", "", "go on after this `DIGEST`, the last one of the page before")
	flags.BoolVar(&o.growth, "growth", false, "tell how much there is, and what it will come to")
	flags.StringVar(&o.remember, "remember", "", "with --growth: if keys were remembered for this `TIME`")
	flags.BoolVar(&o.json, "json", false, "print one JSON object")
	flags.BoolP("help", "h", false, "show this")
	c.DisableFlagsInUseLine = true
	return c
}

// filter checks the flags.
func (o *listOptions) filter() (semel.Filter, error) {
	var f semel.Filter
	switch o.state {
	case "":
	case "pending":
		f.State = semel.Pending
	case "done":
		f.State = semel.Done
	case "released":
		f.State = semel.Released
	case "in-doubt":
		f.InDoubt = true
	default:
		return f, fmt.Errorf("--state %s: there are pending, done, released and in-doubt", quote(o.state))
	}
	if o.limit < 1 || o.limit > maxLimit {
		return f, fmt.Errorf("--limit %d: take 1 to %d, and --after for more", o.limit, maxLimit)
	}
	if o.after != "" {
		var err error
		if f.After, err = semel.ParseDigest(o.after); err != nil {
			return f, fmt.Errorf("--after %s: a digest has 64 hexadecimal digits", quote(o.after))
		}
	}
	return f, nil
}

func (o *listOptions) run(c *cobra.Command) error {
	filter, err := o.filter()
	if o.remember != "" {
		err = errors.Join(err, errors.New("--remember belongs to --growth"))
	}
	if err != nil {
		return usageError{err}
	}
	store, err := readStore(c.Context(), o.store)
	if err != nil {
		return err
	}
	defer store.Close()
	now, err := clock(c.Context(), store)
	if err != nil {
		return err
	}
	l := lister{store: store, filter: filter, scope: o.scope, keep: func(r *semel.Record) bool {
		// What is in doubt is pending for the store; what a gateway has in it for
		// itself is nobody's operation.
		return (o.state != "pending" || !r.InDoubt(now)) && (o.scope != "" || !isOurs(r))
	}}
	records, more, damaged := l.page(c.Context(), o.limit)
	if damaged != nil && !errors.Is(damaged, semel.ErrDamaged) {
		return damaged
	}
	if o.json {
		err = o.printJSON(c, records, more, now)
	} else {
		o.print(c, records, more, now)
	}
	return errors.Join(damaged, err)
}

func (o *listOptions) printJSON(c *cobra.Command, records []semel.Record, more bool, now time.Time) error {
	out := struct {
		Records []recordJSON `json:"records"`
		Next    string       `json:"next,omitempty"` // for --after; empty on the last page
	}{Records: []recordJSON{}}
	for i := range records {
		out.Records = append(out.Records, newRecordJSON(&records[i], now))
	}
	if more {
		out.Next = records[len(records)-1].Digest.String()
	}
	return json.NewEncoder(c.OutOrStdout()).Encode(out)
}

func (o *listOptions) print(c *cobra.Command, records []semel.Record, more bool, now time.Time) {
	p := newPaper(c.OutOrStdout())
	if len(records) == 0 {
		fmt.Fprintln(c.ErrOrStderr(), "No such keys.")
		return
	}
	var rows [][]string
	for i := range records {
		r := &records[i]
		whole, step, isStep := splitStep(r.Key.Scope)
		who, operation, _ := splitScope(whole)
		if isStep {
			operation = "step " + step + " of " + operation
		}
		status := ""
		if r.State == semel.Done {
			status = fmt.Sprint(r.Code)
		}
		key := printable(r.Key.ID)
		if r.Key.ID == "" {
			key = r.Digest.String()
		}
		if operation == "" {
			operation = "-"
		}
		rows = append(rows, []string{
			cell(p, key, 36), stateWord(r, now), status, fmt.Sprint(r.Attempt), span(now.Sub(r.WrittenAt)), cell(p, printable(who), 12), printable(operation),
		})
	}
	p.table([]string{"KEY", "STATE", "STATUS", "TRIES", "AGE", "SCOPE", "REQUEST"}, rows, func(column int, row []string, text string) string {
		if column == 1 {
			return p.state(row[1], text)
		}
		return text
	})
	if more {
		fmt.Fprintf(c.ErrOrStderr(), "%d shown, and there are more: --limit N, or --after %s\n", len(records), records[len(records)-1].Digest)
	}
}

// topScopes is how many scopes are told one by one.
const topScopes = 10

// runGrowth tells how much the store holds.
func (o *listOptions) runGrowth(c *cobra.Command) error {
	for _, name := range [...]string{"state", "scope", "limit", "after"} {
		if c.Flags().Changed(name) {
			return usageError{fmt.Errorf("--%s is for a list of keys, and --growth is about all of them; leave one of them away", name)}
		}
	}
	var remember time.Duration
	if o.remember != "" {
		var err error
		if remember, err = config.ParseDuration(o.remember); err != nil {
			return usageError{fmt.Errorf("--remember: %w", err)}
		}
	}
	store, err := readStore(c.Context(), o.store)
	if err != nil {
		return err
	}
	defer store.Close()
	g, err := lifecycle.Measure(c.Context(), store, lifecycle.MeasureOptions{Scopes: topScopes})
	if err != nil {
		return err
	}
	report := upkeep.NewReport(store.URL, &g, remember)
	if o.json {
		return json.NewEncoder(c.OutOrStdout()).Encode(report)
	}
	p := newPaper(c.OutOrStdout())
	style := upkeep.Style{Bold: p.bold, Span: span, Scope: scopeInWords}
	if serving.IsTerminal(p.Writer) {
		style.Width = columns - 43
	}
	_, err = fmt.Fprint(p, report.Text(style))
	return err
}

// scopeInWords is whose it is, and which operation.
func scopeInWords(scope string) string {
	whole, step, isStep := splitStep(scope)
	who, operation, _ := splitScope(whole)
	if isStep {
		operation = "step " + step + " of " + operation
	}
	if operation == "" {
		return printable(scope)
	}
	return shorten(printable(who), 12) + " " + printable(operation)
}

// cell shortens what stands in a terminal; programs get all of it.
func cell(p paper, text string, width int) string {
	if !serving.IsTerminal(p.Writer) {
		return text
	}
	return shorten(text, width)
}

// lister reads pages of a store and filters what the store does not.
type lister struct {
	store  *stores.Opened
	filter semel.Filter
	scope  string
	keep   func(*semel.Record) bool
}

// page gives up to limit records and whether there are more. Damaged records
// are left out and are told in an error that is semel.ErrDamaged.
func (l *lister) page(ctx context.Context, limit int) (out []semel.Record, more bool, err error) {
	store, ok := semel.As[semel.Lister](l.store.Store)
	if !ok {
		return nil, false, errors.New("this store cannot list its records")
	}
	filter := l.filter
	filter.Limit = limit + 1
	var damaged error
	for {
		records, err := store.List(ctx, filter)
		if err != nil && !errors.Is(err, semel.ErrDamaged) {
			return nil, false, err
		}
		damaged = errors.Join(damaged, err)
		for i := range records {
			r := &records[i]
			if !inScope(r, l.scope) || l.keep != nil && !l.keep(r) {
				continue
			}
			if len(out) == limit {
				return out, true, damaged
			}
			out = append(out, *r)
		}
		if len(records) < filter.Limit {
			return out, false, damaged
		}
		filter.After = records[len(records)-1].Digest
	}
}
