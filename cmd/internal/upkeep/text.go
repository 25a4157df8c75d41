package upkeep

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// Style is how text is made for whoever reads it.
type Style struct {
	// Bold marks a heading.
	Bold func(string) string
	// Scope gives a scope in words.
	Scope func(string) string
	// Width is how many columns a scope may have; 0: as many as it takes.
	Width int
	// Span gives a time in words.
	Span func(time.Duration) string
}

// Text gives the report for people, in 80 columns if the scopes allow it.
func (r *Report) Text(s Style) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s  %s\n\n", s.Bold(r.Store), r.At.Local().Format("2006-01-02 15:04:05"))
	line := func(name, value, more string) {
		b.WriteString(strings.TrimRight(fmt.Sprintf("  %-15s %12s  %s", name, value, more), " ") + "\n")
	}
	about := ""
	if r.Estimated {
		about = "estimated"
	}
	line("records", Grouped(r.Records), about)
	each := ""
	if r.BytesPerRecord != nil && r.Records > 0 {
		each = fmt.Sprintf("%s each, with indexes", Bytes(int64(*r.BytesPerRecord)))
	}
	line("size", bytesOf(r.Bytes), each)
	line("journal", bytesOf(r.JournalBytes), "")
	line("oldest pending", r.age(r.PendingSeconds, s), "")
	line("sweeper behind", r.age(r.LagSeconds, s), "")
	since := ""
	if r.Over < 86400 {
		since = kept("by the last ", r.Over, s)
	}
	line("new per day", Grouped(r.digits(r.NewPerDay)), strings.Join(without("", r.plusMinus(r.NewPerDayError), since), ", "))
	line("", "", strings.Join(without("", kept("remembered for ", r.Remember, s), kept("answers for ", r.Replay, s)), ", "))
	f := r.Forecast
	until := "as now"
	if f.WithinSeconds >= 1 {
		until = "in " + s.Span(seconds(f.WithinSeconds))
	}
	kept := ""
	if f.Remember != nil {
		kept = "if remembered for " + s.Span(seconds(*f.Remember))
	}
	size := ""
	if f.Bytes != nil {
		size = Bytes(*f.Bytes)
	}
	line("at this rate", Grouped(r.digits(float64(f.Records))), strings.Join(without("", r.plusMinus(float64(f.RecordsError)), size, until, kept), ", "))
	r.table(&b, s)
	b.WriteString(r.sample())
	return b.String()
}

// age gives a time, where the store can tell it.
func (r *Report) age(secs float64, s Style) string {
	switch {
	case secs > 0:
		return s.Span(seconds(secs))
	case r.Bytes == nil: // it cannot measure
		return "not known"
	}
	return "none"
}

// table lists the scopes.
func (r *Report) table(b *strings.Builder, s Style) {
	if len(r.Scopes) == 0 {
		return
	}
	names := make([]string, 0, len(r.Scopes)+1)
	width := len("SCOPE")
	all := r.Scopes
	for i := range all {
		name := s.Scope(all[i].Scope)
		if runes := []rune(name); s.Width > 0 && len(runes) > s.Width {
			name = string(runes[:s.Width-1]) + "…"
		}
		names = append(names, name)
	}
	if r.Others != nil {
		all = append(all[:len(all):len(all)], *r.Others)
		names = append(names, "all others")
	}
	for _, name := range names {
		width = max(width, utf8.RuneCountInString(name))
	}
	pad := func(text string) string { return text + strings.Repeat(" ", width-utf8.RuneCountInString(text)) }
	fmt.Fprintf(b, "\n%s\n", s.Bold(fmt.Sprintf("%s %12s %7s %9s %11s", pad("SCOPE"), "RECORDS", "SHARE", "SIZE", "NEW PER DAY")))
	for i := range all {
		of := &all[i]
		fmt.Fprintf(b, "%s %12s %6.1f%% %9s %11s\n", pad(names[i]), Grouped(r.digits(float64(of.Records))), 100*of.Share, bytesOf(of.Bytes), Grouped(r.digits(of.NewPerDay)))
	}
}

// sample says how far the figures may be off.
func (r *Report) sample() string {
	switch {
	case r.Sampled == 0:
		return ""
	case r.Complete:
		return fmt.Sprintf("\nAll %s records were looked at.\n", Grouped(int64(r.Sampled)))
	}
	most := 0.0
	for i := range r.Scopes {
		most = max(most, r.Scopes[i].ShareError)
	}
	return fmt.Sprintf("\nFrom a sample of %s records: a scope's share is right within %.1f points\n(95 %%), and one with less than %.2g %% of all may be missing.\n", Grouped(int64(r.Sampled)), 100*most, 100*r.Unseen)
}

func (r *Report) plusMinus(x float64) string {
	if x < 0.5 {
		return ""
	}
	return "± " + Grouped(r.digits(x))
}

// digits keeps of a number from a sample three digits: it has no more.
func (r *Report) digits(x float64) int64 {
	if r.Complete || x < 1000 {
		return whole(x)
	}
	unit := math.Pow(10, math.Floor(math.Log10(x))-2)
	return whole(math.Round(x/unit) * unit)
}

func kept(what string, secs float64, s Style) string {
	if secs < 1 {
		return ""
	}
	return what + s.Span(seconds(secs))
}

func without(not string, all ...string) (out []string) {
	for _, text := range all {
		if text != not {
			out = append(out, text)
		}
	}
	return out
}

func bytesOf(n *int64) string {
	if n == nil {
		return "not known"
	}
	return Bytes(*n)
}

// Bytes gives a size in three digits or so.
func Bytes(n int64) string {
	if n < 1<<10 {
		return strconv.FormatInt(n, 10) + " B"
	}
	x, units := float64(n)/(1<<10), [...]string{"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"}
	for _, unit := range units {
		if x < 1000 || unit == "EiB" {
			if x < 10 {
				return fmt.Sprintf("%.1f %s", x, unit)
			}
			return fmt.Sprintf("%.0f %s", x, unit)
		}
		x /= 1 << 10
	}
	return ""
}

// Grouped gives a number with commas.
func Grouped(n int64) string {
	text := strconv.FormatInt(n, 10)
	for i := len(text) - 3; i > 0 && text[i-1] != '-'; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}

func whole(x float64) int64 {
	if x >= math.MaxInt64 {
		return math.MaxInt64
	}
	return int64(math.Round(x))
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }
