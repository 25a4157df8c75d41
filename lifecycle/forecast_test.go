package lifecycle_test

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/semelhq/semel/lifecycle"
)

func TestPredict(t *testing.T) {
	in := lifecycle.Inflow{PerDay: 1000, Error: 50, Remember: 72 * time.Hour, Longest: 72 * time.Hour, Record: 300, Results: 2_000_000, Replay: 24 * time.Hour}
	for _, c := range []struct {
		name    string
		records int64
		change  func(*lifecycle.Inflow)
		want    lifecycle.Forecast
	}{
		{"empty", 0, func(*lifecycle.Inflow) {}, lifecycle.Forecast{Records: 3000, Bytes: 2_900_000, Error: 150, Within: 72 * time.Hour}},
		{"a day old", 1000, func(*lifecycle.Inflow) {}, lifecycle.Forecast{Records: 3000, Bytes: 2_900_000, Error: 150, Within: 48 * time.Hour}},
		{"there already", 3000, func(*lifecycle.Inflow) {}, lifecycle.Forecast{Records: 3000, Bytes: 2_900_000, Error: 150}},
		{"more than it will be", 9000, func(*lifecycle.Inflow) {}, lifecycle.Forecast{Records: 3000, Bytes: 2_900_000, Error: 150, Within: 72 * time.Hour}},
		{"another retention", 1000, func(in *lifecycle.Inflow) { in.Remember = 720 * time.Hour }, lifecycle.Forecast{Records: 30_000, Bytes: 11_000_000, Error: 1500, Within: 29 * 24 * time.Hour}},
		{"bytes not known", 0, func(in *lifecycle.Inflow) { in.Record = -1 }, lifecycle.Forecast{Records: 3000, Bytes: -1, Error: 150, Within: 72 * time.Hour}},
		{"nothing comes", 100, func(in *lifecycle.Inflow) { *in = lifecycle.Inflow{Longest: time.Hour} }, lifecycle.Forecast{Within: time.Hour}},
		{"nothing at all", 0, func(in *lifecycle.Inflow) { *in = lifecycle.Inflow{} }, lifecycle.Forecast{}},
	} {
		in := in
		c.change(&in)
		if got := lifecycle.Predict(c.records, in); got != c.want {
			t.Errorf("%s: got %+v, want %+v", c.name, got, c.want)
		}
	}
}

// More that comes, or stays longer, is never less that is held; and what is held is
// what a store that is simulated day by day comes to.
func TestPredictProperties(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 5))
	for range 20_000 {
		in := lifecycle.Inflow{
			PerDay: math.Exp(r.Float64() * 25), Error: r.Float64() * 100, Remember: time.Duration(r.Int64N(int64(400 * day))),
			Record: r.Float64() * 1000, Results: math.Exp(r.Float64() * 30), Replay: time.Duration(r.Int64N(int64(400 * day))),
		}
		in.Longest = in.Remember + time.Duration(r.Int64N(int64(day)))
		n := r.Int64N(1_000_000)
		base := lifecycle.Predict(n, in)
		more := in
		switch r.IntN(4) {
		case 0:
			more.PerDay *= 1 + r.Float64()
		case 1:
			more.Remember += time.Duration(r.Int64N(int64(day)))
		case 2:
			more.Record *= 1 + r.Float64()
		default:
			more.Results *= 1 + r.Float64()
		}
		got := lifecycle.Predict(n, more)
		if got.Records < base.Records || got.Bytes < base.Bytes || base.Within < 0 || base.Within > max(in.Longest, in.Remember) || base.Error < 0 {
			t.Fatalf("%+v gives %+v, and %+v %+v", in, base, more, got)
		}
		if again := lifecycle.Predict(base.Records, in); again.Records != base.Records || again.Bytes != base.Bytes {
			t.Fatalf("%+v gives %+v, and once there %+v", in, base, again)
		}
	}
}

func TestPredictAgainstADayByDayCount(t *testing.T) {
	r := rand.New(rand.NewPCG(6, 6))
	for range 300 {
		perDay, keep, age := 1+r.IntN(5000), 1+r.IntN(60), r.IntN(90)
		held := func(days int) int64 { return int64(perDay * min(days, keep)) }
		in := lifecycle.Inflow{PerDay: float64(perDay), Remember: time.Duration(keep) * day, Longest: time.Duration(keep) * day}
		f := lifecycle.Predict(held(age), in)
		within := int(f.Within.Round(day) / day)
		off := f.Records/50 + 1 // what counts as there already
		if held(age+within) < f.Records-off || f.Records != held(age+keep) || within > 0 && held(age+within-1) == f.Records {
			t.Fatalf("%d a day kept for %d days, after %d: %+v; %d days later there are %d", perDay, keep, age, f, within, held(age+within))
		}
	}
}

func TestPredictSurvivesNonsense(t *testing.T) {
	odd := []float64{math.NaN(), math.Inf(1), math.Inf(-1), -1, 0, math.MaxFloat64}
	for _, a := range odd {
		for _, b := range odd {
			f := lifecycle.Predict(math.MaxInt64, lifecycle.Inflow{PerDay: a, Error: b, Record: b, Results: a, Remember: math.MaxInt64, Longest: math.MinInt64, Replay: math.MaxInt64})
			if f.Records < 0 || f.Bytes < -1 || f.Within < 0 || f.Error < 0 {
				t.Errorf("%v and %v give %+v", a, b, f)
			}
		}
	}
}
