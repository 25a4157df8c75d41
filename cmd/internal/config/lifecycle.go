package config

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml/token"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/gateway"
	"github.com/semelhq/semel/lifecycle"
	"github.com/semelhq/semel/store/memory"
)

// Lifecycle is the block of that name: how the store is kept small. What is 0 is the
// default of package lifecycle.
type Lifecycle struct {
	Every   time.Duration
	Lease   time.Duration
	Share   float64
	Journal time.Duration // 0: for ever
	Archive string        // a directory; empty: nowhere
	Growth  time.Duration // negative: never
}

// kept is the prefix of such a setting's name where settings have names, too.
const kept = "lifecycle."

// lifecycleFields are in the file only, under lifecycle.
func lifecycleFields() []Field {
	span := func(name string, place func(l *Lifecycle) *time.Duration) Field {
		return Field{Name: name, set: parsed(above, func(s *Settings, _ *Route) *time.Duration { return place(&s.Lifecycle) })}
	}
	return []Field{
		span("every", func(l *Lifecycle) *time.Duration { return &l.Every }),
		span("lease", func(l *Lifecycle) *time.Duration { return &l.Lease }),
		{Name: "share", set: parsed(parseShare, func(s *Settings, _ *Route) *float64 { return &s.Lifecycle.Share })},
		span("journal", func(l *Lifecycle) *time.Duration { return &l.Journal }),
		{Name: "archive", set: parsed(asIs, func(s *Settings, _ *Route) *string { return &s.Lifecycle.Archive })},
		{Name: "growth", set: parsed(parseGrowth, func(s *Settings, _ *Route) *time.Duration { return &s.Lifecycle.Growth })},
	}
}

// parseShare reads 0.1 and 10%.
func parseShare(text string) (float64, error) {
	number, percent := strings.CutSuffix(text, "%")
	share, err := strconv.ParseFloat(number, 64)
	if percent {
		share /= 100
	}
	if err != nil || !(share > 0 && share <= 1) {
		return 0, fmt.Errorf("%q is no part of the time; write it as 0.1 or 10%%, at most 100%%", text)
	}
	return share, nil
}

func parseGrowth(text string) (time.Duration, error) {
	if text == "none" {
		return -1, nil
	}
	return above(text)
}

// readLifecycle reads the block.
func (f *file) readLifecycle(s *Settings, e entry) {
	own := Route{at: make(map[string]*token.Token)}
	fields := lifecycleFields()
	for _, e := range f.entries(f.mapping(e.value, "settings of how the store is kept small, such as `journal: 90d`")) {
		f.set(e, fields, s, &own, "under lifecycle")
	}
	s.Default.at[strings.TrimSuffix(kept, ".")] = e.at
	for name, at := range own.at {
		s.Default.at[kept+name] = at
	}
}

// options gives the block as package lifecycle takes it, without the archive.
func (l *Lifecycle) options() lifecycle.Options {
	return lifecycle.Options{Every: l.Every, Lease: l.Lease, Share: l.Share, Journal: l.Journal, Growth: l.Growth}
}

// daily is a store that can do whatever is asked of one here: what is wrong then, is
// so with every store.
type daily struct {
	*memory.Store
	days
}

// days is semel.Days under a name that is not that of its method.
type days interface{ semel.Days }

// unopened stands for an archive that is not looked at yet.
type unopened struct{ lifecycle.Archive }

// checkLifecycle tells what is wrong with the block whatever the store is.
func (s *Settings) checkLifecycle(c *gateway.Config) ([]problem, error) {
	guard, err := semel.NewGuard(daily{Store: memory.New(memory.Options{})}, semel.Options{})
	if err != nil {
		return nil, err
	}
	o := s.Lifecycle.options()
	if s.Lifecycle.Archive != "" {
		o.Archive = unopened{}
	}
	return s.refused(guard, o, c), nil
}

// SetLifecycle gives c, which Gateway made, what the block says, and opens the archive.
// guard is that of the store. Its error tells the line.
func (s *Settings) SetLifecycle(c *gateway.Config, guard *semel.Guard) error {
	c.Lifecycle = s.Lifecycle.options()
	f := file{path: s.Source}
	if s.Lifecycle.Archive != "" {
		var err error
		if c.Lifecycle.Archive, err = lifecycle.Directory(s.Lifecycle.Archive); err != nil {
			f.refuse(s.Default.at[kept+"archive"], "lifecycle: %s", strings.TrimPrefix(err.Error(), "lifecycle: "))
		}
	}
	if c.Lifecycle.Journal > 0 || c.Lifecycle.Archive != nil { // else the store can do without a sweeper
		f.problems = append(f.problems, s.refused(guard, c.Lifecycle, c)...)
	}
	return f.all(nil)
}

// refused tells what package lifecycle refuses, each with its place.
func (s *Settings) refused(guard *semel.Guard, o lifecycle.Options, c *gateway.Config) []problem {
	for i := range c.Routes {
		p := c.Routes[i].Options.Policy
		if _, err := p.Filled(); err == nil { // else it was told
			o.Policies = append(o.Policies, &p)
		}
	}
	_, err := lifecycle.New(guard, o)
	if err == nil {
		return nil
	}
	var out []problem
	for text := range strings.SplitSeq(err.Error(), "\n") {
		text = strings.TrimPrefix(text, "lifecycle: ")
		at := s.placeKept(text)
		text = strings.NewReplacer("set Journal to", "set journal to", "leave Journal away", "leave journal away").Replace(text)
		if p := (problem{at, "lifecycle: " + text}); !slices.Contains(out, p) {
			out = append(out, p)
		}
	}
	return out
}

// placeKept finds the setting of the block that a message mentions first.
func (s *Settings) placeKept(message string) *token.Token {
	for word := range strings.FieldsSeq(strings.ToLower(message)) {
		if at := s.Default.at[kept+strings.Trim(word, ":;,")]; at != nil {
			return at
		}
	}
	return s.Default.at[strings.TrimSuffix(kept, ".")]
}

// retain fills in what a level, the top or a route, leaves open of the two
// retentions: by its own tier, or else from the level above.
func (r *Route) retain(above *Route) {
	if r.tier == nil {
		if r.Replay == 0 {
			r.Replay = above.Replay
		}
		if r.Remember == 0 {
			r.Remember = above.Remember
		}
		return
	}
	if r.Replay == 0 {
		r.at["replay"] = r.at["tier"]
	}
	if r.Remember == 0 {
		r.at["remember"] = r.at["tier"]
	}
	p := r.tier.Apply(semel.Policy{Replay: r.Replay, Remember: r.Remember})
	r.Replay, r.Remember = p.Replay, p.Remember
}

func parseTier(text string) (*lifecycle.Tier, error) {
	t, err := lifecycle.ParseTier(text)
	if err != nil {
		return nil, errors.New(strings.TrimPrefix(err.Error(), "lifecycle: "))
	}
	return &t, nil
}

// OwnRetentions counts the routes that keep something for another time than the top.
func (s *Settings) OwnRetentions() int {
	n := 0
	for _, r := range s.Routes {
		if r.Replay != s.Default.Replay || r.Remember != s.Default.Remember {
			n++
		}
	}
	return n
}

// Set sets one setting of the block as the file would.
func (l *Lifecycle) Set(name, text string) error {
	for _, field := range lifecycleFields() {
		if field.Name != name {
			continue
		}
		s := Settings{Lifecycle: *l}
		if err := field.set(&s, nil, text); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		*l = s.Lifecycle
		return nil
	}
	return fmt.Errorf("there is no setting %q under lifecycle", name)
}
