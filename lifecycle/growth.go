package lifecycle

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/semelhq/semel"
)

// Growth is how much a store holds, of what, and what it will come to.
type Growth struct {
	// Measure is the store's own word. Where the store cannot measure, Records is
	// estimated from the sample, Bytes and JournalBytes are -1, and OldestPending and
	// Overdue are not known.
	semel.Measure
	// Sampled is how many records were looked at, and Complete tells that they were
	// all: then nothing of what follows is estimated.
	Sampled  int
	Complete bool
	// BytesPerRecord is Bytes / Records; -1 if the store cannot tell, 0 if it is empty.
	BytesPerRecord float64
	// PendingAge is how old the oldest pending record is, and Lag how long the sweeper
	// is behind; 0 if there is nothing pending, nothing due.
	PendingAge, Lag time.Duration
	// Inflow is what is new; Forecast is what that comes to.
	Inflow   Inflow
	Forecast Forecast
	// Scopes are those that hold most, the largest first, and Others what is in all
	// others together. A scope that has less than Unseen of the records may be missing.
	Scopes []ScopeGrowth
	Others ScopeGrowth
	// Unseen is 3 / Sampled (95 %), and 0 if the sample is complete.
	Unseen float64
}

// ScopeGrowth is what one scope holds.
type ScopeGrowth struct {
	Scope string
	// Share is the part of all records, 0 to 1, and Error how far it may be off (95 %),
	// for the size of the sample.
	Share, Error float64
	// Records and Bytes are that part of the store's, without what is free in it; Bytes
	// is -1 if the store cannot tell.
	Records, Bytes int64
	// PerDay is how many new keys come in a day.
	PerDay float64
}

// MeasureOptions are the settings of Measure. The zero value is usable.
type MeasureOptions struct {
	// Sample is how many records are looked at. Default 5,000.
	Sample int
	// Scopes is how many scopes are told one by one. Default 20.
	Scopes int
	// From is where the sample begins: it goes on from there in the order of the
	// digests. Default: at random.
	From semel.Digest
}

// Measure asks the store how much it holds, if it is a [semel.Measurer], and looks
// at a sample of its records, if it is a [semel.Lister]; it has to be one of them.
// Digests are uniform, so the records that follow a digest are a random sample. It
// reads the results of the sample, in pages of a few megabytes.
func Measure(ctx context.Context, store semel.Store, o MeasureOptions) (Growth, error) {
	return measure(ctx, store, o, func(items func() (int, error)) error {
		_, err := items()
		return err
	})
}

// measure makes each call of the store by call, which tells it how many items it
// dealt with.
func measure(ctx context.Context, store semel.Store, o MeasureOptions, call func(func() (int, error)) error) (Growth, error) {
	measurer, measures := semel.As[semel.Measurer](store)
	lister, lists := semel.As[semel.Lister](store)
	if !measures && !lists {
		return Growth{}, errors.New("lifecycle: this store can neither measure nor list, so its growth is not known")
	}
	o = o.filled()
	m := semel.Measure{Estimated: true, Bytes: -1, JournalBytes: -1}
	err := call(func() (n int, err error) {
		if measures {
			m, err = measurer.Measure(ctx)
			return 0, err
		}
		held, err := store.Get(ctx, semel.Digest{})
		m.At = held.Now
		return 0, err
	})
	if err != nil {
		return Growth{}, err
	}
	s := sample{at: m.At, from: o.From}
	if lists {
		if err := s.take(ctx, lister, o.Sample, call); err != nil {
			return Growth{}, fmt.Errorf("taking a sample: %w", err)
		}
		if s.complete {
			m.Records, m.Estimated = int64(len(s.seen)), false
		} else if !measures {
			m.Records = whole(float64(len(s.seen)) / s.covered)
		}
	}
	return s.growth(m, o.Scopes), nil
}

func (o MeasureOptions) filled() MeasureOptions {
	if o.Sample <= 0 {
		o.Sample = 5000
	}
	if o.Scopes <= 0 {
		o.Scopes = 20
	}
	if o.From == (semel.Digest{}) {
		binary.BigEndian.PutUint64(o.From[:], rand.Uint64())
	}
	return o
}

// sample is a part of a store's records, without their results.
type sample struct {
	at       time.Time
	from     semel.Digest
	seen     []seen
	complete bool
	// covered is the part of all digests among which these are all records.
	covered float64
}

type seen struct {
	scope       string
	age         time.Duration
	ttl, replay time.Duration
	result      int
	fields      int // bytes of all else
	ended       bool
}

// pageBytes is about how many bytes of results are read at once.
const pageBytes = 8 << 20

// take reads n records that follow the first digest, going on from the beginning
// after the last one there is.
func (s *sample) take(ctx context.Context, store semel.Lister, n int, call func(func() (int, error)) error) error {
	var last semel.Digest
	size, wrapped := 0, false
	after := s.from
	for len(s.seen) < n {
		limit := min(n-len(s.seen), 100)
		if len(s.seen) > 0 {
			limit = min(n-len(s.seen), max(pageBytes/(size/len(s.seen)+500), 50))
		}
		var page []semel.Record
		err := call(func() (_ int, err error) {
			page, err = store.List(ctx, semel.Filter{After: after, Limit: limit})
			if errors.Is(err, semel.ErrDamaged) { // what can be read is there
				err = nil
			}
			return len(page), err
		})
		if err != nil {
			return err
		}
		for i := range page {
			r := &page[i]
			if wrapped && bytes.Compare(r.Digest[:], s.from[:]) > 0 {
				s.complete, s.covered = true, 1
				return nil
			}
			s.add(r)
			size += len(r.Result)
			last = r.Digest
		}
		switch {
		case len(page) == limit:
			after = last
		case wrapped:
			s.complete, s.covered = true, 1
			return nil
		default:
			after, wrapped = semel.Digest{}, true
		}
	}
	from, to := binary.BigEndian.Uint64(s.from[:]), binary.BigEndian.Uint64(last[:])
	s.covered = float64(to-from) / (1 << 64) // wraps around as the digests do
	return nil
}

// fixedBytes is about what the fields of a record take that have a fixed size.
const fixedBytes = 200

// mostFold is how many times their size a record's fields take at most, with the
// indexes and with pages that are partly full. What a store has beyond that is free.
const mostFold = 4

func (s *sample) add(r *semel.Record) {
	s.seen = append(s.seen, seen{
		scope: r.Key.Scope, age: max(s.at.Sub(r.WrittenAt), 0), ttl: r.TTL, replay: r.Replay, result: len(r.Result),
		fields: fixedBytes + len(r.Key.Scope) + len(r.Key.ID) + len(r.Owner), ended: r.State != semel.Pending,
	})
}

// over is the time that rates are of: a day, or the age of what is oldest.
func (s *sample) over() time.Duration {
	over := time.Minute
	for i := range s.seen {
		over = max(over, s.seen[i].age+1)
	}
	return min(over, 24*time.Hour)
}

// growth computes everything from the store's word and the sample.
func (s *sample) growth(m semel.Measure, scopes int) Growth {
	g := Growth{Measure: m, Sampled: len(s.seen), Complete: s.complete, BytesPerRecord: -1}
	if !m.OldestPending.IsZero() {
		g.PendingAge = max(m.At.Sub(m.OldestPending), 0)
	}
	if !m.Overdue.IsZero() {
		g.Lag = max(m.At.Sub(m.Overdue), 0)
	}
	switch {
	case m.Bytes >= 0 && m.Records > 0:
		g.BytesPerRecord = float64(m.Bytes) / float64(m.Records)
	case m.Bytes >= 0:
		g.BytesPerRecord = 0
	}
	g.Inflow.Record = g.BytesPerRecord
	if len(s.seen) == 0 {
		g.Forecast = Predict(m.Records, g.Inflow)
		return g
	}
	if !s.complete {
		g.Unseen = 3 / float64(len(s.seen))
	}
	each := float64(m.Records) / float64(len(s.seen)) // records that one of the sample stands for
	record, result := s.sizes(&g, each)
	over := s.over()
	g.Inflow = s.inflow(s.seen, over, each, record, result)
	g.Forecast = s.forecast(over, each, record, result)
	g.split(s, scopes, each, record, result)
	return g
}

// forecast adds up what is foretold of the keys of each retention.
func (s *sample) forecast(over time.Duration, each, record, result float64) Forecast {
	kinds := make(map[int][]seen)
	for _, r := range s.seen {
		// Keys that carry their own time are kept a little longer than others.
		kind := int(math.Log(max(r.ttl.Seconds(), 1)) / math.Log(1.2))
		if !r.ended || r.ttl > permanent {
			kind = -1
		}
		kinds[kind] = append(kinds[kind], r)
	}
	stay := whole(each * float64(len(kinds[-1]))) // as many as are pending now
	f := Forecast{Records: stay, Bytes: whole(float64(stay) * record)}
	if record < 0 {
		f.Bytes = -1
	}
	delete(kinds, -1)
	for _, of := range kinds {
		f = f.add(Predict(whole(each*float64(len(of))), s.inflow(of, over, each, record, result)))
	}
	return f
}

// sizes gives what a record takes without its result, -1 if the store cannot tell,
// and what a byte of a result takes, which is less than one where the store
// compresses.
func (s *sample) sizes(g *Growth, each float64) (record, result float64) {
	all, fields := 0.0, 0.0
	for i := range s.seen {
		all += each * float64(s.seen[i].result)
		fields += float64(s.seen[i].fields)
	}
	switch {
	case g.BytesPerRecord < 0:
		return -1, 1
	case all <= float64(g.Bytes):
		return min((float64(g.Bytes)-all)/float64(max(g.Records, 1)), mostFold*fields/float64(len(s.seen))), 1
	}
	return 0, float64(g.Bytes) / all
}

// split fills in the scopes, of which so many are told one by one.
func (g *Growth) split(s *sample, scopes int, each, record, result float64) {
	counts := make(map[string]*ScopeGrowth)
	taken := make(map[string]float64) // bytes of results
	over := s.over()
	for i := range s.seen {
		r := &s.seen[i]
		of := counts[r.scope]
		if of == nil {
			of = &ScopeGrowth{Scope: r.scope}
			counts[r.scope] = of
		}
		of.Share++
		of.PerDay += each * r.flow(over).perDay
		taken[r.scope] += each * result * float64(r.result)
	}
	for scope, of := range counts {
		of.Records = whole(each * of.Share)
		of.Bytes = -1
		if record >= 0 {
			of.Bytes = whole(each*of.Share*record + taken[scope])
		}
		of.Share /= float64(len(s.seen))
		of.Error = s.margin(of.Share)
		g.Scopes = append(g.Scopes, *of)
	}
	slices.SortFunc(g.Scopes, func(a, b ScopeGrowth) int {
		return cmp.Or(cmp.Compare(b.Share, a.Share), cmp.Compare(a.Scope, b.Scope))
	})
	if len(g.Scopes) <= scopes {
		return
	}
	for _, of := range g.Scopes[scopes:] {
		g.Others.Share += of.Share
		g.Others.Records += of.Records
		g.Others.Bytes += of.Bytes
		g.Others.PerDay += of.PerDay
	}
	g.Others.Bytes = max(g.Others.Bytes, -1)
	g.Others.Error = s.margin(g.Others.Share)
	g.Scopes = slices.Clip(g.Scopes[:scopes])
}

// margin is half of Wilson's interval (95 %) of a share.
func (s *sample) margin(share float64) float64 {
	if s.complete {
		return 0
	}
	const z = 1.96
	n := float64(len(s.seen))
	return z / (1 + z*z/n) * math.Sqrt(share*(1-share)/n+z*z/(4*n*n))
}
