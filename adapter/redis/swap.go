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
	slot   *slot
	swaps  []semel.Swap
	claims int   // how many of them claim; they come first
	at     []int // where in the caller's list each swap stands
	size   int   // of the results, in bytes
	term   *term
}

// isClaim tells what most swaps are that write where nothing is held.
func isClaim(w *semel.Swap) bool { return w.Old.IsZero() && w.Next.State == semel.Pending }

// What one call of the script takes at most: Lua's stack has an end, and nobody
// else is answered meanwhile.
const (
	maxParcel      = 512
	maxParcelBytes = 8 << 20
)

// pack divides swaps into parcels of one slot each, and keeps in later rounds
// what has the key of another: a script sees what was held before it began.
func (c *client) pack(swaps []semel.Swap) (rounds [][]*parcel) {
	met := make(map[semel.Digest]int, len(swaps))
	for i := range swaps {
		w := &swaps[i]
		round := 0
		if len(swaps) > 1 {
			round = met[w.Next.Digest]
			met[w.Next.Digest] = round + 1
		}
		if round == len(rounds) {
			rounds = append(rounds, nil)
		}
		s := c.slotOf(&w.Next.Digest)
		var p *parcel
		for _, open := range rounds[round] {
			if open.slot == s && len(open.swaps) < maxParcel && open.size < maxParcelBytes {
				p = open
			}
		}
		if p == nil {
			p = &parcel{slot: s}
			rounds[round] = append(rounds[round], p)
		}
		p.add(w, i)
	}
	return rounds
}

// add puts a claim behind the claims, and another swap at the end.
func (p *parcel) add(w *semel.Swap, at int) {
	p.swaps, p.at = append(p.swaps, *w), append(p.at, at)
	p.size += len(w.Next.Result)
	if last := len(p.swaps) - 1; isClaim(w) {
		p.swaps[last], p.swaps[p.claims] = p.swaps[p.claims], p.swaps[last]
		p.at[last], p.at[p.claims] = p.at[p.claims], p.at[last]
		p.claims++
	}
}

// command builds the script's call. The strings in it lie in one piece of
// memory, which nobody changes any more.
func (p *parcel) command(c *client) rueidis.Completed {
	t, n := p.term, len(p.swaps)
	size := 0
	for i := range p.swaps {
		r := &p.swaps[i].Next
		size += len(p.slot.prefix) + 256 + len(r.Key.Scope) + len(r.Key.ID) + len(r.Owner) + len(r.Result)
	}
	text := text{b: make([]byte, 0, size)}
	keys, args := make([]span, 0, n), make([]span, 0, 3*n)
	for i := range p.swaps {
		w := &p.swaps[i]
		text.b = append(append(text.b, p.slot.prefix...), w.Next.Digest[:]...)
		keys = append(keys, text.cut())
		if i >= p.claims {
			if !w.Old.IsZero() {
				text.b = appendVersion(text.b, w.Old)
			}
			args = append(args, text.cut())
		}
		text.b = appendBody(text.b, &w.Next)
		args = append(args, text.cut())
		if i >= p.claims {
			if w.Next.State != semel.Pending {
				text.b = strconv.AppendInt(text.b, c.keep(w.Next.TTL), 10)
			}
			args = append(args, text.cut())
		}
	}
	words := make([]string, 0, 10+len(keys)+len(args))
	all := rueidis.BinaryString(text.b)
	words = append(words, t.field, strconv.FormatUint(t.seen.Load(), 10), t.text, c.channel, strconv.Itoa(p.claims))
	for _, s := range args {
		words = append(words, all[s.from:s.to])
	}
	fixed := len(words)
	words = append(words, p.slot.meta)
	for _, s := range keys {
		words = append(words, all[s.from:s.to])
	}
	return c.rueidis.B().Arbitrary("EVALSHA", t.swap.sha, strconv.Itoa(n+1)).Keys(words[fixed:]...).Args(words[:fixed]...).Build()
}

// span is a part of a text.
type span struct{ from, to int }

// text is bytes that grow, and are cut into strings once they are complete.
type text struct {
	b    []byte
	from int
}

// cut gives what was appended since the last cut.
func (t *text) cut() span {
	s := span{t.from, len(t.b)}
	t.from = len(t.b)
	return s
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
		answers, errs := c.doMany(ctx, []rueidis.Completed{cmd})
		all, err := answers[0].ToArray()
		if err == nil {
			err = errs[0]
		}
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
