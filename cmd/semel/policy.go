package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"slices"
	"strings"
	"syscall"

	"charm.land/lipgloss/v2"
	"github.com/spf13/cobra"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/cmd/internal/config"
	"github.com/semelhq/semel/cmd/internal/stores"
	"github.com/semelhq/semel/lifecycle"
)

func policyCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "policy VERB",
		Short: "check and show what the settings of a gateway promise",
		Args:  checked(cobra.NoArgs),
		RunE:  func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(policyCheckCommand(), policyShowCommand())
	return c
}

type policyCheckOptions struct {
	store   string
	offline bool
	json    bool
}

func policyCheckCommand() *cobra.Command {
	var o policyCheckOptions
	c := &cobra.Command{
		Use:   "check FILE [flags]",
		Short: "judge a gateway's times by what is known of its clients",
		Long: `Judge the settings of a gateway: how long keys are locked, waited for, replayed
and remembered, against how long clients try, what stands between, how long the
service takes, and what the store is. All of that is in the gateway's own file,
under "assumptions". What is unsafe is refused, as the gateway does when it
starts; and for each number it says what is safe, and why.

The store is opened to look at its settings; no key is touched.`,
		Example: `  semel policy check semel.yaml
  semel policy check semel.yaml --offline --json | jq '.advice[]'`,
		Args: checked(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, args []string) error { return o.run(c, args[0]) },
	}
	c.DisableFlagsInUseLine = true
	flags := c.Flags()
	flags.StringVar(&o.store, "store", "", "`URL` of the store to look at, in place of the file's")
	flags.BoolVar(&o.offline, "offline", false, "do not look at the store; what the file says of it counts")
	flags.BoolVar(&o.json, "json", false, "print one JSON object")
	flags.BoolP("help", "h", false, "show this")
	c.Annotations = map[string]string{footerKey: "\nExit codes: 0 nothing is refused, 1 something is, 2 the file or a flag is wrong.\n"}
	return c
}

func (o *policyCheckOptions) run(c *cobra.Command, path string) error {
	if o.offline && o.store != "" {
		return usageError{errors.New("--offline looks at no store, and --store names one; leave one of them away")}
	}
	settings, err := config.Load(config.Sources{File: path})
	if err != nil {
		return usageError{err}
	}
	if o.store != "" {
		settings.Store = o.store
	}
	if err := stores.Check(settings.Store, stores.Options{Cache: "none"}); err != nil {
		return usageError{err}
	}
	if settings.Upstream == "" {
		settings.Upstream = "http://127.0.0.1:3000" // it may come from a flag, and nothing is asked of it
	}
	seen := storeSeen{URL: stores.Redacted(settings.Store), Why: "--offline"}
	var facts lifecycle.StoreFacts
	if !o.offline {
		facts, seen = lookAt(c.Context(), settings.Store)
	}
	report := lifecycle.Lint(settings.Facts(facts))
	if _, err := settings.Gateway(); err != nil && !refusesPolicy(&report) {
		return usageError{err} // of something else than numbers
	}
	shown := newPolicyReport(path, &settings, seen, report)
	if o.json {
		err = json.NewEncoder(c.OutOrStdout()).Encode(shown)
	} else {
		err = shown.print(newPaper(c.OutOrStdout()))
	}
	if err == nil && report.Refused() {
		err = errTold
	}
	return err
}

// judge refuses what the linter refuses, and logs what it warns of; what is about the
// store itself is told where the store is, as cautions. Without a log it only refuses.
func judge(s *config.Settings, store lifecycle.StoreFacts, log *slog.Logger) error {
	report := lifecycle.Lint(s.Facts(store))
	if err := s.Refuse(&report); err != nil {
		return usageError{fmt.Errorf("%w\n\n`semel policy check FILE` tells more about each", err)}
	}
	for _, f := range report.Findings {
		if log != nil && f.Level == lifecycle.Warning && f.Field != "store" {
			log.Warn(f.Sentence(), "route", f.Policy)
		}
	}
	return nil
}

// refusesPolicy tells whether a report has what makes a policy itself invalid, or the
// sweeper's settings, which are then refused by them as well.
func refusesPolicy(report *lifecycle.Report) bool {
	for _, f := range report.Findings {
		switch f.Rule {
		case "lease-short", "replay-negative", "remember-below-replay", "remember-below-lease", "policy", "journal-short":
			return true
		}
	}
	return false
}

// storeSeen says whether the store was looked at.
type storeSeen struct {
	URL    string `json:"url"`
	Looked bool   `json:"looked"`
	// Why it was not looked at, or else what it gives.
	Why string `json:"why"`
}

// lookAt opens a store and reads what it tells of itself.
func lookAt(ctx context.Context, url string) (lifecycle.StoreFacts, storeSeen) {
	seen := storeSeen{URL: stores.Redacted(url)}
	open := readStore
	if strings.HasPrefix(url, "memory:") { // there is none to read, and to make one costs nothing
		open = func(ctx context.Context, url string) (*stores.Opened, error) { return openStore(ctx, url, "none") }
	}
	store, err := open(ctx, url)
	if err != nil {
		text := strings.Join(strings.Fields(err.Error()), " ")
		seen.Why = "it could not be opened"
		switch {
		case errors.Is(err, os.ErrNotExist):
			seen.Why = "there is none yet; a gateway makes it"
			return lifecycle.StoreFacts{}, seen
		case unreachable(err):
			return lifecycle.StoreFacts{Unreachable: text}, seen
		}
		return lifecycle.StoreFacts{Refused: text}, seen
	}
	defer store.Close()
	seen.Looked, seen.Why = true, store.Durability
	return storeFacts(store), seen
}

// storeFacts are what an open store tells of itself.
func storeFacts(store *stores.Opened) lifecycle.StoreFacts {
	_, described := semel.As[semel.Describer](store.Store)
	return lifecycle.StoreFacts{Known: described, Description: store.Description, NoJournal: !store.Journal}
}

// unreachable tells whether an error is of the way to a store, and not of the store.
func unreachable(err error) bool {
	var dial *net.OpError
	var name *net.DNSError
	return errors.As(err, &dial) || errors.As(err, &name) || errors.Is(err, context.DeadlineExceeded) ||
		errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, semel.ErrUnavailable)
}

// policyReport is what `semel policy check` prints.
type policyReport struct {
	File     string             `json:"file"`
	Store    storeSeen          `json:"store"`
	Refusals int                `json:"refusals"`
	Warnings int                `json:"warnings"`
	Notes    int                `json:"notes"`
	Findings []foundJSON        `json:"findings"`
	Advice   []lifecycle.Advice `json:"advice"`
}

// foundJSON is a finding with its place in the file, if it has one.
type foundJSON struct {
	lifecycle.Finding
	Line   int `json:"line,omitempty"`
	Column int `json:"column,omitempty"`
}

func newPolicyReport(path string, s *config.Settings, seen storeSeen, report lifecycle.Report) policyReport {
	out := policyReport{File: path, Store: seen, Findings: []foundJSON{}, Advice: report.Advice}
	for _, f := range report.Findings {
		line, column := s.Place(f)
		out.Findings = append(out.Findings, foundJSON{f, line, column})
		switch f.Level {
		case lifecycle.Refusal:
			out.Refusals++
		case lifecycle.Warning:
			out.Warnings++
		default:
			out.Notes++
		}
	}
	return out
}

// columns is how wide text for people is made.
const columns = 80

func (r *policyReport) print(p paper) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s, %s, %s\n", printable(r.File), counted(r.Refusals, "refusal"), counted(r.Warnings, "warning"), counted(r.Notes, "note"))
	looked := "not looked at: " + r.Store.Why
	if r.Store.Looked {
		looked = r.Store.Why
	}
	indented(&b, "", printable(r.Store.URL)+", "+looked)
	for _, same := range together(r.Findings, func(a, b foundJSON) bool { a.Policy, a.Line, a.Column = b.Policy, b.Line, b.Column; return a == b }) {
		r.printFinding(&b, p, same)
	}
	for _, same := range byPolicy(r.Advice) {
		fmt.Fprintf(&b, "\n%s\n", p.bold("Safe for "+strings.Join(same.policies, ", ")))
		for _, a := range same.advice {
			to := a.Safe.String()
			if a.Safe != a.Have {
				to = p.bold(a.Have.String() + " -> " + to)
			}
			fmt.Fprintf(&b, "  %-9s %s\n", a.Field, to)
			indented(&b, strings.Repeat(" ", 12), a.Why)
		}
	}
	_, err := fmt.Fprint(p, b.String())
	return err
}

// printFinding prints findings that differ by their policies alone as one.
func (r *policyReport) printFinding(b *strings.Builder, p paper, same []foundJSON) {
	f := same[0]
	style := map[lifecycle.Level]lipgloss.Style{
		lifecycle.Refusal: lipgloss.NewStyle().Foreground(lipgloss.Red).Bold(true),
		lifecycle.Warning: lipgloss.NewStyle().Foreground(lipgloss.Yellow).Bold(true),
		lifecycle.Note:    lipgloss.NewStyle().Foreground(lipgloss.Cyan),
	}[f.Level]
	word := map[lifecycle.Level]string{lifecycle.Refusal: "REFUSED", lifecycle.Warning: "warning", lifecycle.Note: "note"}[f.Level]
	what := f.Field
	if f.Have != "" {
		what += " is " + f.Have
	}
	if f.Need != "" {
		what += map[bool]string{true: ", has to be ", false: ", should be "}[f.Level == lifecycle.Refusal] + f.Need
	}
	fmt.Fprintf(b, "\n%s  %s", p.paint(fmt.Sprintf("%-7s", word), style), p.bold(what))
	fmt.Fprintf(b, "\n%s\n", p.faint(strings.Repeat(" ", 9)+r.where(same)+"rule "+f.Rule))
	indented(b, strings.Repeat(" ", 9), f.Why)
	if f.Do != "" {
		indented(b, strings.Repeat(" ", 7)+"> ", f.Do)
	}
}

// where gives the place of a finding, and the policies that it is about.
func (r *policyReport) where(same []foundJSON) string {
	var places []string
	for _, f := range same {
		place := printable(f.Policy)
		switch {
		case f.Line > 0 && f.Policy == "":
			place = fmt.Sprintf("line %d", f.Line)
		case f.Line > 0:
			place += fmt.Sprintf(" (line %d)", f.Line)
		case f.Policy == "":
			continue
		}
		places = append(places, place)
	}
	if len(places) > 3 {
		places = append(places[:2], fmt.Sprintf("%d more routes", len(places)-2))
	}
	return strings.Join(append(places, ""), ", ")
}

// advised are numbers that several policies have in common.
type advised struct {
	policies []string
	advice   []lifecycle.Advice
}

// byPolicy puts policies together that get the same advice.
func byPolicy(all []lifecycle.Advice) []advised {
	var each []advised
	for _, a := range all {
		name := "all routes"
		if a.Policy != "" {
			name = printable(a.Policy)
		}
		a.Policy = ""
		if len(each) == 0 || each[len(each)-1].policies[0] != name {
			each = append(each, advised{policies: []string{name}})
		}
		last := &each[len(each)-1]
		last.advice = append(last.advice, a)
	}
	var out []advised
	for _, e := range each {
		i := slices.IndexFunc(out, func(o advised) bool { return slices.Equal(o.advice, e.advice) })
		if i < 0 {
			out = append(out, e)
			continue
		}
		out[i].policies = append(out[i].policies, e.policies...)
	}
	return out
}

// together groups what is the same, in the order of the first of each.
func together[T any](all []T, same func(a, b T) bool) [][]T {
	var out [][]T
	for _, v := range all {
		i := slices.IndexFunc(out, func(group []T) bool { return same(group[0], v) })
		if i < 0 {
			out = append(out, []T{v})
			continue
		}
		out[i] = append(out[i], v)
	}
	return out
}

// indented writes text in lines that begin below each other, after head.
func indented(b *strings.Builder, head, text string) {
	for _, line := range wrap(text, columns-len(head)) {
		b.WriteString(head + line + "\n")
		head = strings.Repeat(" ", len(head))
	}
}

func counted(n int, word string) string {
	if n == 1 {
		return "1 " + word
	}
	return fmt.Sprintf("%d %ss", n, word)
}
