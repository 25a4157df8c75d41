package main

import (
	"fmt"
	"slices"
	"strings"

	"charm.land/lipgloss/v2"

	"github.com/semelhq/semel/cmd/internal/config"
	"github.com/semelhq/semel/lifecycle"
)

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
