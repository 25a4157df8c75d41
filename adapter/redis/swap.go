package redis

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/redis/rueidis"

	"github.com/semelhq/semel"
)

// parcel is swaps of one slot, of which no two have the same key, on their way
// in one call of the script.
type parcel struct {
	slot  *slot
	swaps []semel.Swap
	at    []int // where in the caller's list each swap stands
	term  *term
}

// pack divides swaps into parcels, one of each slot, and keeps in later rounds
// what has the key of another: a script sees what was held before it began.
func (c *client) pack(swaps []semel.Swap) (rounds [][]*parcel) {
	met := make(map[semel.Digest]int, len(swaps))
	for i := range swaps {
		d := &swaps[i].Next.Digest
		round := met[*d]
		met[*d] = round + 1
		if round == len(rounds) {
			rounds = append(rounds, nil)
		}
		s := c.slotOf(d)
		var p *parcel
		for _, open := range rounds[round] {
			if open.slot == s {
				p = open
			}
		}
		if p == nil {
			p = &parcel{slot: s}
			rounds[round] = append(rounds[round], p)
		}
		p.swaps, p.at = append(p.swaps, swaps[i]), append(p.at, i)
	}
	return rounds
}

// command builds the script's call. The strings in it lie in one piece of
// memory, which nobody changes any more.
func (p *parcel) command(c *client) rueidis.Completed {
	t, n := p.term, len(p.swaps)
	size := 0
	for i := range p.swaps {
		r := &p.swaps[i].Next
		size += len(p.slot.prefix) + 400 + len(r.Key.Scope) + len(r.Key.ID) + len(r.Owner) + len(r.Result)
	}
	b := make([]byte, 0, size)
	ends := make([]int, 0, 4*n)
	for i := range p.swaps {
		w := &p.swaps[i]
		b = append(append(b, p.slot.prefix...), w.Next.Digest[:]...)
		ends = append(ends, len(b))
		if !w.Old.IsZero() {
			b = appendVersion(b, w.Old)
		}
		ends = append(ends, len(b))
		if w.Next.State != semel.Pending {
			b = strconv.AppendInt(b, c.keep(w.Next.TTL), 10)
		}
		ends = append(ends, len(b))
		b = appendBody(b, &w.Next)
		ends = append(ends, len(b))
	}
	all := rueidis.BinaryString(b)
	always := ""
	if c.options.Replicas > 0 {
		always = "1"
	}
	keys := make([]string, n+1)
	args := make([]string, 5+3*n)
	keys[0] = p.slot.meta
	args[0], args[1], args[2], args[3], args[4] = t.field, strconv.FormatUint(t.seen.Load(), 10), t.text, always, c.channel
	from := 0
	next := func(end int) string {
		s := all[from:end]
		from = end
		return s
	}
	for i := range n {
		keys[1+i] = next(ends[4*i])
		for j := range 3 {
			args[5+3*i+j] = next(ends[4*i+1+j])
		}
	}
	return c.rueidis.B().Arbitrary("EVALSHA", t.swap.sha, strconv.Itoa(n+1)).Keys(keys...).Args(args...).Build()
}

// keep is how long the server keeps a finished record, in milliseconds: longer
// than its TTL.
func (c *client) keep(ttl time.Duration) int64 {
	return int64(max(ttl, 0)/time.Millisecond) + 1 + c.options.Margin.Milliseconds()
}

// send carries out the parcels of one round, and writes what came of each swap
// to out.
func (c *client) send(ctx context.Context, parcels []*parcel, out []semel.Swapped) {
	for tries := 0; len(parcels) > 0; tries++ {
		ready := parcels[:0:0]
		commands := make([]rueidis.Completed, 0, len(parcels))
		for _, p := range parcels {
			t, err := c.current(ctx, p.slot, p.term)
			if err != nil {
				p.fail(out, err)
				continue
			}
			p.term = t
			ready, commands = append(ready, p), append(commands, p.command(c))
		}
		if len(ready) == 0 {
			return
		}
		parcels = parcels[:0:0]
		answers, errs := c.doMany(ctx, commands)
		for i, p := range ready {
			err := p.read(answers[i], out)
			if err == nil {
				err = errs[i]
			}
			if termEnded(err) && tries < maxTerms {
				parcels = append(parcels, p) // the script did nothing
			} else if err != nil {
				p.fail(out, c.explain("swap", err))
			}
		}
	}
}

// maxTerms is how many terms in a row may turn out to have ended.
const maxTerms = 3

func (p *parcel) fail(out []semel.Swapped, err error) {
	for _, at := range p.at {
		out[at] = semel.Swapped{Err: err}
	}
}

// read takes the script's answer apart.
func (p *parcel) read(answer rueidis.RedisResult, out []semel.Swapped) error {
	all, err := answer.ToArray()
	if err != nil {
		return err
	}
	if len(all) != len(p.swaps)+2 {
		return fmt.Errorf("the script gave %d answers to %d swaps", len(all)-2, len(p.swaps))
	}
	micros, err := all[0].AsInt64()
	if err != nil {
		return err
	}
	base, err := all[1].AsUint64()
	if err != nil {
		return err
	}
	now := time.UnixMicro(micros)
	for i := range p.swaps {
		m := &all[2+i]
		o := &out[p.at[i]]
		o.Reading.Now = now
		switch {
		case m.IsInt64():
			o.Reading.Record = p.swaps[i].Next
			o.Reading.Record.Version = semel.Version{Epoch: p.term.epoch, Counter: base + uint64(i) + 1}
			o.Reading.Record.WrittenAt = now
			p.term.saw(base + uint64(i) + 1)
		case m.IsNil():
			o.Err = semel.ErrConflict
		default:
			o.Reading.Record, o.Err = held(p.swaps[i].Next.Digest, m)
			if o.Err == nil {
				o.Err = semel.ErrConflict
			}
		}
	}
	return nil
}

// held decodes what a key holds.
func held(d semel.Digest, m *rueidis.RedisMessage) (semel.Record, error) {
	value, err := m.ToString()
	if err != nil {
		return semel.Record{}, err
	}
	r, err := decode(d, value)
	if err != nil {
		err = fmt.Errorf("redis: digest %v: %w", d, err)
	}
	return r, err
}

// termEnded tells whether a script did nothing because its term is over.
func termEnded(err error) bool {
	var told *rueidis.RedisError
	return errors.As(err, &told) && (told.IsNoScript() || hasCode(told, "SEMELTERM"))
}

// get reads one record, on the server that counts its versions.
func (c *client) get(ctx context.Context, digest semel.Digest) (semel.Reading, error) {
	s := c.slotOf(&digest)
	key := s.prefix + string(digest[:])
	var ended *term
	for tries := 0; ; tries++ {
		t, err := c.current(ctx, s, ended)
		if err != nil {
			return semel.Reading{}, err
		}
		cmd := c.rueidis.B().Arbitrary("EVALSHA", t.swap.sha, "2").Keys(s.meta, key).
			Args(t.field, strconv.FormatUint(t.seen.Load(), 10)).Build()
		all, err := c.rueidis.Do(ctx, cmd).ToArray()
		if termEnded(err) && tries < maxTerms {
			ended = t
			continue
		}
		if err == nil && len(all) != 3 {
			err = fmt.Errorf("the script gave %d answers to one read", len(all)-2)
		}
		if err != nil {
			return semel.Reading{}, c.explain("read", err)
		}
		micros, err := all[0].AsInt64()
		if err != nil {
			return semel.Reading{}, c.explain("read", err)
		}
		r := semel.Reading{Now: time.UnixMicro(micros)}
		if !all[2].IsNil() {
			r.Record, err = held(digest, &all[2])
		}
		return r, err
	}
}
