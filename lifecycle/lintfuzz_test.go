package lifecycle_test

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/lifecycle"
)

// span draws a length of time: none, short, long, or one that cannot be.
func span(r *rand.Rand) time.Duration {
	switch r.IntN(12) {
	case 0, 1, 2:
		return 0
	case 3:
		return time.Duration(r.Int64()) // up to 292 years
	case 4:
		return -time.Duration(r.Int64())
	}
	return time.Duration(r.Int64N(int64(time.Millisecond) << r.IntN(34))) // up to 198 days
}

// drawn draws facts, most of them possible.
func drawn(r *rand.Rand) lifecycle.Facts {
	f := lifecycle.Facts{Journal: max(0, span(r)), Drain: span(r)}
	for i := range 1 + r.IntN(3) {
		p := lifecycle.PolicyFacts{
			Policy: semel.Policy{
				Name: string(rune('a' + i)), Class: semel.Class(r.IntN(4)), Lease: span(r), Wait: span(r), Replay: span(r), Remember: span(r),
			},
			Silence: span(r), NotDoneAfter: span(r), KeyOptional: r.IntN(2) == 0, FailOpen: r.IntN(4) == 0, Quota: lifecycle.QuotaOptions{NewKeys: r.IntN(3), Per: span(r)},
			Assumptions: lifecycle.Assumptions{
				ClientAttempts: r.IntN(12), ClientTimeout: span(r), ClientBackoff: span(r), ClientBackoffCap: span(r), ClientHorizon: span(r),
				ProxyTimeout: span(r), ProxyRetries: r.IntN(4), HandlerP99: span(r), HandlerLongest: span(r), BrokerRedelivery: span(r),
				Partition: span(r), Reconciliation: span(r), Pause: span(r), ClockSkew: span(r), TimedKeys: r.IntN(2) == 0,
				Effect: lifecycle.Effect(r.IntN(4)), LongestAnswer: r.Int64N(1 << 22),
			},
		}
		if r.IntN(20) == 0 {
			p.ClientAttempts, p.ProxyRetries = int(r.Int64()), -int(r.Int64())
		}
		f.Policies = append(f.Policies, p)
	}
	return f
}

// numbers are the settings for which there is advice.
func isNumber(f lifecycle.Finding) bool {
	return slices.Contains([]string{"lease", "wait", "replay", "remember", "journal"}, f.Field)
}

func shown(v any) string { return fmt.Sprintf("%+v", v) }

func FuzzLint(f *testing.F) {
	for seed := range uint64(64) {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, seed uint64) {
		r := rand.New(rand.NewPCG(seed, 1))
		for range 50 {
			facts := drawn(r)
			report := lifecycle.Lint(facts)
			adviceHolds(t, facts, report)
			filledAgrees(t, facts, report)
			retentionIsMonotone(t, r, facts, report)
			if t.Failed() {
				return
			}
		}
	})
}

// adviceHolds: with the numbers that are advised, none of them is refused, nor warned
// of where another number could help; and the advice is then to keep them.
func adviceHolds(t *testing.T, facts lifecycle.Facts, report lifecycle.Report) {
	applied := report.Apply(facts)
	again := lifecycle.Lint(applied)
	helpless := func(f lifecycle.Finding) bool { // a client that stops sooner than any lease may be; a timeout of 1ns
		return f.Rule == "lease-retries" || f.Rule == "wait-cut" && f.Have == "1ns"
	}
	for _, f := range again.Findings {
		if isNumber(f) && (f.Level == lifecycle.Refusal || f.Level == lifecycle.Warning && !helpless(f)) {
			t.Errorf("%s\nwith what was advised: %s\nof %s", shown(f), shown(report.Advice), shown(facts))
		}
	}
	for _, a := range again.Advice {
		if a.Have != a.Safe {
			t.Errorf("%s\nafter %s\nof %s", shown(a), shown(report.Advice), shown(facts))
		}
	}
	for i, p := range applied.Policies {
		if _, err := p.Policy.Filled(); err != nil {
			t.Errorf("policy %d is refused with what was advised: %v\nof %s", i, err, shown(facts))
		}
		was := facts.Policies[i]
		was.Policy.Lease, was.Policy.Wait, was.Policy.Replay, was.Policy.Remember = p.Policy.Lease, p.Policy.Wait, p.Policy.Replay, p.Policy.Remember
		if !reflect.DeepEqual(was, p) {
			t.Errorf("the advice changed more than four numbers: got %s, of %s", shown(p), shown(was))
		}
	}
}

// filledAgrees: what the policy itself refuses is refused, and nothing else in its name.
func filledAgrees(t *testing.T, facts lifecycle.Facts, report lifecycle.Report) {
	itsOwn := []string{"lease-short", "replay-negative", "remember-below-replay", "remember-below-lease", "policy"}
	for _, p := range facts.Policies {
		_, err := p.Policy.Filled()
		told := slices.ContainsFunc(report.Findings, func(f lifecycle.Finding) bool {
			return f.Policy == p.Policy.Name && f.Level == lifecycle.Refusal && slices.Contains(itsOwn, f.Rule)
		})
		if told != (err != nil) {
			t.Errorf("policy %s: Filled says %v, and a finding says so: %v\n%s\n%s", p.Policy.Name, err, told, shown(report.Findings), shown(p))
		}
	}
}

// retentionIsMonotone: a key that is remembered for longer breaks no rule about that
// (INVARIANTS X6), and one for less keeps none.
func retentionIsMonotone(t *testing.T, r *rand.Rand, facts lifecycle.Facts, report lifecycle.Report) {
	short := func(report lifecycle.Report) (n int) {
		for _, f := range report.Findings {
			if f.Rule == "retention" || f.Rule == "retention-broker" || f.Rule == "remember-below-lease" || f.Rule == "key-window" {
				n++
			}
		}
		return n
	}
	more := facts
	more.Policies = slices.Clone(facts.Policies)
	for i := range more.Policies {
		p := &more.Policies[i].Policy
		filled, _ := p.Filled()
		p.Remember = filled.Remember + time.Duration(r.Int64N(int64(time.Hour)<<r.IntN(20)))
		if p.Remember < filled.Remember || r.IntN(8) == 0 { // beyond what a duration holds
			p.Remember = 1<<63 - 1
		}
	}
	if before, after := short(report), short(lifecycle.Lint(more)); after > before {
		t.Errorf("%d findings about the retention, and %d with a longer one\nof %s\nand %s", before, after, shown(facts), shown(more))
	}
}
