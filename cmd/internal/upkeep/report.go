package upkeep

import (
	"math"
	"time"

	"github.com/semelhq/semel/adapter/otel"
	"github.com/semelhq/semel/lifecycle"
)

// Report is the growth of a store for programs. Fields are added, never renamed. What
// the store cannot tell is null.
type Report struct {
	Store          string         `json:"store"`
	At             time.Time      `json:"at"` // by the store's clock
	Records        int64          `json:"records"`
	Estimated      bool           `json:"estimated"`
	Bytes          *int64         `json:"bytes"`
	BytesPerRecord *float64       `json:"bytes_per_record"`
	JournalBytes   *int64         `json:"journal_bytes"`
	PendingSeconds float64        `json:"oldest_pending_seconds"`
	LagSeconds     float64        `json:"sweep_lag_seconds"`
	NewPerDay      float64        `json:"new_per_day"`
	NewPerDayError float64        `json:"new_per_day_error"` // 95 %
	Over           float64        `json:"new_over_seconds"`  // the time that the rate is of
	Remember       float64        `json:"remember_seconds"`  // of new keys, on average
	Replay         float64        `json:"replay_seconds"`    // of their results, by bytes
	Forecast       ForecastReport `json:"forecast"`
	Sampled        int            `json:"sampled"`
	Complete       bool           `json:"complete"` // the sample is all there is
	Unseen         float64        `json:"unseen"`   // a scope with a smaller share may be missing
	Scopes         []ScopeReport  `json:"scopes"`
	Others         *ScopeReport   `json:"others,omitempty"`
}

// ForecastReport is what there will be if as much goes on coming in.
type ForecastReport struct {
	Records       int64    `json:"records"`
	RecordsError  int64    `json:"records_error"` // 95 %
	Bytes         *int64   `json:"bytes"`
	WithinSeconds float64  `json:"within_seconds"`
	Remember      *float64 `json:"if_remembered_seconds,omitempty"` // asked for, in place of what is configured
}

// ScopeReport is what one scope holds.
type ScopeReport struct {
	Scope      string  `json:"scope,omitempty"`
	ID         string  `json:"id,omitempty"` // which it has in metrics
	Records    int64   `json:"records"`
	Share      float64 `json:"share"`
	ShareError float64 `json:"share_error"` // 95 %
	Bytes      *int64  `json:"bytes"`
	NewPerDay  float64 `json:"new_per_day"`
}

// NewReport gives the report of a store. remember is a retention to foretell, in
// place of that which the keys have; 0: theirs.
func NewReport(store string, g *lifecycle.Growth, remember time.Duration) Report {
	r := Report{
		Store: store, At: g.At.UTC(), Records: g.Records, Estimated: g.Estimated, Bytes: known(g.Bytes), JournalBytes: known(g.JournalBytes),
		PendingSeconds: g.PendingAge.Seconds(), LagSeconds: g.Lag.Seconds(),
		NewPerDay: rounded(g.Inflow.PerDay), NewPerDayError: rounded(g.Inflow.Error), Over: g.Inflow.Over.Seconds(), Remember: g.Inflow.Remember.Seconds(), Replay: g.Inflow.Replay.Seconds(),
		Forecast: forecast(g, remember), Sampled: g.Sampled, Complete: g.Complete, Unseen: g.Unseen, Scopes: []ScopeReport{},
	}
	if g.BytesPerRecord >= 0 {
		each := rounded(g.BytesPerRecord)
		r.BytesPerRecord = &each
	}
	for i := range g.Scopes {
		r.Scopes = append(r.Scopes, scope(&g.Scopes[i]))
	}
	if g.Others.Records > 0 {
		others := scope(&g.Others)
		r.Others = &others
	}
	return r
}

func forecast(g *lifecycle.Growth, remember time.Duration) ForecastReport {
	f := g.Forecast
	var asked *float64
	if remember > 0 {
		in := g.Inflow
		in.Remember, in.Longest, in.Replay = remember, remember, min(in.Replay, remember)
		f = lifecycle.Predict(g.Records, in)
		seconds := remember.Seconds()
		asked = &seconds
	}
	return ForecastReport{f.Records, f.Error, known(f.Bytes), f.Within.Seconds(), asked}
}

func scope(g *lifecycle.ScopeGrowth) ScopeReport {
	id := ""
	if g.Scope != "" {
		id = otel.ScopeID(g.Scope)
	}
	return ScopeReport{g.Scope, id, g.Records, g.Share, g.Error, known(g.Bytes), rounded(g.PerDay)}
}

// known gives nil for what a store cannot tell.
func known(n int64) *int64 {
	if n < 0 {
		return nil
	}
	return &n
}

// rounded drops digits that a sample cannot have.
func rounded(x float64) float64 { return math.Round(x*100) / 100 }
