package config

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml/token"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/lifecycle"
)

// assumed is the prefix of an assumption's name where settings have names, too.
const assumed = "assumptions."

// assumptionFields are in the file only, under assumptions.
func assumptionFields() []Field {
	span := func(name string, place func(a *lifecycle.Assumptions) *time.Duration) Field {
		return Field{Name: name, route: true, set: parsed(parseDuration, func(_ *Settings, r *Route) *time.Duration { return place(&r.Assumptions) })}
	}
	type assumptions = lifecycle.Assumptions
	return []Field{
		{Name: "client-attempts", route: true, set: parsed(parseCount, func(_ *Settings, r *Route) *int { return &r.Assumptions.ClientAttempts })},
		span("client-timeout", func(a *assumptions) *time.Duration { return &a.ClientTimeout }),
		span("client-backoff", func(a *assumptions) *time.Duration { return &a.ClientBackoff }),
		span("client-backoff-cap", func(a *assumptions) *time.Duration { return &a.ClientBackoffCap }),
		span("client-horizon", func(a *assumptions) *time.Duration { return &a.ClientHorizon }),
		span("proxy-timeout", func(a *assumptions) *time.Duration { return &a.ProxyTimeout }),
		{Name: "proxy-retries", route: true, set: parsed(parseWhole, func(_ *Settings, r *Route) *int { return &r.Assumptions.ProxyRetries })},
		span("handler-p99", func(a *assumptions) *time.Duration { return &a.HandlerP99 }),
		span("handler-longest", func(a *assumptions) *time.Duration { return &a.HandlerLongest }),
		span("broker-redelivery", func(a *assumptions) *time.Duration { return &a.BrokerRedelivery }),
		span("partition", func(a *assumptions) *time.Duration { return &a.Partition }),
		span("reconciliation", func(a *assumptions) *time.Duration { return &a.Reconciliation }),
		span("pause", func(a *assumptions) *time.Duration { return &a.Pause }),
		span("clock-skew", func(a *assumptions) *time.Duration { return &a.ClockSkew }),
		{Name: "keys", route: true, set: parsed(parseKeys, func(_ *Settings, r *Route) *bool { return &r.Assumptions.TimedKeys })},
		{Name: "effect", route: true, set: parsed(lifecycle.ParseEffect, func(_ *Settings, r *Route) *lifecycle.Effect { return &r.Assumptions.Effect })},
		{Name: "longest-answer", route: true, set: parsed(ParseBytes, func(_ *Settings, r *Route) *int64 { return &r.Assumptions.LongestAnswer })},
		{Name: "store-traits", List: true, set: parsed(list(parseTrait), func(s *Settings, _ *Route) *[]semel.Trait { return &s.StoreTraits })},
		{Name: "store-survives", set: parsed(parseSurvival, func(s *Settings, _ *Route) **semel.Survival { return &s.StoreSurvives })},
	}
}

// readAssumptions reads the block of the top level or of a route. What a route does
// not state it takes from the top.
func (f *file) readAssumptions(s *Settings, r *Route, e entry, top bool) {
	m := f.mapping(e.value, "assumptions, such as `client-attempts: 5`")
	own := Route{Assumptions: r.Assumptions, at: make(map[string]*token.Token)}
	fields := assumptionFields()
	where := "among the assumptions"
	for _, e := range f.entries(m) {
		if !top && slices.ContainsFunc(fields, func(field Field) bool { return field.Name == e.name && !field.route }) {
			f.refuse(e.at, "%q holds for the whole gateway; set it under assumptions at the top level", e.name)
			continue
		}
		f.set(e, fields, s, &own, where)
	}
	r.Assumptions = own.Assumptions
	r.at[strings.TrimSuffix(assumed, ".")] = e.at
	for name, at := range own.at {
		r.at[assumed+name] = at
	}
}

// checkAssumptions refuses what cannot be, in each route as it comes to be.
func (f *file) checkAssumptions(r *Route) {
	err := r.Assumptions.Check()
	if err == nil {
		return
	}
	for text := range strings.SplitSeq(err.Error(), "\n") {
		name, _, _ := strings.Cut(text, ":")
		at := r.at[assumed+name]
		if at == nil {
			at = r.at[strings.TrimSuffix(assumed, ".")]
		}
		if p := (problem{at, text}); !slices.Contains(f.problems, p) { // the top's mistake is every route's
			f.problems = append(f.problems, p)
		}
	}
}

func parseWhole(text string) (int, error) {
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 {
		return 0, fmt.Errorf("%q is no whole number", text)
	}
	return n, nil
}

func parseKeys(text string) (bool, error) {
	switch text {
	case "uuidv7":
		return true, nil
	case "any":
		return false, nil
	}
	return false, fmt.Errorf("%q is not known; write uuidv7 (keys carry their time), or any", text)
}

func parseTrait(text string) (semel.Trait, error) {
	var names []string
	for _, t := range [...]semel.Trait{semel.TraitEvicts, semel.TraitLossyFailover, semel.TraitReplica, semel.TraitClockOff, semel.TraitTornPages, semel.TraitDiverges} {
		if string(t) == text {
			return t, nil
		}
		names = append(names, string(t))
	}
	return "", fmt.Errorf("%q is no trait of a store; there are %s", text, strings.Join(names, ", "))
}

func parseSurvival(text string) (*semel.Survival, error) {
	for s := semel.SurvivesNothing; s <= semel.SurvivesFailover; s++ {
		if s.String() == text {
			return &s, nil
		}
	}
	return nil, fmt.Errorf("%q is nothing that a store survives; there are nothing, process, crash and failover", text)
}

// Facts gives what the linter judges the settings by. store is what is known of it
// from elsewhere; what the file says of it is added.
func (s *Settings) Facts(store lifecycle.StoreFacts) lifecycle.Facts {
	store.Traits = append(slices.Clone(store.Traits), s.StoreTraits...)
	if s.StoreSurvives != nil && (!store.Known || store.Survives > *s.StoreSurvives) {
		store.Known, store.Survives = true, *s.StoreSurvives
		store.Durability = "as the file says"
	}
	facts := lifecycle.Facts{Store: store, Journal: s.Lifecycle.Journal, Drain: s.Drain}
	for _, r := range append(slices.Clone(s.Routes), s.Default) {
		p := lifecycle.PolicyFacts{
			Policy: r.options().Policy, KeyOptional: !r.Require && !r.DeriveKey, KeyDerived: r.DeriveKey, FailOpen: r.FailOpen,
			Silence: r.Timeout, Resolved: r.Resolve != nil, Assumptions: r.Assumptions,
		}
		if r.Resolve != nil && len(r.Resolve.NotDone) > 0 {
			p.NotDoneAfter = r.Resolve.NotDoneAfter
			if p.NotDoneAfter == 0 {
				p.NotDoneAfter = time.Minute // the resolver's default
			}
		}
		if r.Quota != nil {
			p.Quota = lifecycle.QuotaOptions{NewKeys: r.Quota.NewKeys, Per: r.Quota.Per}
		}
		facts.Policies = append(facts.Policies, p)
	}
	return facts
}

// Place gives the line and column of the file that a finding is about; 0 if the file
// does not say it.
func (s *Settings) Place(f lifecycle.Finding) (line, column int) {
	if at := s.place(f); at != nil && at.Position != nil {
		return at.Position.Line, at.Position.Column
	}
	return 0, 0
}

func (s *Settings) place(f lifecycle.Finding) *token.Token {
	r := &s.Default
	if f.Field == "journal" {
		return r.at[kept+f.Field]
	}
	for i := range s.Routes {
		if s.Routes[i].Match == f.Policy {
			r = &s.Routes[i]
			break
		}
	}
	name := f.Field
	for name != "" {
		if at := r.at[name]; at != nil {
			return at
		}
		if i := strings.LastIndexByte(name, '.'); i < 0 {
			break
		} else {
			name = name[:i]
		}
	}
	if f.Policy == "" {
		return nil
	}
	return r.at["match"]
}

// Refuse gives the refusals of a report as an error like those about the file, and
// nil if there is none.
func (s *Settings) Refuse(report *lifecycle.Report) error {
	f := file{path: s.Source}
	for _, found := range report.Findings {
		if found.Level == lifecycle.Refusal {
			f.problems = append(f.problems, problem{s.place(found), found.Sentence()})
		}
	}
	return f.all(nil)
}
