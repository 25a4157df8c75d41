package storetest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"maps"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/semelhq/semel"
)

// disk is what a plain store keeps at one place.
type disk struct {
	mu      sync.Mutex
	records map[semel.Digest]semel.Record
	entries map[semel.Digest][]semel.Entry
	version semel.Version
}

// plain is a store of the shortest code, with every ability, and with one flaw
// by name. It lives as long as its disk.
type plain struct {
	*disk
	now  func() time.Time
	flaw string
}

var (
	_ semel.Store    = (*plain)(nil)
	_ semel.Batcher  = (*plain)(nil)
	_ semel.Sweeper  = (*plain)(nil)
	_ semel.Days     = (*plain)(nil)
	_ semel.Measurer = (*plain)(nil)
	_ semel.Lister   = (*plain)(nil)
	_ semel.Journal  = (*plain)(nil)
)

// plainMaker makes plain stores with a flaw, "" for none.
func plainMaker(flaw string) Maker {
	var mu sync.Mutex
	disks := map[string]*disk{}
	return Maker{
		Has: Batches | Sweeps | Lists | Journals | Durable | Shared,
		Open: func(_ testing.TB, at Place) semel.Store {
			mu.Lock()
			defer mu.Unlock()
			d := disks[at.Name]
			if d == nil || flaw == "forgets on restart" {
				d = &disk{records: map[semel.Digest]semel.Record{}, entries: map[semel.Digest][]semel.Entry{}, version: semel.Version{Epoch: 1}}
				disks[at.Name] = d
			}
			if flaw == "counter found again by the greatest version held" {
				d.version.Counter = 0
				for _, r := range d.records {
					d.version.Counter = max(d.version.Counter, r.Version.Counter)
				}
			}
			return &plain{disk: d, now: at.Now, flaw: flaw}
		},
	}
}

func (s *plain) Get(ctx context.Context, d semel.Digest) (semel.Reading, error) {
	if err := ctx.Err(); err != nil {
		if s.flaw == "reads nothing when cancelled" {
			return semel.Reading{Now: s.now()}, nil
		}
		return semel.Reading{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.reading(s.records[s.name(d)])
	if s.flaw == "hides a pending record past its lease" && r.Record.State == semel.Pending && !r.Now.Before(r.Record.Expires()) {
		r.Record = semel.Record{}
	}
	return r, nil
}

// name is the digest as the store knows it.
func (s *plain) name(d semel.Digest) semel.Digest {
	switch s.flaw {
	case "folds case":
		return semel.Digest(bytes.ToLower(d[:]))
	case "cuts digests at 31 bytes":
		d[31] = 0
	case "cuts digests at a zero byte":
		if i := bytes.IndexByte(d[:], 0); i >= 0 {
			clear(d[i:])
		}
	}
	return d
}

func (s *plain) reading(r semel.Record) semel.Reading {
	now := s.now()
	if s.flaw == "a clock of whole seconds" {
		now = now.Truncate(time.Second)
	}
	return semel.Reading{Record: r, Now: now}
}

func (s *plain) CompareAndSwap(ctx context.Context, old semel.Version, next semel.Record) (semel.Reading, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.swap(ctx, old, next)
}

func (s *plain) swap(ctx context.Context, old semel.Version, next semel.Record) (semel.Reading, error) {
	if err := ctx.Err(); err != nil {
		if s.flaw == "conflicts when cancelled" {
			return semel.Reading{}, semel.ErrConflict
		}
		return semel.Reading{}, err
	}
	held := s.records[s.name(next.Digest)]
	if !s.agrees(held, old, next) {
		return s.refuse(held, next)
	}
	if s.flaw == "checks, then writes" {
		s.mu.Unlock()
		for range 100 {
			runtime.Gosched()
		}
		s.mu.Lock()
	}
	r := s.reading(s.write(held, next))
	return r, nil
}

// agrees tells whether the swap may be written.
func (s *plain) agrees(held semel.Record, old semel.Version, next semel.Record) bool {
	switch s.flaw {
	case "ignores the old version":
		return held.Held() != old.IsZero()
	case "compares counters only":
		return held.Version.Counter == old.Counter
	case "compares 32 bits":
		return uint32(held.Version.Counter) == uint32(old.Counter) && held.Version.Epoch == old.Epoch
	case "accepts newer versions":
		return old.Compare(held.Version) >= 0
	case "writes over nothing whatever the version":
		return !held.Held() || held.Version == old
	case "inserts over a released record":
		return held.Version == old || held.State == semel.Released && old.IsZero()
	case "inserts over a lease that ended":
		return held.Version == old || held.State == semel.Pending && old.IsZero() && !s.now().Before(held.Expires())
	case "a repeated write succeeds":
		return held.Version == old || held.Nonce == next.Nonce && held.Held()
	}
	return held.Version == old
}

func (s *plain) refuse(held, next semel.Record) (semel.Reading, error) {
	r := s.reading(held)
	switch s.flaw {
	case "a conflict brings nothing":
		r.Record = semel.Record{}
	case "a conflict brings no result":
		r.Record.Result = nil
	case "a conflict brings the rival":
		r.Record = next
	case "a conflict has no clock":
		r.Now = time.Time{}
	case "writes in spite of a conflict":
		r.Record = s.write(held, next)
	case "a conflict touches WrittenAt":
		held.WrittenAt = s.now()
		s.records[s.name(next.Digest)] = held
	case "a conflict is journalled":
		s.entries[next.Digest] = append(s.entries[next.Digest], semel.Entry{Record: held})
	case "a conflict is no error":
		return r, nil
	}
	return r, semel.ErrConflict
}

// write does what the flaw leaves of a write.
func (s *plain) write(held, next semel.Record) semel.Record {
	s.version.Counter++
	given := next
	next.Version, next.WrittenAt = s.version, s.reading(next).Now
	switch s.flaw {
	case "versions restart when a record is forgotten":
		next.Version = semel.Version{Epoch: 1, Counter: held.Version.Counter + 1}
	case "the same version twice":
		next.Version.Counter = max(1, s.version.Counter/2)
	case "the caller's version":
		if !given.Version.IsZero() && given.Version != held.Version {
			next.Version = given.Version
		}
	case "the caller's WrittenAt":
		if !given.WrittenAt.IsZero() {
			next.WrittenAt = given.WrittenAt
		}
	case "WrittenAt is kept from the insert":
		if held.Held() {
			next.WrittenAt = held.WrittenAt
		}
	}
	s.spoil(held, &next)
	s.records[s.name(next.Digest)] = next
	s.note(next)
	return next
}

// spoil loses something of a record on its way in.
func (s *plain) spoil(held semel.Record, next *semel.Record) {
	switch s.flaw {
	case "drops the owner":
		next.Owner = ""
	case "drops the nonce":
		next.Nonce = semel.Nonce{}
	case "TTL in milliseconds":
		next.TTL = next.TTL.Truncate(time.Millisecond)
	case "replay in seconds of 32 bits":
		next.Replay = time.Duration(int32(next.Replay/time.Second)) * time.Second
	case "keeps valid UTF-8 only":
		next.Key.ID = strings.ToValidUTF8(next.Key.ID, "\uFFFD")
	case "trims spaces":
		next.Key.Scope = strings.TrimRight(next.Key.Scope, " ")
	case "cuts a result at 64 KiB":
		next.Result = next.Result[:min(len(next.Result), 64<<10)]
	case "cuts a result at a zero byte":
		next.Result, _, _ = bytes.Cut(next.Result, []byte{0})
	case "keeps no result while pending":
		if next.State == semel.Pending {
			next.Result = nil
		}
	case "keeps the old result where there is none":
		if len(next.Result) == 0 {
			next.Result = held.Result
		}
	case "attempts in 16 bits":
		next.Attempt = int(int16(next.Attempt))
	}
}

// note writes the journal.
func (s *plain) note(r semel.Record) {
	entry := semel.Entry{Record: r}
	if len(r.Result) > 0 {
		entry.ResultSum = sha256.Sum256(r.Result)
	}
	switch s.flaw {
	case "journals no renewals":
		if r.State == semel.Pending && r.TTL == 2*time.Hour {
			return
		}
	case "journals twice":
		s.entries[r.Digest] = append(s.entries[r.Digest], entry)
	case "journals no sums":
		entry.ResultSum = [32]byte{}
	}
	if s.flaw != "journals results" {
		entry.Record.Result = nil
	}
	s.entries[r.Digest] = append(s.entries[r.Digest], entry)
}

func (s *plain) SwapMany(ctx context.Context, swaps []semel.Swap) []semel.Swapped {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := maps.Clone(s.records)
	out := make([]semel.Swapped, len(swaps))
	failed := false
	for i, w := range swaps {
		if s.flaw == "a batch sees what was before it" {
			live := s.records
			s.records = maps.Clone(before)
			out[i].Reading, out[i].Err = s.swap(ctx, w.Old, w.Next)
			written := s.records[w.Next.Digest]
			s.records = live
			if out[i].Err == nil {
				s.records[w.Next.Digest] = written
			}
			continue
		}
		out[i].Reading, out[i].Err = s.swap(ctx, w.Old, w.Next)
		failed = failed || out[i].Err != nil
	}
	switch {
	case s.flaw == "a conflict undoes its batch" && failed:
		s.records = before
	case s.flaw == "a batch answers in reverse":
		slices.Reverse(out)
	case s.flaw == "a batch changes the caller's slice":
		for i := range swaps {
			swaps[i].Next.Version = out[i].Reading.Record.Version
		}
	}
	return out
}

func (s *plain) Sweep(ctx context.Context, limit int) (int, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	n, now := 0, s.now()
	for d, r := range s.records {
		if n >= limit && s.flaw != "sweeps without limit" {
			break
		}
		if s.spent(r, now) {
			s.records[d] = s.tombstone(r, now)
			n++
		}
		if s.sweepable(r, now) {
			if s.spent(r, now) {
				n--
			}
			delete(s.records, d)
			n++
			if s.flaw == "a sweep takes the journal along" {
				delete(s.entries, d)
			}
		}
	}
	return n, nil
}

func (s *plain) spent(r semel.Record, now time.Time) bool {
	switch s.flaw {
	case "keeps spent results":
		return false
	case "drops results too soon":
		return r.Replay > 0 && now.After(r.WrittenAt.Add(r.Replay/2))
	case "drops memos":
		return r.Replay > 0 && !now.Before(r.WrittenAt.Add(r.Replay))
	}
	return r.Spent(now)
}

func (s *plain) tombstone(r semel.Record, now time.Time) semel.Record {
	r = r.Tombstone()
	switch s.flaw {
	case "a tombstone is a write":
		r.Version.Counter++
	case "a tombstone lives anew":
		r.WrittenAt = now
	case "a tombstone has no code":
		r.Code = 0
	case "a tombstone could be replayed":
		r.Result, r.Replay = []byte{}, time.Hour
	}
	return r
}

func (s *plain) sweepable(r semel.Record, now time.Time) bool {
	switch s.flaw {
	case "sweeps pending records":
		return !now.Before(r.Expires())
	case "sweeps pending records of a class":
		return (r.State != semel.Pending || r.Class == semel.AtLeastOnce) && !now.Before(r.Expires())
	case "sweeps before the TTL ends":
		return r.State != semel.Pending && now.After(r.WrittenAt.Add(r.TTL/2))
	case "TTL 0 is for ever":
		return r.State != semel.Pending && r.TTL != 0 && !now.Before(r.Expires())
	case "expiry in 64 bits of nanoseconds":
		return r.State != semel.Pending && r.WrittenAt.UnixNano()+int64(r.TTL) <= now.UnixNano()
	case "sweeps nothing that was released":
		return r.State == semel.Done && !now.Before(r.Expires())
	}
	return r.State != semel.Pending && !now.Before(r.Expires())
}
