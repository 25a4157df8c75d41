package lifecycle

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/semelhq/semel"
)

// Facts are what [Lint] judges policies by. What is zero is not known, and the rules
// that need it are left out.
type Facts struct {
	Policies []PolicyFacts
	Store    StoreFacts
	// Journal is how long lines of the journal stay in the store; 0: for ever.
	Journal time.Duration
	// Drain is how long running operations may take to end when a process is stopped.
	Drain time.Duration
}

// PolicyFacts are a policy, what surrounds it in the server, and what is assumed of
// those beyond it.
type PolicyFacts struct {
	Policy semel.Policy
	// KeyOptional: a request without a key runs unguarded. KeyDerived: its content is
	// its key.
	KeyOptional, KeyDerived bool
	// FailOpen: while the store is away, requests go on.
	FailOpen bool
	// Silence is how long the server waits for the operation before it gives it up; 0:
	// for ever.
	Silence time.Duration
	// NotDoneAfter is how long after an operation broke off its resolver's "not done"
	// is believed; negative: at once. 0: no resolver says that.
	NotDoneAfter time.Duration
	// Resolved: somebody finds out what became of an operation that is in doubt.
	Resolved bool
	// Quota bounds new keys, if its NewKeys is not 0.
	Quota QuotaOptions
	Assumptions
}

// Assumptions are what one knows, or takes for true, of those who call, of what
// stands between, and of the operation itself.
type Assumptions struct {
	// ClientAttempts is how often a client sends a request at most, the first time
	// included; ClientTimeout is how long it waits for each answer; ClientBackoff is its
	// first pause, and each is twice the one before, up to ClientBackoffCap.
	ClientAttempts                                 int
	ClientTimeout, ClientBackoff, ClientBackoffCap time.Duration
	// ClientHorizon is how long after the first request a copy may come, where that is
	// longer than the attempts come to: a person who tries again, an outbox.
	ClientHorizon time.Duration
	// ProxyTimeout is when a load balancer or proxy gives up; ProxyRetries is how often
	// it sends a request again by itself.
	ProxyTimeout time.Duration
	ProxyRetries int
	// HandlerP99 is what the operation takes but for one in a hundred, HandlerLongest
	// what it may take.
	HandlerP99, HandlerLongest time.Duration
	// BrokerRedelivery is how long after the first a broker may deliver a message again.
	BrokerRedelivery time.Duration
	// Partition is the longest time for which some part cannot reach another.
	Partition time.Duration
	// Reconciliation is how often books are compared, with what it takes to act on it.
	Reconciliation time.Duration
	// Pause is the longest time for which a process that runs cannot get to the store: a
	// collection of garbage, a suspended machine, a failover of the store.
	Pause time.Duration
	// ClockSkew is how far the clients' clocks are off.
	ClockSkew time.Duration
	// TimedKeys: the clients' keys are UUIDv7, which carry their time.
	TimedKeys bool
	// Effect is what a second run would do.
	Effect Effect
	// LongestAnswer is the size in bytes of the largest answer.
	LongestAnswer int64
}

// Effect says what a second run of an operation would do.
type Effect uint8

const (
	// Unstated: nobody has said.
	Unstated Effect = iota
	// Repeatable: a second run does no harm.
	Repeatable
	// Once: a second run does harm.
	Once
	// Money: a second run moves money twice.
	Money
)

// String gives the name used in configuration.
func (e Effect) String() string {
	names := [...]string{"unstated", "repeatable", "once", "money"}
	if int(e) < len(names) {
		return names[e]
	}
	return fmt.Sprintf("effect(%d)", uint8(e))
}

// ParseEffect reads what [Effect.String] wrote.
func ParseEffect(s string) (Effect, error) {
	for e := Repeatable; e <= Money; e++ {
		if e.String() == s {
			return e, nil
		}
	}
	return 0, fmt.Errorf("%q is no effect; write repeatable (a second run does no harm), once, or money", s)
}

// StoreFacts are what is known of the store.
type StoreFacts struct {
	// Description is what it tells of itself. Its traits are looked at in any case, the
	// rest if Known.
	semel.Description
	Known bool
	// NoJournal: it keeps none.
	NoJournal bool
	// Refused is why it does not serve as a store, Unreachable why it could not be asked.
	Refused, Unreachable string
}

// Level says how bad a finding is.
type Level uint8

const (
	// Note: worth knowing.
	Note Level = iota + 1
	// Warning: allowed, and likely not what is wanted.
	Warning
	// Refusal: unsafe, or it can never work. Nothing starts with it.
	Refusal
)

// String gives the level in lower case.
func (l Level) String() string {
	names := [...]string{"", "note", "warning", "refusal"}
	if int(l) < len(names) {
		return names[l]
	}
	return fmt.Sprintf("level(%d)", uint8(l))
}

// MarshalText is part of encoding.TextMarshaler.
func (l Level) MarshalText() ([]byte, error) { return []byte(l.String()), nil }

// Finding is one thing that Lint found.
type Finding struct {
	Level Level `json:"level"`
	// Rule is the rule's name, which does not change.
	Rule string `json:"rule"`
	// Policy is the name of the policy; empty if it is about all of them, or the store.
	Policy string `json:"policy,omitempty"`
	// Field is the setting that it is about, Have what it is, and Need what it has to be.
	Field string `json:"field"`
	Have  string `json:"have"`
	Need  string `json:"need,omitempty"`
	// Why gives the reason with its numbers, Do what helps.
	Why string `json:"why"`
	Do  string `json:"do,omitempty"`
}

// Sentence gives the finding in a line.
func (f *Finding) Sentence() string {
	text := f.Field
	if f.Have != "" {
		text += " (" + f.Have + ")"
	}
	if f.Need != "" {
		text += map[bool]string{true: " has to be ", false: " should be "}[f.Level == Refusal] + f.Need
	}
	return strings.TrimSpace(fmt.Sprintf("%s: %s %s", text, f.Why, f.Do)) + " [" + f.Rule + "]"
}

// Advice is what a number of a policy may be.
type Advice struct {
	Policy string `json:"policy,omitempty"`
	// Field is lease, wait, replay, remember, or journal, which holds for all policies.
	Field string `json:"field"`
	Have  Span   `json:"have"`
	// Safe is Have if that is safe, else what is safe and nearest to it.
	Safe Span `json:"safe"`
	// Why is the reason for it, in one sentence with its sum.
	Why string `json:"why"`
}

// Span is a length of time that is written as in configurations: 30s, 1h30m, 7d12h.
type Span time.Duration

// String gives days from two on, and no parts that are zero.
func (s Span) String() string {
	const day = 24 * time.Hour
	d := time.Duration(s)
	switch {
	case d >= 2*day && d%day == 0:
		return fmt.Sprintf("%dd", d/day)
	case d >= 2*day:
		return fmt.Sprintf("%dd%v", d/day, Span(d%day))
	}
	text := d.String()
	if d%time.Minute == 0 && d != 0 {
		text = text[:len(text)-len("0s")]
	}
	if d%time.Hour == 0 && d != 0 {
		text = text[:len(text)-len("0m")]
	}
	return text
}

// MarshalText is part of encoding.TextMarshaler.
func (s Span) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Report is what Lint found, the worst first, and the numbers that it advises.
type Report struct {
	Findings []Finding `json:"findings"`
	Advice   []Advice  `json:"advice"`
}

// Refused tells whether there is a refusal among the findings.
func (r *Report) Refused() bool {
	return slices.ContainsFunc(r.Findings, func(f Finding) bool { return f.Level == Refusal })
}

// Apply gives f with the numbers that are advised.
func (r *Report) Apply(f Facts) Facts {
	f.Policies = slices.Clone(f.Policies)
	for _, a := range r.Advice {
		safe := time.Duration(a.Safe)
		if a.Field == "journal" {
			f.Journal = safe
		}
		for i := range f.Policies {
			p := &f.Policies[i].Policy
			to := map[string]*time.Duration{"lease": &p.Lease, "wait": &p.Wait, "replay": &p.Replay, "remember": &p.Remember}[a.Field]
			if to != nil && p.Name == a.Policy {
				*to = safe
			}
		}
	}
	return f
}

// Lint judges the numbers of policies by facts, and tells for each number what is
// safe. It reads no clock and asks nobody. It refuses what [semel.Policy.Filled]
// refuses, and more. Policies need names of their own.
func Lint(f Facts) Report {
	l := linter{facts: &f}
	var views []*view
	for i := range f.Policies {
		views = append(views, newView(&f.Policies[i]))
	}
	l.store(views)
	for _, v := range views {
		l.view = v
		l.advise()
		l.numbers()
		l.retention()
		l.lease()
		l.waiting()
		l.effect()
		l.sizes()
	}
	l.view = nil
	l.all(views)
	slices.SortStableFunc(l.report.Findings, func(a, b Finding) int { return cmp.Compare(b.Level, a.Level) })
	return l.report
}

// linter collects what is found.
type linter struct {
	facts  *Facts
	view   *view // the policy under examination; nil for what is about all
	report Report
}

func (l *linter) add(level Level, rule, field, have, need, why, do string) {
	f := Finding{Level: level, Rule: rule, Field: field, Have: have, Need: need, Why: why, Do: do}
	if l.view != nil {
		f.Policy = l.view.p.Name
	}
	l.report.Findings = append(l.report.Findings, f)
}

// longestAssumed is the longest time that makes sense as an assumption.
const longestAssumed = 3650 * 24 * time.Hour

// mostAttempts is more than any client makes.
const mostAttempts = 1_000_000

// Check tells what cannot be, each error beginning with the name of the assumption in
// configurations.
func (a *Assumptions) Check() error {
	var wrong []error
	refuse := func(bad bool, format string, args ...any) {
		if bad {
			wrong = append(wrong, fmt.Errorf(format, args...))
		}
	}
	for _, s := range a.spans() {
		refuse(*s.at < 0, "%s: %v is negative", s.name, *s.at)
		refuse(*s.at > longestAssumed, "%s: %v is longer than ten years", s.name, Span(*s.at))
	}
	for _, n := range [...]struct {
		name  string
		count int
	}{{"client-attempts", a.ClientAttempts}, {"proxy-retries", a.ProxyRetries}} {
		refuse(n.count < 0, "%s: %d is negative", n.name, n.count)
		refuse(n.count > mostAttempts, "%s: %d is more than a million", n.name, n.count)
	}
	refuse(a.LongestAnswer < 0, "longest-answer: %d is negative", a.LongestAnswer)
	refuse(a.Effect > Money, "effect: %v is unknown", a.Effect)
	refuse(a.HandlerLongest > 0 && a.HandlerP99 > a.HandlerLongest,
		"handler-p99: %v is longer than handler-longest, %v", Span(a.HandlerP99), Span(a.HandlerLongest))
	refuse(a.ClientBackoffCap > 0 && a.ClientBackoff > a.ClientBackoffCap,
		"client-backoff: %v is longer than client-backoff-cap, %v", Span(a.ClientBackoff), Span(a.ClientBackoffCap))
	refuse(a.ClientBackoff > 0 && a.ClientAttempts < 2, "client-backoff: a pause comes before a second attempt; set client-attempts to 2 or more")
	refuse(a.ProxyRetries > 0 && a.ProxyTimeout == 0, "proxy-retries: set proxy-timeout as well, since a proxy that sends again may do so until then")
	return errors.Join(wrong...)
}

type namedSpan struct {
	name string
	at   *time.Duration
}

func (a *Assumptions) spans() []namedSpan {
	return []namedSpan{
		{"client-timeout", &a.ClientTimeout},
		{"client-backoff", &a.ClientBackoff},
		{"client-backoff-cap", &a.ClientBackoffCap},
		{"client-horizon", &a.ClientHorizon},
		{"proxy-timeout", &a.ProxyTimeout},
		{"handler-p99", &a.HandlerP99},
		{"handler-longest", &a.HandlerLongest},
		{"broker-redelivery", &a.BrokerRedelivery},
		{"partition", &a.Partition},
		{"reconciliation", &a.Reconciliation},
		{"pause", &a.Pause},
		{"clock-skew", &a.ClockSkew},
	}
}
