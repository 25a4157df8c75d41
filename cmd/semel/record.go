package main

import (
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"
	"unicode"

	"charm.land/lipgloss/v2"
	"github.com/charmbracelet/x/term"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/cmd/internal/serving"
)

// recordJSON is a record as --json prints it. Fields are added, never renamed.
type recordJSON struct {
	Key        string      `json:"key,omitempty"`
	Scope      string      `json:"scope,omitempty"`
	Digest     string      `json:"digest"`
	State      string      `json:"state"` // pending, done, released, in-doubt
	Class      string      `json:"class"`
	Attempts   int         `json:"attempts"`
	Status     int         `json:"status,omitempty"`
	Version    string      `json:"version"`
	Owner      string      `json:"owner,omitempty"`
	WrittenAt  time.Time   `json:"written_at"`
	ExpiresAt  time.Time   `json:"expires_at"`
	ReplayTill *time.Time  `json:"replay_until,omitempty"`
	Bytes      int         `json:"result_bytes"`
	Policy     string      `json:"policy,omitempty"` // of what is in doubt
	Memo       []byte      `json:"memo,omitempty"`   // the same, in base64
	History    []entryJSON `json:"history,omitempty"`
}

// entryJSON is one transition of a record.
type entryJSON struct {
	At       time.Time `json:"at"`
	What     string    `json:"what"`
	State    string    `json:"state"`
	Attempts int       `json:"attempts"`
	Status   int       `json:"status,omitempty"`
	Version  string    `json:"version"`
	Owner    string    `json:"owner,omitempty"`
	Until    time.Time `json:"expires_at"`
}

func newRecordJSON(r *semel.Record, now time.Time) recordJSON {
	out := recordJSON{
		Key: r.Key.ID, Scope: r.Key.Scope, Digest: r.Digest.String(), State: stateWord(r, now), Class: r.Class.String(),
		Attempts: r.Attempt, Status: r.Code, Version: r.Version.String(), Owner: r.Owner,
		WrittenAt: r.WrittenAt.UTC(), ExpiresAt: r.Expires().UTC(), Bytes: len(r.Result),
	}
	if r.State == semel.Pending { // what it has there is for its resolver
		out.Bytes = 0
	}
	if r.InDoubt(now) {
		u := r.Unresolved()
		out.Policy, out.Memo = u.Policy, u.Memo
	}
	if r.State == semel.Done && r.Replay > 0 {
		until := r.WrittenAt.Add(r.Replay).UTC()
		out.ReplayTill = &until
	}
	return out
}

// stateWord is the state in one word, the one that --state takes.
func stateWord(r *semel.Record, now time.Time) string {
	if r.InDoubt(now) {
		return "in-doubt"
	}
	return r.State.String()
}

// verdict says whether it ran, in words.
func verdict(r *semel.Record, now time.Time) string {
	switch {
	case r.InDoubt(now):
		return fmt.Sprintf("in doubt: it was started and nobody knows whether it ran; its lease ended %s ago", span(now.Sub(r.Expires())))
	case r.State == semel.Pending && !now.Before(r.Expires()):
		return fmt.Sprintf("it was started, and its lease ended %s ago; the next request runs it again (%s)", span(now.Sub(r.Expires())), r.Class)
	case r.State == semel.Pending:
		return fmt.Sprintf("running: it was started %s ago, and its lease lasts another %s", span(now.Sub(r.WrittenAt)), span(r.Expires().Sub(now)))
	case r.State == semel.Released:
		return "it did not run, or ran without effect; the next request with this key runs it"
	case r.Replay == 0:
		return "done: it ran once; its answer was not kept (too long, or a stream)"
	case now.Before(r.WrittenAt.Add(r.Replay)):
		return fmt.Sprintf("done: it ran once; repetitions get its answer for another %s", span(r.WrittenAt.Add(r.Replay).Sub(now)))
	}
	return "done: it ran once; its answer is no longer kept"
}

// advice says what a person can do next; empty if there is nothing to do.
func advice(r *semel.Record, now time.Time) string {
	if !r.InDoubt(now) {
		return ""
	}
	return "Look in the upstream for the effect of this key. Repetitions are refused (409) and\n" +
		"run nothing until it is settled: if the effect is there, by semel resolve --done,\n" +
		"and if it is not, and cannot come any more, by semel resolve --not-done."
}

// what names one transition, given the one before.
func what(before, e *semel.Record) string {
	switch {
	case settled(before, e) && e.State == semel.Done:
		return "settled as done"
	case settled(before, e):
		return "settled as not done"
	case e.State == semel.Done:
		return "finished"
	case e.State == semel.Released:
		return "released without effect"
	case before == nil:
		return "claimed"
	case before.State == semel.Pending && before.Attempt == e.Attempt && e.TTL <= time.Millisecond:
		return "ended, outcome unknown"
	case before.State == semel.Pending && before.Attempt == e.Attempt:
		return "lease extended"
	}
	return "claimed again"
}

// settled tells a person's or a resolver's word, which has its reason with it,
// from an operation's own end.
func settled(before, e *semel.Record) bool {
	return before != nil && before.State == semel.Pending && e.State != semel.Pending &&
		!e.WrittenAt.Before(before.Expires()) && strings.Contains(e.Owner, ": ")
}

func history(entries []semel.Entry) []entryJSON {
	var out []entryJSON
	var before *semel.Record
	for i := range entries {
		r := &entries[i].Record
		out = append(out, entryJSON{
			At: r.WrittenAt.UTC(), What: what(before, r), State: r.State.String(), Attempts: r.Attempt, Status: r.Code,
			Version: r.Version.String(), Owner: r.Owner, Until: r.Expires().UTC(),
		})
		before = r
	}
	return out
}

// paper is where people read: it knows whether colours are wanted.
type paper struct {
	io.Writer
	styled bool
}

func newPaper(w io.Writer) paper {
	return paper{w, serving.IsTerminal(w) && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"}
}

func (p paper) paint(text string, style lipgloss.Style) string {
	if !p.styled {
		return text
	}
	return style.Render(text)
}

func (p paper) bold(text string) string  { return p.paint(text, lipgloss.NewStyle().Bold(true)) }
func (p paper) faint(text string) string { return p.paint(text, lipgloss.NewStyle().Faint(true)) }

// state paints a word by what it asks of the reader.
func (p paper) state(word, text string) string {
	colour := map[string]lipgloss.Style{
		"in-doubt": lipgloss.NewStyle().Foreground(lipgloss.Yellow).Bold(true),
		"done":     lipgloss.NewStyle().Foreground(lipgloss.Green),
		"pending":  lipgloss.NewStyle().Foreground(lipgloss.Cyan),
	}
	style, ok := colour[word]
	if !ok {
		return text
	}
	return p.paint(text, style)
}

// width is that of the terminal, or 0 if there is none.
func (p paper) width() int {
	f, ok := p.Writer.(*os.File)
	if !ok {
		return 0
	}
	width, _, err := term.GetSize(f.Fd())
	if err != nil {
		return 0
	}
	return width
}

// table prints rows in columns as wide as needed; on a terminal the last one is
// cut off where the line ends.
func (p paper) table(head []string, rows [][]string, style func(column int, row []string, text string) string) {
	widths := make([]int, len(head))
	for _, row := range append([][]string{head}, rows...) {
		for i, cell := range row {
			widths[i] = max(widths[i], lipgloss.Width(cell))
		}
	}
	left := p.width()
	for _, w := range widths[:len(widths)-1] {
		left -= w + 2
	}
	print := func(row []string, paint func(int, string) string) {
		var b strings.Builder
		for i, cell := range row {
			if i == len(row)-1 {
				if left > 1 {
					cell = shorten(cell, left)
				}
				b.WriteString(paint(i, cell))
				break
			}
			padding := widths[i] - lipgloss.Width(cell) + 2
			b.WriteString(paint(i, cell) + strings.Repeat(" ", padding))
		}
		fmt.Fprintln(p, strings.TrimRight(b.String(), " "))
	}
	print(head, func(_ int, text string) string { return p.faint(text) })
	for _, row := range rows {
		print(row, func(i int, text string) string { return style(i, row, text) })
	}
}

// quote gives text that strangers chose in a form that no terminal obeys.
func quote(text string) string { return strconv.Quote(text) }

// printable gives text as it is if it is harmless and has no spaces at its
// ends, else quoted.
func printable(text string) string {
	odd := func(r rune) bool { return !unicode.IsPrint(r) || r == '"' || r == unicode.ReplacementChar }
	if text == "" || strings.TrimSpace(text) != text || strings.ContainsFunc(text, odd) {
		return quote(text)
	}
	return text
}

// shorten cuts text to at most width runes.
func shorten(text string, width int) string {
	runes := []rune(text)
	if len(runes) <= width {
		return text
	}
	return string(runes[:width-1]) + "…"
}

// span gives a length of time in one or two units, for people.
func span(d time.Duration) string {
	d = d.Abs()
	const day = 24 * time.Hour
	switch {
	case d < time.Second:
		return fmt.Sprintf("%dms", d.Milliseconds())
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return units(d, time.Minute, "m", time.Second, "s")
	case d < day:
		return units(d, time.Hour, "h", time.Minute, "m")
	}
	return units(d, day, "d", time.Hour, "h")
}

func units(d, big time.Duration, bigName string, small time.Duration, smallName string) string {
	text := fmt.Sprintf("%d%s", d/big, bigName)
	if rest := d % big / small; rest > 0 {
		text += fmt.Sprintf(" %d%s", rest, smallName)
	}
	return text
}
