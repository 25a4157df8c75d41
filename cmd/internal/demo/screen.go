package demo

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"charm.land/lipgloss/v2"
	"github.com/charmbracelet/colorprofile"
	"github.com/charmbracelet/x/ansi"
	"github.com/charmbracelet/x/term"

	"github.com/semelhq/semel/cmd/internal/storm"
)

// A snapshot is what the live view shows of a run at one moment.
type snapshot struct {
	storm.Tally
	since    time.Duration // since the run began
	asked    int           // payments that clients began to ask for
	planned  int
	charged  int // lines of the ledger
	kills    int
	outages  int // planned
	up       bool
	bypassed bool
}

func (b *bench) snapshot() snapshot {
	return snapshot{
		Tally: b.journal.Tally(), since: time.Since(b.began),
		asked: b.clients.Begun(), planned: b.options.Payments, charged: b.ledger.Lines(),
		kills: len(b.outages.killed()), outages: len(b.outages.planned), up: b.outages.up.Load(),
		bypassed: b.gateway == nil,
	}
}

// screen shows a run: a panel that is redrawn on a terminal, a line per second
// elsewhere. Nothing is told by a colour alone.
type screen struct {
	raw   io.Writer   // for moving the cursor
	out   io.Writer   // drops the colours that cannot be shown
	lost  func(error) // called when nothing can be shown any more
	live  bool
	width int

	mu      sync.Mutex
	name    string // of the phase
	began   time.Time
	lasts   time.Duration
	drawn   int // lines of the panel
	last    snapshot
	lastAt  time.Time
	perSec  float64
	stopped chan struct{}
	ended   chan struct{}
}

const (
	redraw     = 100 * time.Millisecond
	plainEvery = time.Second
	maxWidth   = 100
)

func newScreen(out io.Writer, environ []string, lost func(error)) *screen {
	s := &screen{raw: out, out: colorprofile.NewWriter(out, environ), lost: lost, width: 80, lastAt: time.Now()}
	file, ok := out.(*os.File)
	if !ok || !term.IsTerminal(file.Fd()) || slices.Contains(environ, "TERM=dumb") {
		return s
	}
	s.live = true
	if width, _, err := term.GetSize(file.Fd()); err == nil && width > 0 {
		s.width = min(width, maxWidth)
	}
	return s
}

// The few styles there are: what matters, what is good, what is bad, what is
// beside the point.
func strong(text string) string { return lipgloss.NewStyle().Bold(true).Render(text) }
func faint(text string) string  { return lipgloss.NewStyle().Faint(true).Render(text) }
func good(text string) string {
	return lipgloss.NewStyle().Bold(true).Foreground(lipgloss.Green).Render(text)
}

func bad(text string) string {
	return lipgloss.NewStyle().Bold(true).Foreground(lipgloss.Red).Render(text)
}

func odd(text string) string {
	return lipgloss.NewStyle().Bold(true).Foreground(lipgloss.Yellow).Render(text)
}

func (s *screen) println(lines ...string) {
	for _, line := range lines {
		s.write(s.out, strings.TrimRight(line, " ")+"\n")
	}
}

func (s *screen) write(w io.Writer, text string) {
	if _, err := io.WriteString(w, text); err != nil {
		s.lost(fmt.Errorf("the output has no reader: %w", err))
	}
}

// opening says what is about to happen, to somebody who has never heard of it.
func (s *screen) opening(o Options) {
	s.println("", " "+strong("semel demo")+"   a payment that is asked for many times must be made once", "")
	if o.Bypass {
		s.println(
			"   clients ──────▶ lossy network ──────▶ payment API ──────▶ ledger",
			faint("   ask again       loses requests        charges each        one line"),
			faint("   until told      and answers           time it is called   per charge"),
			"", " "+odd("--bypass")+": the same storm, with nothing in between", "",
		)
		return
	}
	s.println(
		"   clients ───▶ lossy network ───▶ semel gateway ───▶ payment API ───▶ ledger",
		faint("   ask again    loses requests     killed (-9) and    charges each     one line"),
		faint("   until told   and answers        restarted          time it is       per"),
		faint("                                   three times        called           charge"), "",
	)
}

// phase begins a part of the run that takes about so long.
func (s *screen) phase(name string, lasts time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.name, s.began, s.lasts = name, time.Now(), lasts
}

// follow shows snapshots until stop is called, which shows the last one.
func (s *screen) follow(take func() snapshot) (stop func()) {
	s.stopped, s.ended = make(chan struct{}), make(chan struct{})
	every := plainEvery
	if s.live {
		every = redraw
		s.write(s.raw, ansi.HideCursor)
	}
	go func() {
		defer close(s.ended)
		ticker := time.NewTicker(every)
		defer ticker.Stop()
		for {
			select {
			case <-ticker.C:
				s.show(take())
			case <-s.stopped:
				s.phase("ended", 0)
				s.show(take())
				return
			}
		}
	}()
	var once sync.Once
	return func() { once.Do(func() { close(s.stopped); <-s.ended }) }
}

// close leaves the terminal as it was.
func (s *screen) close() {
	if s.live {
		s.write(s.raw, ansi.ShowCursor)
	}
}

func (s *screen) show(now snapshot) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if passed := time.Since(s.lastAt); passed >= plainEvery || !s.live && passed >= plainEvery/2 {
		s.perSec = float64(now.Requests-s.last.Requests) / passed.Seconds()
		s.last, s.lastAt = now, time.Now()
	}
	if !s.live {
		s.println(s.line(now))
		return
	}
	panel := s.panel(now)
	if s.drawn > 0 {
		s.write(s.raw, ansi.CursorUp(s.drawn))
	}
	for _, line := range panel {
		s.write(s.out, ansi.Truncate(line, s.width, "…"))
		s.write(s.raw, ansi.EraseLineRight+"\r\n")
	}
	s.drawn = len(panel)
}

// line is a snapshot for pipes and logs.
func (s *screen) line(n snapshot) string {
	text := fmt.Sprintf(" %4.1fs %-8s %6d requests, %4.0f/s · %d payments asked for, %d charges · %d replayed · %d lost · %d refused",
		n.since.Seconds(), s.name, n.Requests, s.perSec, n.asked, n.charged, n.Replayed, n.Lost, n.InProgress+n.Mismatch+n.Unknown+n.Otherwise)
	if !n.bypassed {
		text += fmt.Sprintf(" · gateway %s, killed %d times", upOrDown(n.up), n.kills)
	}
	return text
}

func upOrDown(up bool) string {
	if up {
		return "up"
	}
	return "down"
}

// panel is a snapshot for people: always the same number of lines.
func (s *screen) panel(n snapshot) []string {
	field := func(label string, parts ...string) string {
		return fmt.Sprintf("   %s %s", faint(fmt.Sprintf("%-9s", label)), strings.Join(parts, faint(" · ")))
	}
	gateway := good("up")
	if !n.up {
		gateway = bad("down: killed with -9, is being restarted")
	}
	lines := []string{
		field(s.name, s.bar(), fmt.Sprintf("%.1f s", n.since.Seconds())),
		field("requests", number(n.Requests), fmt.Sprintf("%.0f/s", s.perSec), number(n.Lost)+" without an answer"),
		field("payments", fmt.Sprintf("%s of %s asked for", number(n.asked), number(n.planned)), strong(number(n.charged)+" charged")),
	}
	if n.bypassed {
		return append(lines, "")
	}
	return append(
		lines,
		field("answers", number(n.Replayed)+" replayed: asked again, told the same, nothing run"),
		field("refused", number(n.InProgress)+" in progress", number(n.Mismatch)+" other body", number(n.Unknown)+" unknown"),
		field("gateway", gateway, fmt.Sprintf("killed %d of %d times", n.kills, n.outages)),
		"",
	)
}

// bar is how much of the phase has passed.
func (s *screen) bar() string {
	const cells = 30
	part := 1.0
	if s.lasts > 0 {
		part = min(1, time.Since(s.began).Seconds()/s.lasts.Seconds())
	}
	full := int(part * cells)
	return strings.Repeat("█", full) + faint(strings.Repeat("░", cells-full))
}

// number groups thousands.
func number(n int) string {
	text := strconv.Itoa(n)
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}
