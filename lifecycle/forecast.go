package lifecycle

import (
	"math"
	"time"
)

// Inflow is what comes into a store, as far as a sample tells.
type Inflow struct {
	// PerDay is how many new keys come in a day, and Error how far that may be off
	// (95 %), for the size of the sample.
	PerDay, Error float64
	// Over is the time that the rate is of: a day, or less if the store is younger.
	Over time.Duration
	// Remember is how long they are remembered, on average, and Longest the longest.
	Remember, Longest time.Duration
	// Record is what one of them takes without its result, in bytes with its share of
	// the indexes; negative if the store cannot tell. In a store that is nearly empty
	// it is a guess from the sizes of the fields.
	Record float64
	// Results is how many bytes of results come in a day, and Replay how long a byte
	// of them is kept, on average.
	Results float64
	Replay  time.Duration
}

// Forecast is what a store will hold if as much goes on coming in.
type Forecast struct {
	// Records are held then, and they take Bytes, without the journal; Bytes is -1 if
	// the store cannot tell.
	Records, Bytes int64
	// Error is how far Records may be off (95 %), for the size of the sample.
	Error int64
	// Within is when that is reached, from now; it stays so afterwards.
	Within time.Duration
}

// Predict says what a store of so many records will hold if in goes on for as long
// as its longest retention: what comes in a day, times the days that it stays. Set
// in.Remember to ask what another retention would take. Within is true of keys that
// stay about equally long; [Measure] adds up what it finds of each kind. It is a pure
// function.
func Predict(records int64, in Inflow) Forecast {
	days := func(d time.Duration) float64 { return max(d.Hours()/24, 0) }
	perDay := max(in.PerDay, 0)
	held := perDay * days(in.Remember)
	f := Forecast{Records: whole(held), Error: whole(max(in.Error, 0) * days(in.Remember)), Bytes: -1}
	if in.Record >= 0 {
		f.Bytes = whole(held*in.Record + max(in.Results, 0)*days(in.Replay))
	}
	// While there are fewer, none of them goes: the first would when the retention of
	// what comes now ends. What there is too much of is gone by then.
	f.Within = max(in.Longest, in.Remember, 0)
	missing := held - float64(records)
	switch {
	case math.Abs(missing) <= max(float64(f.Error), held/50):
		f.Within = 0
	case perDay > 0 && missing > 0:
		f.Within = min(f.Within, span(missing/perDay))
	}
	return f
}

// add gives what two kinds of keys come to together.
func (f Forecast) add(g Forecast) Forecast {
	sum := Forecast{Records: f.Records + g.Records, Bytes: -1, Within: max(f.Within, g.Within)}
	if f.Bytes >= 0 && g.Bytes >= 0 {
		sum.Bytes = f.Bytes + g.Bytes
	}
	sum.Error = whole(math.Hypot(float64(f.Error), float64(g.Error)))
	return sum
}

// whole rounds, and stays within what 64 bits hold.
func whole(x float64) int64 {
	switch {
	case math.IsNaN(x) || x <= 0:
		return 0
	case x >= math.MaxInt64:
		return math.MaxInt64
	}
	return int64(math.Round(x))
}

// span is a number of days as a time.
func span(days float64) time.Duration { return time.Duration(whole(days * float64(24*time.Hour))) }

// permanent is a time to live that does not end: such a record is a mark, no key.
const permanent = 50 * 365 * 24 * time.Hour

// briefest is the shortest retention that counts: what is kept for less is not
// there long enough to be counted.
const briefest = time.Second

// flow is what a record of the sample says about what comes in: one that is kept for
// half a day stands for two that came in a day, of which one is gone.
type flow struct {
	perDay, held   float64 // keys a day; keys held when that goes on
	results, bytes float64 // bytes of results a day; bytes of results held
}

func (r *seen) flow(over time.Duration) flow {
	if !r.ended || r.ttl < briefest || r.ttl > permanent {
		return flow{}
	}
	var f flow
	if w := min(over, r.ttl); r.age < w {
		f.perDay, f.held = 24/w.Hours(), float64(r.ttl)/float64(w)
	}
	replay := min(r.replay, r.ttl)
	if w := min(over, replay); r.age < w {
		f.results, f.bytes = float64(r.result)*24/w.Hours(), float64(r.result)*float64(replay)/float64(w)
	}
	return f
}

// inflow says what comes in of those records, which are among the sample's.
func (s *sample) inflow(of []seen, over time.Duration, each, record, result float64) Inflow {
	in := Inflow{Over: over, Record: record}
	var sum flow
	squares := 0.0
	for i := range of {
		r := &of[i]
		f := r.flow(in.Over)
		sum = flow{sum.perDay + f.perDay, sum.held + f.held, sum.results + f.results, sum.bytes + f.bytes}
		squares += f.perDay * f.perDay
		if f.perDay > 0 {
			in.Longest = max(in.Longest, r.ttl)
		}
	}
	n := float64(len(s.seen))
	in.PerDay, in.Results = each*sum.perDay, each*result*sum.results
	if sum.perDay > 0 {
		in.Remember = span(sum.held / sum.perDay)
	}
	if sum.results > 0 {
		in.Replay = span(sum.bytes / sum.results)
	}
	if !s.complete {
		mean := sum.perDay / n
		// What was not seen at all may still be 3 of n (95 %).
		least := 3 / n * 24 / in.Over.Hours()
		in.Error = each * n * max(1.96*math.Sqrt(max(squares/n-mean*mean, 0)/n), least)
	}
	return in
}
