package demo

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/semelhq/semel/cmd/internal/lossy"
	"github.com/semelhq/semel/cmd/internal/storm"
)

// A Report is the result of a run.
type Report struct {
	// OK: all that must be zero is zero, and the run was a storm worth the name.
	OK         bool     `json:"ok"`
	Problems   []string `json:"problems"` // why not
	Seed       uint64   `json:"seed"`
	DurationMS int64    `json:"duration_ms"`
	Bypass     bool     `json:"bypass"`  // there was no gateway
	Planned    int      `json:"planned"` // payments; fewer are asked for on a slow machine
	storm.Counts
	// Unavailable are the answers that say that nothing was started: 502 and 503.
	Unavailable   int         `json:"unavailable"`
	GatewayKills  int         `json:"gateway_kills"`
	GatewayStarts int         `json:"gateway_starts"`
	Network       networkLost `json:"network"`
	// Bounds are upper bounds of the true rates at 95 % where none was seen: 3/n.
	Bounds bounds `json:"bounds_95"`
}

type networkLost struct {
	Requests int `json:"requests_lost"`       // wholly or in part, before they arrived
	Answers  int `json:"answers_lost"`        // after the request was carried out
	HungUp   int `json:"hung_up"`             // clients that left before the answer
	Refused  int `json:"gateway_unreachable"` // no connection to the gateway
	Delayed  int `json:"delayed"`
}

type bounds struct {
	Double float64 `json:"double"`
	Lost   float64 `json:"lost"`
	Leaked float64 `json:"leaked"`
}

// report counts.
func (b *bench) report(ctx context.Context) (*Report, error) {
	ledger, err := storm.ReadLedger(b.ledgerPath())
	if err != nil {
		return nil, err
	}
	e := storm.Evidence{Journal: b.journal.All(), Ledger: ledger, Statements: b.payments.Statements(), Kills: b.outages.killed()}
	var problems []string
	if b.gateway != nil {
		if e.Listed, err = b.gateway.inDoubt(ctx); err != nil {
			problems = append(problems, err.Error())
		}
	}
	n := b.network.Counts()
	r := &Report{
		Seed: b.options.Seed, Bypass: b.options.Bypass, Planned: b.options.Payments, Counts: storm.Account(e),
		GatewayKills: len(e.Kills),
		Network: networkLost{
			Requests: n.Happened[lossy.RequestLost] + n.Happened[lossy.RequestCut],
			Answers:  n.Happened[lossy.AnswerLost] + n.Happened[lossy.AnswerCut],
			HungUp:   n.Happened[lossy.HangUp], Refused: n.Refused, Delayed: n.Held,
		},
		DurationMS: time.Since(b.began).Milliseconds(),
	}
	if b.gateway != nil {
		r.GatewayStarts = b.gateway.starts
	}
	r.Unavailable = r.Refusals[storm.ReasonNoStore] + r.Refusals[storm.ReasonNoUpstream] + r.Refusals[storm.ReasonFull]
	r.Bounds = bounds{Double: storm.Three(r.Keys), Lost: storm.Three(r.Paid), Leaked: storm.Three(r.answers())}
	r.judge(problems)
	return r, nil
}

// judge says what is wrong with a run.
func (r *Report) judge(problems []string) {
	r.Problems = append([]string{}, problems...)
	say := func(n int, format string, args ...any) {
		if n > 0 {
			r.Problems = append(r.Problems, fmt.Sprintf(format, args...))
		}
	}
	say(r.Double, "%d payments were made more than once", r.Double)
	say(r.Lost, "%d payments were reported as made and are not in the ledger", r.Lost)
	say(r.Leaked, "%d answers held what belongs to somebody else", r.Leaked)
	say(r.Flips, "%d payments got two answers that contradict each other", r.Flips)
	say(r.Swallowed, "%d payments got another one's answer", r.Swallowed)
	say(r.Stuck, "%d payments had no definitive answer when the demo ended", r.Stuck)
	say(r.Silent, "%d payments whose outcome is unknown were told as made, or as not made", r.Silent)
	say(r.Unlisted, "the store's list of keys in doubt differs from what the clients were told, by %d", r.Unlisted)
	say(r.Unexpected, "%d answers have no place in the contract: %s", r.Unexpected, strings.Join(r.otherReasons(), ", "))
	// A run in which nothing went wrong with the network, or nobody asked twice,
	// proves nothing.
	for _, must := range [...]struct {
		n    int
		what string
	}{
		{r.Keys, "no payment was asked for"},
		{r.Network.Requests + r.Network.Answers, "the network lost nothing"},
		{r.Executions, "no payment was made"},
	} {
		if must.n == 0 {
			r.Problems = append(r.Problems, must.what)
		}
	}
	if !r.Bypass && r.GatewayKills == 0 {
		r.Problems = append(r.Problems, "the gateway was never killed")
	}
	r.OK = len(r.Problems) == 0
}

// answers are the requests that were answered.
func (r *Report) answers() int { return r.Requests - r.Unanswered }

// otherReasons are the refusals that the demo does not expect.
func (r *Report) otherReasons() (reasons []string) {
	for reason := range r.Refusals {
		if storm.Unexpected(reason) {
			reasons = append(reasons, reason)
		}
	}
	slices.Sort(reasons)
	return reasons
}

func (r *Report) writeJSON(w io.Writer) error {
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	_, err = w.Write(append(text, '\n'))
	return err
}

// inDoubt asks the store for its keys in doubt, as an operator would.
func (g *gateway) inDoubt(ctx context.Context) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	command := g.command(ctx, "list", "--store", g.store(), "--state", "in-doubt", "--limit", "10000", "--json")
	var complaint strings.Builder
	command.Stderr = &complaint
	out, err := command.Output()
	if err != nil {
		return nil, fmt.Errorf("semel list --state in-doubt: %w: %s", err, strings.TrimSpace(complaint.String()))
	}
	var list struct {
		Records []struct {
			Key string `json:"key"`
		} `json:"records"`
	}
	if err := json.Unmarshal(out, &list); err != nil {
		return nil, fmt.Errorf("semel list --state in-doubt --json: %w", err)
	}
	keys := []string{}
	for _, r := range list.Records {
		keys = append(keys, r.Key)
	}
	return keys, nil
}
