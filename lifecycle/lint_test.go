package lifecycle_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/lifecycle"
)

const (
	second = time.Second
	minute = time.Minute
	hour   = time.Hour
	oneDay = 24 * hour
)

// known are assumptions of which nothing follows with the default policy.
func known() lifecycle.Assumptions {
	return lifecycle.Assumptions{
		ClientAttempts: 5, ClientTimeout: 30 * second, ClientBackoff: second, ClientBackoffCap: 30 * second,
		ProxyTimeout: minute, HandlerP99: second, HandlerLongest: 20 * second, Partition: hour, Reconciliation: oneDay, Pause: 10 * second,
	}
}

// lint judges one policy after change.
func lint(change func(f *lifecycle.Facts, p *lifecycle.PolicyFacts)) lifecycle.Report {
	f := lifecycle.Facts{Policies: []lifecycle.PolicyFacts{{Policy: semel.Policy{Name: "pay"}, Assumptions: known(), Silence: minute}}, Drain: 30 * second}
	f.Store.Known, f.Store.Survives = true, semel.SurvivesCrash
	change(&f, &f.Policies[0])
	return lifecycle.Lint(f)
}

// rules gives what was found as level:rule.
func rules(r lifecycle.Report) []string {
	out := []string{}
	for _, f := range r.Findings {
		out = append(out, f.Level.String()+":"+f.Rule)
	}
	return out
}

type (
	facts       = lifecycle.Facts
	policyFacts = lifecycle.PolicyFacts
)

// ruleCase is one change to what is well, and all rules that it breaks, joined by
// spaces.
type ruleCase struct {
	name   string
	change func(*facts, *policyFacts)
	want   string
}

// retentionCases are about single numbers and about retentions.
func retentionCases() []ruleCase {
	return []ruleCase{
		{"the defaults", func(_ *facts, p *policyFacts) {}, ""},
		{"lease-short", func(_ *facts, p *policyFacts) { p.Policy.Lease = 49 * time.Millisecond }, "refusal:lease-short warning:lease-pause note:lease-renewed note:wait-lease"},
		{"replay-negative", func(_ *facts, p *policyFacts) { p.Policy.Replay = -1 }, "refusal:replay-negative"},
		{"remember-below-replay", func(_ *facts, p *policyFacts) { p.Policy.Replay, p.Policy.Remember = 73*hour, 72*hour }, "refusal:remember-below-replay"},
		{"a lock of 24 h, kept for 5 min", func(_ *facts, p *policyFacts) {
			p.Policy.Lease, p.Policy.Replay, p.Policy.Remember = oneDay, 5*minute, 5*minute
		}, "refusal:remember-below-lease warning:lease-retries"},
		{"policy", func(_ *facts, p *policyFacts) { p.Policy.MaxResult = -1 }, "refusal:policy"},
		{"assumption", func(_ *facts, p *policyFacts) { p.HandlerP99 = 21 * second }, "refusal:assumption"},
		{"assumption negative", func(_ *facts, p *policyFacts) { p.Partition = -hour }, "refusal:assumption"},

		// 30s + 5 x 30s + (1 + 2 + 4 + 8)s + 1h + 24h = 25h3m15s
		{"X6, in it", func(_ *facts, p *policyFacts) { p.Policy.Remember, p.Policy.Replay = 25*hour+3*minute+15*second, hour }, ""},
		{"X6, below", func(_ *facts, p *policyFacts) {
			p.Policy.Remember, p.Policy.Replay = 25*hour+3*minute+15*second-1, hour
		}, "refusal:retention"},
		{"X6, an outbox", func(_ *facts, p *policyFacts) { p.ClientHorizon = 3 * oneDay }, "refusal:retention warning:replay-retries"},
		{"broker", func(_ *facts, p *policyFacts) { p.BrokerRedelivery, p.Policy.Replay = 4*oneDay, 72*hour }, "refusal:retention refusal:retention-broker warning:replay-retries"},
		{"replay, in it", func(_ *facts, p *policyFacts) { p.Policy.Replay = 165 * second }, ""},
		{"a horizon below the attempts", func(_ *facts, p *policyFacts) { p.Policy.Replay, p.ClientHorizon = 164*second, minute }, "warning:replay-retries"},
		{"replay, below", func(_ *facts, p *policyFacts) { p.Policy.Replay = 165*second - 1 }, "warning:replay-retries"},
		{"key-window", func(_ *facts, p *policyFacts) { p.TimedKeys, p.ClockSkew = true, 72*hour }, "warning:key-window warning:key-ahead"},
		{"key-ahead", func(_ *facts, p *policyFacts) { p.TimedKeys, p.ClockSkew = true, 5*minute+1 }, "warning:key-ahead"},
		{"key, not ahead", func(_ *facts, p *policyFacts) { p.TimedKeys, p.ClockSkew = true, 5*minute }, ""},
		{"keys without time", func(_ *facts, p *policyFacts) { p.ClockSkew = 72 * hour }, ""},
		{"client unstated", func(_ *facts, p *policyFacts) { p.Assumptions = lifecycle.Assumptions{} }, "note:client-unstated"},
	}
}

// leaseCases are about leases, waiting, effects and sizes.
func leaseCases() []ruleCase {
	return []ruleCase{
		{"lease-pause", func(_ *facts, p *policyFacts) { p.Pause = 15 * second }, "warning:lease-pause"},
		{"lease-renewed", func(_ *facts, p *policyFacts) { p.Policy.Lease, p.Policy.Wait = 10*second, second; p.Pause = second }, "note:lease-renewed"},
		{"lease-retries", func(_ *facts, p *policyFacts) { p.Policy.Lease = 165 * second }, "warning:lease-retries"},
		{"lease-long", func(_ *facts, p *policyFacts) { p.Policy.Lease, p.Assumptions = oneDay, lifecycle.Assumptions{} }, "warning:lease-long note:client-unstated"},
		{"a transaction in time", func(_ *facts, p *policyFacts) { p.Policy.Class = semel.Transactional; p.Policy.Lease = 25 * second }, ""},
		{"a transaction that is cut off", func(_ *facts, p *policyFacts) { p.Policy.Class = semel.Transactional; p.Policy.Lease = 24 * second }, "refusal:lease-transaction"},

		{"wait-cut", func(_ *facts, p *policyFacts) { p.Policy.Wait = 30 * second }, "warning:wait-cut"},
		{"wait-lease", func(_ *facts, p *policyFacts) { p.Policy.Lease = 25 * second; p.Policy.Wait = 26 * second }, "note:wait-lease"},
		{"no wait", func(_ *facts, p *policyFacts) { p.Policy.Wait, p.ClientTimeout, p.ClientHorizon = -1, second, 5*minute }, "warning:handler-cut"},
		{"handler-cut-rarely", func(_ *facts, p *policyFacts) { p.ClientTimeout, p.ClientHorizon = 15*second, 5*minute }, "note:handler-cut-rarely"},
		{"timeout-handler", func(_ *facts, p *policyFacts) { p.Silence = 20 * second }, "warning:timeout-handler"},
		{"resolve-early", func(_ *facts, p *policyFacts) { p.NotDoneAfter = 20*second - 1 }, "refusal:resolve-early"},
		{"resolve at once", func(_ *facts, p *policyFacts) { p.NotDoneAfter = -1 }, "refusal:resolve-early"},
		{"resolve in time", func(_ *facts, p *policyFacts) { p.NotDoneAfter = 20 * second }, ""},

		{"class-effect", func(_ *facts, p *policyFacts) { p.Policy.Class, p.Effect = semel.AtLeastOnce, lifecycle.Once }, "refusal:class-effect"},
		{"class-effect, repeatable", func(_ *facts, p *policyFacts) { p.Policy.Class, p.Effect = semel.AtLeastOnce, lifecycle.Repeatable }, ""},
		{"fail open", func(_ *facts, p *policyFacts) { p.FailOpen, p.Effect = true, lifecycle.Once }, "warning:fail-open-effect"},
		{"fail open with money", func(_ *facts, p *policyFacts) { p.FailOpen, p.Effect = true, lifecycle.Money }, "refusal:fail-open-effect note:retention-money"},
		{"fenced", func(_ *facts, p *policyFacts) { p.Policy.Class, p.Effect = semel.Fenced, lifecycle.Money }, "note:retention-money note:fenced-target"},
		{"in doubt", func(_ *facts, p *policyFacts) {
			p.Effect, p.Reconciliation, p.Policy.Remember = lifecycle.Money, 0, 7*oneDay
		}, "warning:doubt-unattended"},
		{"in doubt, asked", func(_ *facts, p *policyFacts) {
			p.Effect, p.Reconciliation, p.Policy.Remember, p.Resolved = lifecycle.Money, 0, 7*oneDay, true
		}, ""},
		{"key-derived", func(_ *facts, p *policyFacts) {
			p.KeyDerived, p.Effect, p.Policy.Remember = true, lifecycle.Money, 7*oneDay
		}, "warning:key-derived"},
		{"key-optional", func(_ *facts, p *policyFacts) {
			p.KeyOptional, p.Effect, p.Policy.Remember, p.ProxyRetries = true, lifecycle.Money, 7*oneDay, 1
		}, "warning:key-optional-proxy warning:key-optional-money"},

		{"answer-size", func(_ *facts, p *policyFacts) { p.LongestAnswer = 1<<20 + 1 }, "warning:answer-size"},
		{"quota-retries", func(_ *facts, p *policyFacts) { p.Quota = lifecycle.QuotaOptions{NewKeys: 10, Per: hour} }, "warning:quota-retries"},
		{"quota", func(_ *facts, p *policyFacts) { p.Quota = lifecycle.QuotaOptions{NewKeys: 10} }, ""},
		{"drain-handler", func(f *facts, _ *policyFacts) { f.Drain = 19 * second }, "warning:drain-handler"},
		{"drain unknown", func(f *facts, _ *policyFacts) { f.Drain = 0 }, ""},
		{"journal-short", func(f *facts, _ *policyFacts) { f.Journal = 72*hour - 1 }, "refusal:journal-short"},
		{"journal", func(f *facts, _ *policyFacts) { f.Journal = 72 * hour }, ""},
	}
}

// TestLintRules: each rule at its bound, and just inside of it.
func TestLintRules(t *testing.T) {
	for _, c := range slices.Concat(retentionCases(), leaseCases()) {
		t.Run(c.name, func(t *testing.T) {
			r := lint(c.change)
			if got := strings.Join(rules(r), " "); got != c.want {
				told, _ := json.MarshalIndent(r.Findings, "", " ")
				t.Errorf("got  %s\nwant %s\n%s", got, c.want, told)
			}
		})
	}
}

// TestLintStore: what the store is counts by what a second run does.
func TestLintStore(t *testing.T) {
	for _, c := range []struct {
		name   string
		traits []semel.Trait
		gives  semel.Survival
		effect lifecycle.Effect
		class  semel.Class
		want   string
	}{
		{"an evicting arbiter", []semel.Trait{semel.TraitEvicts}, semel.SurvivesCrash, 0, 0, "refusal:store-evicts"},
		{"a replica", []semel.Trait{semel.TraitReplica}, semel.SurvivesCrash, 0, 0, "refusal:store-replica"},
		{"asynchronous", []semel.Trait{semel.TraitLossyFailover}, semel.SurvivesCrash, 0, 0, "warning:store-failover"},
		{"asynchronous, money", []semel.Trait{semel.TraitLossyFailover}, semel.SurvivesCrash, lifecycle.Money, 0, "refusal:store-failover"},
		{"asynchronous, fenced", []semel.Trait{semel.TraitLossyFailover}, semel.SurvivesCrash, lifecycle.Money, semel.Fenced, "warning:store-failover note:fenced-target"},
		{"asynchronous, with the money", []semel.Trait{semel.TraitLossyFailover}, semel.SurvivesCrash, lifecycle.Money, semel.Transactional, "warning:store-failover"},
		{"memory", nil, semel.SurvivesNothing, 0, 0, "warning:store-forgets"},
		{"memory, once", nil, semel.SurvivesNothing, lifecycle.Once, 0, "refusal:store-forgets"},
		{"no flush", nil, semel.SurvivesProcess, 0, 0, "warning:store-crash"},
		{"no flush, money", nil, semel.SurvivesProcess, lifecycle.Money, 0, "refusal:store-crash"},
		{"the rest", []semel.Trait{semel.TraitTornPages, semel.TraitClockOff}, semel.SurvivesFailover, 0, 0, "warning:store-torn warning:store-clock"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := lint(func(f *lifecycle.Facts, p *lifecycle.PolicyFacts) {
				f.Store.Traits, f.Store.Survives = c.traits, c.gives
				p.Effect, p.Policy.Class, p.Policy.Remember = c.effect, c.class, 7*oneDay
			})
			if got := strings.Join(rules(r), " "); got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
	r := lint(func(f *lifecycle.Facts, _ *lifecycle.PolicyFacts) {
		f.Store = lifecycle.StoreFacts{Refused: "it is read-only", NoJournal: true}
	})
	if got := strings.Join(rules(r), " "); got != "refusal:store-refused" {
		t.Errorf("a store that refuses: %s", got)
	}
	r = lint(func(f *lifecycle.Facts, _ *lifecycle.PolicyFacts) {
		f.Store.Unreachable, f.Store.Known, f.Store.NoJournal = "connection refused", true, true
	})
	if got := strings.Join(rules(r), " "); got != "warning:store-unreachable note:store-journal" {
		t.Errorf("a store that does not answer: %s", got)
	}
}

// TestLintSums: the reason has the numbers that it comes from.
func TestLintSums(t *testing.T) {
	r := lint(func(_ *lifecycle.Facts, p *lifecycle.PolicyFacts) {
		p.Policy.Remember, p.Policy.Replay, p.ProxyRetries = hour, hour, 2
	})
	want := "lease 30s + the client's retries (5 attempts of 30s, pauses of 15s in all, the proxy's own 2 of 1m) 4m45s + partition 1h + reconciliation 24h = 25h5m15s"
	if len(r.Findings) != 1 || !strings.Contains(r.Findings[0].Why, want) || r.Findings[0].Need != "at least 25h5m15s" || r.Findings[0].Do != "Set remember: 26h." {
		t.Errorf("got %+v\nwant %s", r.Findings, want)
	}
	i := slices.IndexFunc(r.Advice, func(a lifecycle.Advice) bool { return a.Field == "remember" })
	if a := r.Advice[i]; time.Duration(a.Safe) != 26*hour || time.Duration(a.Have) != hour || !strings.Contains(a.Why, want) {
		t.Errorf("got %+v", a)
	}
}

// TestLintPauses: pauses double up to their cap, and their sum does not take a loop
// of a million.
func TestLintPauses(t *testing.T) {
	for _, c := range []struct {
		attempts     int
		timeout      time.Duration
		backoff, cap time.Duration
		want         string
	}{
		{1, second, 0, 0, "1 attempt of 1s) 1s"},
		{3, 0, second, 0, "3 attempts of 0s, pauses of 3s in all) 3s"},
		{6, second, second, 4 * second, "6 attempts of 1s, pauses of 15s in all) 21s"},
		{6, second, 3 * second, 4 * second, "pauses of 19s in all) 25s"},
		{1_000_000, 0, second, second, "pauses of 11d13h46m39s in all) 11d13h46m39s"},
		{1_000_000, second, second, 0, "in all) 36500d + partition 1h"}, // more than anybody waits
	} {
		r := lifecycle.Lint(lifecycle.Facts{Policies: []lifecycle.PolicyFacts{{Policy: semel.Policy{Lease: second, Replay: second, Remember: second}, Assumptions: lifecycle.Assumptions{
			Partition: time.Hour, ClientAttempts: c.attempts, ClientTimeout: c.timeout, ClientBackoff: c.backoff, ClientBackoffCap: c.cap,
		}}}})
		if why := r.Findings[0].Why; r.Findings[0].Rule != "retention" || !strings.Contains(why, c.want) {
			t.Errorf("%+v: got %s", c, why)
		}
	}
}

func TestSpans(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0s", time.Millisecond: "1ms", second: "1s", minute: "1m", 90 * minute: "1h30m", hour: "1h", oneDay: "24h", 25 * hour: "25h", 2 * oneDay: "2d", 7 * oneDay: "7d", 49 * hour: "2d1h", hour + second: "1h0m1s", -minute: "-1m",
	} {
		if got := lifecycle.Span(d).String(); got != want {
			t.Errorf("%v: got %s, want %s", d, got, want)
		}
	}
	for _, text := range []string{"repeatable", "once", "money"} {
		if e, err := lifecycle.ParseEffect(text); err != nil || e.String() != text {
			t.Errorf("%s: got %v, %v", text, e, err)
		}
	}
	for _, text := range []string{"", "unstated", "Money"} {
		if e, err := lifecycle.ParseEffect(text); err == nil {
			t.Errorf("%q: got %v", text, e)
		}
	}
}

// TestFieldBug12_OneTimeForClaimAndRecord: a claim that stays for a day after a crash
// is told, and what is said of it is to make it short.
func TestFieldBug12_OneTimeForClaimAndRecord(t *testing.T) {
	r := lint(func(_ *lifecycle.Facts, p *lifecycle.PolicyFacts) { p.Policy.Lease, p.Policy.Replay = oneDay, oneDay })
	if len(r.Findings) != 1 || r.Findings[0].Rule != "lease-retries" || !strings.Contains(r.Findings[0].Do, "Set lease: 1m22s") {
		t.Errorf("got %+v", r.Findings)
	}
}

// TestLintKnowsLeases: a claim is lost half a lease after its renewal was due, and no
// sooner, which the advice about pauses rests on.
func TestLintKnowsLeases(t *testing.T) {
	policy, err := semel.Policy{Lease: 30 * time.Second}.Filled()
	if err != nil {
		t.Fatal(err)
	}
	start := time.Unix(1e9, 0)
	a := semel.NewAttempt(semel.Ask{Policy: &policy}, semel.Digest{1}, "test", func() semel.Nonce { return semel.Nonce{1} })
	record := a.Begin(start, start).Swap.Next
	record.Version, record.WrittenAt = semel.Version{Epoch: 1, Counter: 1}, start
	run := a.Reply(start, semel.Reading{Record: record, Now: start}, nil)
	now := run.Until
	for move := a.Renew(now); move.Do != semel.Stop; {
		if move.Do == semel.Sleep {
			now = move.Until
			move = a.Wake(now)
		} else {
			move = a.Reply(now, semel.Reading{}, errors.New("no answer"))
		}
	}
	if run.Do != semel.Run || now.Sub(run.Until) != policy.Lease/2 {
		t.Errorf("renewed after %v, lost %v later; want a third and a half of %v", run.Until.Sub(start), now.Sub(run.Until), policy.Lease)
	}
}

// TestLintRulesAreDocumented: whoever meets a rule's name finds it in the guide, and
// the guide names no other.
func TestLintRulesAreDocumented(t *testing.T) {
	source, err := os.ReadFile("lintrules.go")
	if err != nil {
		t.Fatal(err)
	}
	guide, err := os.ReadFile("../docs/guides/policy-check.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(guide), "## What is found")
	table, _, _ = strings.Cut(table, "Names of rules")
	var rules, told []string
	for _, m := range regexp.MustCompile(`l\.add\(.*?, "([a-z-]+)", `).FindAllStringSubmatch(string(source), -1) {
		rules = append(rules, m[1])
	}
	for row := range strings.SplitSeq(table, "\n| `") {
		for _, m := range regexp.MustCompile("`?([a-z]+(-[a-z]+)*)`[, ]").FindAllStringSubmatch(strings.SplitN(row, "|", 2)[0], -1) {
			told = append(told, m[1])
		}
	}
	slices.Sort(rules)
	slices.Sort(told)
	if rules = slices.Compact(rules); len(rules) < 40 || !slices.Equal(rules, told) {
		t.Errorf("in the source %q\nin the guide  %q", rules, told)
	}
}

func ExampleLint() {
	policy := semel.Policy{Name: "charge", Lease: 30 * time.Second, Replay: time.Hour, Remember: 24 * time.Hour}
	report := lifecycle.Lint(lifecycle.Facts{Policies: []lifecycle.PolicyFacts{{
		Policy: policy,
		Assumptions: lifecycle.Assumptions{
			ClientAttempts: 4, ClientTimeout: 15 * time.Second, ClientBackoff: time.Second,
			Partition: time.Hour, Reconciliation: 24 * time.Hour, Effect: lifecycle.Money,
		},
	}}})
	for _, f := range report.Findings {
		fmt.Printf("%v %s: %s is %s\n", f.Level, f.Rule, f.Field, f.Have)
	}
	for _, a := range report.Advice {
		fmt.Println(a.Field, a.Safe)
	}
	// Output:
	// refusal retention: remember is 24h
	// note retention-money: remember is 24h
	// lease 30s
	// wait 10s
	// replay 1h
	// remember 26h
}
