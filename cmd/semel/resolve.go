package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/cmd/internal/stores"
	"github.com/semelhq/semel/semelhttp"
)

type resolveOptions struct {
	store, scope, done, contentType, form, who, why string
	status                                          int
	notDone, json                                   bool
	replay, remember                                time.Duration
}

func resolveCommand() *cobra.Command {
	var o resolveOptions
	c := &cobra.Command{
		Use:   "resolve KEY (--done FILE | --not-done) --why TEXT [flags]",
		Short: "settle a key that is in doubt, once you know what happened",
		Long: `Say what became of an operation of which nobody knew whether it ran. First look
where its effect would be: the provider, the ledger, the upstream's database. Then

  --done FILE   it ran: FILE has the body that it should have answered, - is the
                standard input. Repetitions get it from now on, for good.
  --not-done    it did not run, and cannot any more: the next repetition runs it.

KEY is as for semel get; name a key that is in several scopes by its digest. Who
and why stay in the record and in the journal. Gateways may be running.

Exit code 1 means that nothing was settled: the key is not in doubt, or unknown.`,
		Example: `  semel resolve order-42 --not-done --why "no charge at the provider, case 881"
  semel resolve order-42 --done answer.json --status 201 --who anna \
    --why "charge ch_5 is in the ledger"`,
		Args: checked(func(_ *cobra.Command, args []string) error {
			switch len(args) {
			case 0:
				return errors.New("which key? give one")
			case 1:
				return nil
			}
			return fmt.Errorf("one key at a time, and here are %d; put a key or a text with spaces in quotes", len(args))
		}),
		RunE: func(c *cobra.Command, args []string) error { return o.run(c, args[0]) },
	}
	flags := c.Flags()
	addStore(flags, &o.store)
	flags.StringVar(&o.done, "done", "", "it ran: `FILE` has the answer's body, - for standard input")
	flags.BoolVar(&o.notDone, "not-done", false, "it did not run: the next repetition runs it")
	flags.StringVar(&o.why, "why", "", "how you know, in a `TEXT` for whoever asks later")
	flags.StringVar(&o.who, "who", os.Getenv("USER"), "`NAME` of who says so")
	flags.IntVar(&o.status, "status", http.StatusOK, "HTTP `STATUS` of the answer")
	flags.StringVar(&o.contentType, "content-type", "", "media `TYPE` of the answer; else guessed from FILE")
	flags.StringVar(&o.form, "form", "", "`FORM` of FILE: http, a body, or raw, the stored result byte for byte; else guessed from the scope")
	flags.StringVar(&o.scope, "scope", "", "only a key of this `SCOPE`, as shown, or the part of it before a |")
	flags.DurationVar(&o.replay, "replay", 24*time.Hour, "`TIME` for which repetitions get the answer")
	flags.DurationVar(&o.remember, "remember", 72*time.Hour, "`TIME` for which the key is remembered; take the route's")
	flags.BoolVar(&o.json, "json", false, "print one JSON object")
	flags.BoolP("help", "h", false, "show this")
	c.DisableFlagsInUseLine = true
	return c
}

// check looks at the flags.
func (o *resolveOptions) check(c *cobra.Command) error {
	given := c.Flags().Changed
	switch {
	case given("done") == o.notDone:
		return errors.New("say what happened: --done FILE, or --not-done; if you do not know yet, leave the key as it is")
	case strings.TrimSpace(o.why) == "":
		return errors.New(`say how you know: --why "charge ch_5 is in the ledger"; it is what an audit finds later`)
	case strings.TrimSpace(o.who) == "":
		return errors.New("say who you are: --who NAME; USER is not set")
	case o.notDone && (given("status") || given("content-type") || given("form")):
		return errors.New("--status, --content-type and --form describe an answer, and --not-done has none")
	case o.form != "" && o.form != "http" && o.form != "raw":
		return fmt.Errorf("--form %s: there are http and raw", quote(o.form))
	case o.form == "raw" && given("content-type"):
		return errors.New("--form raw stores the bytes as they are, without a --content-type")
	case given("status") && (o.status < 200 || o.status > 599):
		return fmt.Errorf("--status %d: an answer has a status from 200 to 599", o.status)
	}
	if said := len(o.who) + len(o.why); said > maxSaid {
		return fmt.Errorf("--who and --why have %d bytes together, and %d are kept: name the case, and tell the story there", said, maxSaid)
	}
	if o.replay > o.remember {
		return fmt.Errorf("--remember %v is shorter than --replay %v: the key would be forgotten before its answer, and run again; make --remember at least as long", o.remember, o.replay)
	}
	if _, err := o.policy(0); err != nil {
		return fmt.Errorf("--replay %v and --remember %v do not do: %s", o.replay, o.remember, strings.ReplaceAll(err.Error(), "semel: ", ""))
	}
	return nil
}

// maxSaid is what a settlement keeps of who said so and why, in bytes.
const maxSaid = 1 << 10

// policy is the retention that the settled key gets.
func (o *resolveOptions) policy(size int) (semel.Policy, error) {
	return semel.Policy{Name: "resolve", Replay: o.replay, Remember: o.remember, MaxResult: max(size, 1)}.Filled()
}

// maxAnswer bounds an answer that a person gives, in bytes: what is longer is
// more likely to be the wrong file.
const maxAnswer = 16 << 20

func (o *resolveOptions) run(c *cobra.Command, key string) error {
	if err := o.check(c); err != nil {
		return usageError{err}
	}
	before, now, err := o.target(c, key)
	if err != nil {
		return err
	}
	settlement := semel.Settlement{State: semel.Released, Version: before.Version, Who: o.who, Why: o.why}
	if !o.notDone {
		settlement.State = semel.Done
		if settlement.Result, err = o.result(c, before); err != nil {
			return err
		}
	}
	policy, err := o.policy(len(settlement.Result.Data))
	if err != nil {
		return err
	}
	store, err := openStore(c.Context(), o.store, "none")
	if err != nil {
		return err
	}
	defer store.Close()
	after, err := semel.Resolve(c.Context(), store, before.Digest, settlement, &policy)
	if err != nil {
		return fmt.Errorf("the key %s was not settled: %w; `semel get %[1]s` shows what is held", printable(key), err)
	}
	f := found{record: after}
	if journal, ok := semel.As[semel.Journal](store.Store); ok {
		f.history, err = journal.History(c.Context(), after.Digest)
	}
	return errors.Join(err, o.print(c, before, &f, now))
}

// target finds the record to settle, and the store's clock.
func (o *resolveOptions) target(c *cobra.Command, key string) (*semel.Record, time.Time, error) {
	store, err := readStore(c.Context(), o.store)
	if err != nil {
		return nil, time.Time{}, err
	}
	defer store.Close()
	now, err := clock(c.Context(), store)
	if err != nil {
		return nil, time.Time{}, err
	}
	held, err := o.candidates(c.Context(), store, key)
	switch {
	case err != nil:
		return nil, now, err
	case len(held) == 0:
		return nil, now, fmt.Errorf("nothing is remembered of the key %s in %s, so there is nothing to settle: look at the store and the scope that its gateway uses", printable(key), store.URL)
	case len(held) > 1:
		p := newPaper(c.ErrOrStderr())
		var rows [][]string
		for _, r := range held {
			who, operation, _ := splitScope(r.Key.Scope)
			rows = append(rows, []string{r.Digest.String(), stateWord(r, now), printable(who), printable(operation)})
		}
		p.table([]string{"DIGEST", "STATE", "SCOPE", "REQUEST"}, rows, func(_ int, _ []string, text string) string { return text })
		return nil, now, usageError{fmt.Errorf("%d scopes have the key %s: give the digest of the one that you mean in its place", len(held), printable(key))}
	}
	return held[0], now, refusal(held[0], now)
}

// candidates gives the operations with the key; their steps are none.
func (o *resolveOptions) candidates(ctx context.Context, store *stores.Opened, key string) ([]*semel.Record, error) {
	all, err := find(ctx, store, key, o.scope)
	var out []*semel.Record
	for i := range all {
		if _, _, step := splitStep(all[i].record.Key.Scope); !step || all[i].record.Digest.String() == key {
			out = append(out, &all[i].record)
		}
	}
	return out, err
}

// refusal says why a record is not to be settled, and what to do.
func refusal(r *semel.Record, now time.Time) error {
	name := printable(r.Key.ID)
	switch {
	case r.State == semel.Done:
		return fmt.Errorf("the key %s is done with the status %d, and an outcome does not change; `semel get %[1]s` shows it", name, r.Code)
	case r.State == semel.Released:
		return fmt.Errorf("the key %s is free already: its last attempt had no effect, and the next repetition runs it", name)
	case now.Before(r.Expires()):
		return fmt.Errorf("the key %s is in progress: %s works on it, and its lease lasts another %s; if that process is gone, ask again then", name, printable(r.Owner), span(r.Expires().Sub(now)))
	}
	return nil
}

// result gives what FILE stands for.
func (o *resolveOptions) result(c *cobra.Command, r *semel.Record) (semel.Result, error) {
	form := o.form
	if form == "" {
		parts := scopeParts(r.Key.Scope)
		switch _, operation, _ := splitScope(r.Key.Scope); {
		case operation == "":
			return semel.Result{}, usageError{fmt.Errorf("the scope %s is not one of an HTTP handler: add --form raw if FILE is the result as its program stores it, byte for byte, or --form http if it is an HTTP body after all", printable(r.Key.Scope))}
		case len(parts) == 3 && strings.HasPrefix(operation, "/"):
			return semel.Result{}, usageError{fmt.Errorf("the operation %s looks like a gRPC method: add --form raw if FILE is the result as its server stores it, byte for byte, or --form http if it is an HTTP route", printable(operation))}
		}
		form = "http"
	}
	var in io.Reader = c.InOrStdin()
	if o.done != "-" {
		file, err := os.Open(o.done)
		if err != nil {
			return semel.Result{}, fmt.Errorf("the answer cannot be read: %w", err)
		}
		defer file.Close()
		in = file
	}
	body, err := io.ReadAll(io.LimitReader(in, maxAnswer+1))
	switch {
	case err != nil:
		return semel.Result{}, fmt.Errorf("the answer cannot be read: %w", err)
	case len(body) > maxAnswer:
		return semel.Result{}, fmt.Errorf("%s is longer than %d MiB: is it the right file?", o.done, maxAnswer>>20)
	case form == "raw":
		return semel.Result{Code: o.status, Data: body}, nil
	}
	answer := semelhttp.Answer{Status: o.status, Body: body, Header: make(http.Header)}
	if kind := o.media(body); kind != "" {
		answer.Header.Set("Content-Type", kind)
	}
	return answer.Result()
}

// media tells the type of the body.
func (o *resolveOptions) media(body []byte) string {
	switch kind := mime.TypeByExtension(filepath.Ext(o.done)); {
	case o.contentType != "":
		return o.contentType
	case len(body) == 0:
		return ""
	case kind != "":
		return kind
	case json.Valid(body):
		return "application/json"
	}
	return http.DetectContentType(body)
}

func (o *resolveOptions) print(c *cobra.Command, before *semel.Record, after *found, now time.Time) error {
	now = now.Add(time.Millisecond) // the record's own time may be that much later
	if o.json {
		out := struct {
			Before recordJSON `json:"before"`
			After  recordJSON `json:"after"`
		}{newRecordJSON(before, now), newRecordJSON(&after.record, now)}
		out.After.History = history(after.history)
		return json.NewEncoder(c.OutOrStdout()).Encode(out)
	}
	p := newPaper(c.OutOrStdout())
	fmt.Fprintf(p, "%s  %s\n%s  %s\n\n", p.faint("before "), p.state(stateWord(before, now), verdict(before, now)),
		p.faint("settled"), printable(after.record.Owner))
	p.record(after, after.record.WrittenAt)
	return nil
}
