package main

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/cmd/internal/stores"
)

type getOptions struct {
	store, scope string
	json         bool
}

func getCommand() *cobra.Command {
	var o getOptions
	c := &cobra.Command{
		Use:   "get KEY… [flags]",
		Short: "did this key run: one record and what happened to it",
		Long: `Show what is remembered of a key: whether it ran, who asked, and each step on the
way. KEY is an idempotency key as clients send it, without quotes, or a digest of
64 hexadecimal digits from a log. It only reads; a gateway may be running.

Exit code 1 means that nothing is remembered of a key.`,
		Example: `  semel get 8e03978e-40d5-43dd-bc93-6894a57f9324
  semel get order-17 --store sqlite:/var/lib/semel/semel.db --json`,
		Args: checked(func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return errors.New("which key? give one or more")
			}
			return nil
		}),
		RunE: func(c *cobra.Command, args []string) error { return o.run(c, args) },
	}
	flags := c.Flags()
	addStore(flags, &o.store)
	flags.StringVar(&o.scope, "scope", "", "only keys of this `SCOPE`, as shown, or the part of it before a |")
	flags.BoolVar(&o.json, "json", false, "print one JSON object")
	flags.BoolP("help", "h", false, "show this")
	c.DisableFlagsInUseLine = true
	return c
}

// found is one record with its history.
type found struct {
	record  semel.Record
	history []semel.Entry
}

func (o *getOptions) run(c *cobra.Command, keys []string) error {
	store, err := readStore(c.Context(), o.store)
	if err != nil {
		return err
	}
	defer store.Close()
	now, err := clock(c.Context(), store)
	if err != nil {
		return err
	}
	var all []found
	var missing []string
	var damaged error
	for _, key := range keys {
		some, err := find(c.Context(), store, key, o.scope)
		damaged = errors.Join(damaged, err)
		if err != nil && !errors.Is(err, semel.ErrDamaged) {
			return err
		}
		if len(some) == 0 && err == nil {
			missing = append(missing, key)
		}
		all = append(all, some...)
	}
	if o.json {
		err = o.printJSON(c, all, missing, now)
	} else {
		p := newPaper(c.OutOrStdout())
		for i, f := range all {
			if i > 0 {
				fmt.Fprintln(p)
			}
			p.record(&f, now)
		}
	}
	for _, key := range missing {
		in := ""
		if o.scope != "" {
			in = " in scope " + quote(o.scope)
		}
		fmt.Fprintf(c.ErrOrStderr(), "semel: nothing is remembered of the key %s%s in %s: no request with it was accepted, or it has expired, or its gateway uses another store\n", printable(key), in, store.URL)
	}
	if err = errors.Join(damaged, err); err == nil && len(missing) > 0 {
		return errTold
	}
	return err
}

// find finds the records of a key in all scopes, or the one of a digest. With an
// error that is semel.ErrDamaged come those that can be read.
func find(ctx context.Context, store *stores.Opened, key, scope string) ([]found, error) {
	var records []semel.Record
	var damaged error
	if digest, err := semel.ParseDigest(key); err == nil {
		held, err := store.Get(ctx, digest)
		if damaged = err; err != nil && !errors.Is(err, semel.ErrDamaged) {
			return nil, err
		}
		if held.Record.Held() && inScope(&held.Record, scope) {
			records = append(records, held.Record)
		}
	}
	l := lister{store: store, filter: semel.Filter{ID: key}, scope: scope}
	more, _, err := l.page(ctx, maxFound)
	if damaged = errors.Join(damaged, err); err != nil && !errors.Is(err, semel.ErrDamaged) {
		return nil, err
	}
	var out []found
	for _, r := range append(records, more...) {
		f := found{record: r}
		if journal, ok := semel.As[semel.Journal](store.Store); ok {
			f.history, err = journal.History(ctx, r.Digest)
			damaged = errors.Join(damaged, err)
		}
		out = append(out, f)
	}
	return out, damaged
}

// maxFound is how many scopes with the same key are shown.
const maxFound = 100

// inScope tells whether a record is of a scope, or of the one whose first parts
// are given.
func inScope(r *semel.Record, scope string) bool {
	return scope == "" || r.Key.Scope == scope || strings.HasPrefix(r.Key.Scope, scope+"|")
}

func (o *getOptions) printJSON(c *cobra.Command, all []found, missing []string, now time.Time) error {
	out := struct {
		Records []recordJSON `json:"records"`
		Missing []string     `json:"missing"`
	}{[]recordJSON{}, append([]string{}, missing...)}
	for _, f := range all {
		r := newRecordJSON(&f.record, now)
		r.History = history(f.history)
		out.Records = append(out.Records, r)
	}
	return json.NewEncoder(c.OutOrStdout()).Encode(out)
}

// record prints a record for somebody who was woken up for it.
func (p paper) record(f *found, now time.Time) {
	r := &f.record
	name := printable(r.Key.ID)
	if r.Key.ID == "" {
		name = "(the key itself is not kept)"
	}
	fmt.Fprintf(p, "%s  %s\n", p.bold(name), p.state(stateWord(r, now), verdict(r, now)))
	line := func(name, text string) {
		if text != "" {
			fmt.Fprintf(p, "  %s %s\n", p.faint(fmt.Sprintf("%-9s", name)), text)
		}
	}
	whole, step, isStep := splitStep(r.Key.Scope)
	who, operation, source := splitScope(whole)
	if operation != "" {
		line("request", printable(operation))
	}
	line("scope", printable(who))
	if isStep {
		line("step", step+" of this operation"+stepName(r))
	}
	if source == "content" {
		line("key", "derived from the content")
	}
	if r.InDoubt(now) {
		u := r.Unresolved()
		line("policy", u.Policy)
		if len(u.Memo) > 0 {
			line("memo", shorten(printable(string(u.Memo)), maxMemo))
		}
	}
	if r.State == semel.Done {
		line("answer", fmt.Sprintf("status %d, %d bytes kept", r.Code, len(r.Result)))
	}
	line("attempts", fmt.Sprint(r.Attempt))
	line("class", r.Class.String())
	line("owner", printable(r.Owner))
	if r.State != semel.Pending {
		line("forgotten", stamp(r.Expires())+", in "+span(r.Expires().Sub(now)))
	}
	line("digest", r.Digest.String())
	if text := advice(r, now); text != "" {
		fmt.Fprintf(p, "\n%s\n", text)
	}
	if len(f.history) == 0 {
		fmt.Fprintln(p, "\nThe journal of this store says nothing about it.")
		return
	}
	fmt.Fprintln(p)
	p.timeline(f.history)
}

func (p paper) timeline(entries []semel.Entry) {
	var rows [][]string
	var last time.Time
	for _, e := range history(entries) {
		after := ""
		if !last.IsZero() {
			after = "+" + span(e.At.Sub(last))
		}
		last = e.At
		status := ""
		if e.Status != 0 {
			status = fmt.Sprint(e.Status)
		}
		rows = append(rows, []string{stamp(e.At), after, e.What, fmt.Sprint(e.Attempts), status, printable(e.Owner)})
	}
	p.table([]string{"WHEN", "AFTER", "WHAT", "ATTEMPT", "STATUS", "BY"}, rows, func(_ int, _ []string, text string) string { return text })
}

// maxMemo is how much of a memo people are shown.
const maxMemo = 200

// stepName gives what the operation calls a step, after a comma: its result begins
// with the name's length and the name. It is empty for one whose result is not kept.
func stepName(r *semel.Record) string {
	n, width := binary.Uvarint(r.Result)
	if width <= 0 || n > uint64(len(r.Result)-width) {
		return ""
	}
	return ", " + printable(string(r.Result[width:width+int(n)]))
}

// splitStep takes the scope of a step's record apart: its operation's scope, and
// the step's number in it.
func splitStep(scope string) (whole, number string, ok bool) {
	parts := scopeParts(scope)
	if len(parts) != 3 || parts[1] != "step" || parts[2] == "" || strings.Trim(parts[2], "0123456789") != "" {
		return scope, "", false
	}
	return parts[0], parts[2], true
}

// stamp gives a time in the reader's time zone, to the millisecond.
func stamp(t time.Time) string { return t.Local().Format("2006-01-02 15:04:05.000") }

// splitScope takes the scope that package semelhttp makes apart: whose key it is,
// what the request does, and whether the key was sent or derived. Another's scope
// is all "who".
func splitScope(scope string) (who, operation, source string) {
	parts := scopeParts(scope)
	n := len(parts)
	if n < 3 || parts[n-1] != "key" && parts[n-1] != "content" {
		return scope, "", ""
	}
	if n == 3 {
		return parts[0], parts[1], parts[2]
	}
	return parts[0], strings.Join(parts[1:n-1], " "), parts[n-1]
}

// scopeParts undoes semel.JoinScope.
func scopeParts(scope string) []string {
	var parts []string
	var part strings.Builder
	for i := 0; i < len(scope); i++ {
		switch c := scope[i]; {
		case c == '\\' && i+1 < len(scope):
			i++
			part.WriteByte(scope[i])
		case c == '|':
			parts = append(parts, part.String())
			part.Reset()
		default:
			part.WriteByte(c)
		}
	}
	return append(parts, part.String())
}
