package mysql

import (
	"bytes"
	"fmt"
	"slices"
	"time"

	"github.com/semelhq/semel"
)

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
	return &semel.Swapped{Reading: semel.Reading{Record: row.record, Now: s.now}, Err: semel.ErrConflict}
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
