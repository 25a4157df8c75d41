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
