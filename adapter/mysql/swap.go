package mysql

import (
	"bytes"
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/semelhq/semel"
)

// A swap is one packet of statements: one round trip, one commit. The server
// runs them one after the other and stops at the first that fails, so what must
// not be committed fails: by the primary key, or by EXP(999), which no number can
// hold: codeOverflow, whatever the types of what stands beside it. Then the client
// rolls back, and reads what is there. Open makes sure that EXP(999) fails.
//
//	SELECT what is held under the keys to insert            a duplicate's answer
//	SET the time; overflow if anything was found            before a lock is taken
//	START TRANSACTION
//	UPDATE a record over its version, and so on             each only if the one before it found its row
//	SELECT the time; overflow if the last one did not
//	INSERT the records                                      error 1062 if another was faster
//	SELECT the time; overflow if epoch or floor have moved
//	INSERT the lines of the journal
//	COMMIT
//
// That epoch and floor are read after the rows are locked is what makes the first
// version of a record greater than all that the key ever had: whoever deleted a
// record of it has committed the floor with that.

// maxJobs is the largest number of swaps in one packet.
const maxJobs = 512

// attempts is how often in a row a packet may be stopped by others before the
// call gives up (INVARIANTS T4, T5).
const attempts = 5

// errOldEpoch: the server is another than the epoch was made for, or a caller
// goes over a version of a later epoch than is known here.
var errOldEpoch = errors.New("mysql: the epoch has moved")

// stopCode is the server's number for what stopped a packet, 0 if nobody knows
// what became of it.
func stopCode(err error) uint16 {
	if errors.Is(err, errOldEpoch) {
		return codeOverflow // as the server would have said
	}
	return code(err)
}

// CompareAndSwap is SwapMany of one.
func (e *engine) CompareAndSwap(ctx context.Context, old semel.Version, next semel.Record) (semel.Reading, error) {
	out := e.SwapMany(ctx, []semel.Swap{{Old: old, Next: next}})
	return out[0].Reading, out[0].Err
}

// SwapMany does all swaps, in as few transactions as there may be: one, unless a
// key is among them twice, or others write the same keys. Once a packet is on its
// way, it does not follow ctx but for its deadline (INVARIANTS T6).
func (e *engine) SwapMany(ctx context.Context, swaps []semel.Swap) []semel.Swapped {
	out := make([]semel.Swapped, len(swaps))
	r := newRound(swaps, out, e.packet)
	if len(r.open) == 0 {
		return out
	}
	err := e.with(ctx, func(s *session) error {
		ctx, cancel := e.apart(ctx)
		defer cancel()
		defer s.clean()
		return e.play(ctx, s, r)
	})
	for _, i := range r.open {
		out[i] = semel.Swapped{Err: e.address.explain("swap", err)}
	}
	return out
}

// play sends packets until all swaps of the round are answered. After an error
// nobody knows about those that are left.
func (e *engine) play(ctx context.Context, s *session, r *round) error {
	ep := e.epoch.Load()
	most, stopped := maxJobs, 0
	for len(r.open) > 0 {
		jobs, open := r.pick(most, e.packet), len(r.open)
		why := e.write(ctx, s, r, jobs, ep)
		if why != nil {
			n := stopCode(why)
			if n == 0 {
				return why
			}
			if err := e.lookUp(ctx, s, r, jobs); err != nil {
				return err
			}
			switch {
			case n == codeDuplicate, n == codeDeadlock, n == codeOverflow:
			case (n == codeLockWait || rejected(why)) && len(jobs) > 1:
				most, open = 1, len(r.open)+1 // so that only the one that it is about suffers
			case n == codeLockWait, rejected(why):
				r.fail(jobs[0], e.failed(why))
			default:
				return why
			}
			var err error
			if ep, err = e.renewed(ctx, s, ep, r.left(jobs), n); err != nil {
				return err
			}
		}
		if stopped++; len(r.open) < open {
			stopped = 0
		} else if stopped == attempts {
			return fmt.Errorf("mysql: others were faster %d times; nothing was written: %w", attempts, why)
		}
	}
	return nil
}

// failed is the answer to a job that was tried alone and not written.
func (e *engine) failed(err error) error {
	if rejected(err) {
		return fmt.Errorf("%w: %w", semel.ErrRejected, err)
	}
	return e.address.explain("swap", err)
}

// renewed gives the epoch to go on with, after a packet was stopped and some of
// its jobs are left to do.
func (e *engine) renewed(ctx context.Context, s *session, ep *epoch, jobs []*job, n uint16) (*epoch, error) {
	least := uint64(0)
	for _, j := range jobs {
		least = max(least, j.old.Epoch)
	}
	if len(jobs) == 0 || n != codeOverflow && least <= ep.number {
		return ep, nil
	}
	return e.renew(ctx, s, ep, least)
}

// write sends one packet, and answers its jobs if they were committed, or if the
// keys to insert were held: then no transaction was begun. Any other error with
// a code means that the server has stopped, perhaps in a transaction.
func (e *engine) write(ctx context.Context, s *session, r *round, jobs []*job, ep *epoch) error {
	for _, j := range jobs {
		if j.old.Epoch > ep.number || ep.run != s.run {
			return errOldEpoch
		}
		j.prepare(ep)
	}
	inserts := 0
	for _, j := range jobs {
		if j.old.IsZero() {
			inserts++
		}
	}
	held := seen{run: s.run, rows: map[semel.Digest]row{}}
	var at time.Time
	s.dirty = true
	err := s.each(ctx, string(e.statements(jobs, inserts, ep).b), func(set int, values []driver.Value) {
		if set == 0 && inserts > 0 {
			held.note(values)
		} else {
			at = instant(values[0])
		}
	})
	switch {
	case err == nil && at.IsZero():
		return errors.New("mysql: the server did not tell when it wrote: nobody knows the outcome")
	case err == nil:
		s.dirty = false
		for _, j := range jobs {
			e.wrote(ep, &j.next)
		}
		r.written(jobs, at)
	case code(err) == codeOverflow && len(held.rows) > 0:
		s.dirty = false
		r.settle(insertsOf(jobs), &held, e)
		return nil
	}
	return err
}

func insertsOf(jobs []*job) []*job {
	var out []*job
	for _, j := range jobs {
		if j.old.IsZero() {
			out = append(out, j)
		}
	}
	return out
}

// note takes a row that begins with the time.
func (s *seen) note(values []driver.Value) {
	s.now = instant(values[0])
	r := readRow(values[1:])
	s.rows[r.digest] = r
}

// lookUp ends the transaction, if there is one, and reads what is held under the
// keys of the jobs: committed, since nothing of ours is open any more.
func (e *engine) lookUp(ctx context.Context, s *session, r *round, jobs []*job) error {
	held := seen{run: s.run, rows: map[semel.Digest]row{}}
	var t script
	t.add("ROLLBACK;SELECT ").add(e.now()).add(";SELECT ").add(e.now()).add("," + columns + " FROM semel_record WHERE digest IN (").digests(jobs).add(")")
	err := s.each(ctx, string(t.b), func(set int, values []driver.Value) {
		if set == 0 {
			held.now = instant(values[0])
		} else {
			held.note(values)
		}
	})
	if err == nil {
		s.dirty = false
		r.settle(jobs, &held, e)
	}
	return err
}

// job is a swap that goes out in the next packet.
type job struct {
	at   int // which swap of the round
	old  semel.Version
	next semel.Record // with its version
	meta []byte
}

// prepare sets the version that the job would write under an epoch. A key that
// comes for the first time starts above the floor, which no deleted record of
// the key was above; a record that is held counts on.
func (j *job) prepare(ep *epoch) {
	v := semel.Version{Epoch: ep.number, Counter: ep.floor + 1}
	if !j.old.IsZero() {
		v.Counter = j.old.Counter + 1
	}
	j.next.Version, j.next.WrittenAt = v, time.Time{}
	e := j.next.Entry()
	j.meta = e.AppendTo(j.meta[:0])
}

// packetSlack is the part of a packet that is not records.
const packetSlack = 8 << 10

// weigh tells how long a swap is in a packet, at most.
func weigh(r *semel.Record) int {
	return 2*(len(r.Result)+2*(len(r.Key.Scope)+len(r.Key.ID)+len(r.Owner)+256)) + 1024
}

// round is the swaps of one call, of which some are answered.
type round struct {
	swaps []semel.Swap
	out   []semel.Swapped
	open  []int // those that are not answered, in their order
}

func newRound(swaps []semel.Swap, out []semel.Swapped, packet int) *round {
	r := &round{swaps: swaps, out: out, open: make([]int, 0, len(swaps))}
	for i := range swaps {
		if size := weigh(&swaps[i].Next); size > packet-packetSlack {
			out[i].Err = fmt.Errorf("%w: the statements for it have up to %d bytes, and the server's max_allowed_packet leaves room for %d",
				semel.ErrRejected, size, packet-packetSlack)
		} else {
			r.open = append(r.open, i)
		}
	}
	return r
}

// pick gives the next jobs: for each key the first swap that is not answered,
// as many as fit, ordered by digest. That all lock rows in one order keeps them
// from waiting for each other in a circle.
func (r *round) pick(most, packet int) []*job {
	var jobs []*job
	var taken map[semel.Digest]bool
	if len(r.open) > 1 {
		taken = make(map[semel.Digest]bool, len(r.open))
	}
	size := packetSlack
	for _, i := range r.open {
		next := &r.swaps[i].Next
		if taken[next.Digest] {
			continue
		}
		if size += weigh(next); len(jobs) == most || len(jobs) > 0 && size > packet {
			break
		}
		if taken != nil {
			taken[next.Digest] = true
		}
		jobs = append(jobs, &job{at: i, old: r.swaps[i].Old, next: *next})
	}
	slices.SortFunc(jobs, func(a, b *job) int { return bytes.Compare(a.next.Digest[:], b.next.Digest[:]) })
	return jobs
}

// close takes answered swaps out of those that are open.
func (r *round) close(answered func(i int) bool) {
	r.open = slices.DeleteFunc(r.open, answered)
}

// written answers jobs that were committed at now.
func (r *round) written(jobs []*job, now time.Time) {
	done := make(map[int]bool, len(jobs))
	for _, j := range jobs {
		j.next.WrittenAt = now
		r.out[j.at] = semel.Swapped{Reading: semel.Reading{Record: j.next, Now: now}}
		done[j.at] = true
	}
	r.close(func(i int) bool { return done[i] })
}

// seen is what a read of some keys gave.
type seen struct {
	run  [16]byte // the server that it is from
	rows map[semel.Digest]row
	now  time.Time
}

// settle answers each swap of a key that was read, up to the first that goes
// over what is held: those before it conflict with it.
func (r *round) settle(jobs []*job, held *seen, e *engine) {
	waits := make(map[semel.Digest]bool, len(jobs)) // whether a swap of the key has to be written first
	for _, j := range jobs {
		waits[j.next.Digest] = false
	}
	r.close(func(i int) bool {
		digest := r.swaps[i].Next.Digest
		wait, read := waits[digest]
		if !read || wait {
			return false
		}
		held := held.answer(digest, r.swaps[i].Old, e)
		if held == nil {
			waits[digest] = true
			return false
		}
		r.out[i] = *held
		return true
	})
}

// answer is the answer to a swap over old, nil if old is held.
func (s *seen) answer(digest semel.Digest, old semel.Version, e *engine) *semel.Swapped {
	row, held := s.rows[digest]
	switch {
	case row.version == old:
		return nil
	case held && row.damage != nil:
		return &semel.Swapped{Err: e.damaged(digest, row.damage)}
	}
	return &semel.Swapped{Reading: semel.Reading{Record: row.record, Now: s.now}, Err: met{s.run}}
}

// fail answers one job with an error.
func (r *round) fail(j *job, err error) {
	r.out[j.at] = semel.Swapped{Err: err}
	r.close(func(i int) bool { return i == j.at })
}

// left gives those of jobs that are not answered.
func (r *round) left(jobs []*job) []*job {
	return slices.DeleteFunc(slices.Clone(jobs), func(j *job) bool { return !slices.Contains(r.open, j.at) })
}
