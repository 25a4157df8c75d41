package remote

import (
	"context"
	"encoding/binary"
	"fmt"

	"github.com/semelhq/semel"
)

// reply is an answer in the making.
type reply struct {
	b    []byte
	room int // bytes that the whole message may have
}

// fits tells whether size more bytes fit into the message.
func (out *reply) fits(size int) bool { return len(out.b)+size+4 <= out.room }

// fail appends an outcome with its text.
func (out *reply) fail(err error) {
	o := outcomeOf(err)
	if o == done || o == conflict { // what is no error, or not one of this verb
		o = unknown
	}
	out.b = appendText(append(out.b, byte(o)), err.Error(), maxText)
}

// sent checks that a reading of digest can be sent. What the store holds is
// never told wrongly: what cannot be told is unknown.
func (out *reply) sent(r *semel.Reading, digest semel.Digest) error {
	size := recordSize(&r.Record)
	switch {
	case r.Now.IsZero() || r.Now.UnixNano() == 0:
		return fmt.Errorf("the store gave a reading without its clock")
	case !r.Record.Held():
		return nil
	case r.Record.Digest != digest:
		return fmt.Errorf("the store gave the record of another digest")
	case !out.fits(size):
		return fmt.Errorf("the record takes %d bytes and does not fit into this message of at most %d; if it is alone in it, raise MaxBytes at both ends", size, out.room)
	}
	return sendable(&r.Record)
}

func (h *Handler) get(ctx context.Context, in *cursor, out *reply) bool {
	digest := in.digest()
	if !in.whole() {
		return false
	}
	r, err := h.store.Get(ctx, digest)
	if err == nil {
		err = out.sent(&r, digest)
	}
	if err != nil {
		out.fail(err)
		return true
	}
	out.b = appendReading(append(out.b, byte(done)), &r)
	return true
}

func (h *Handler) swap(ctx context.Context, in *cursor, out *reply) bool {
	w := in.swap()
	if !in.whole() {
		return false
	}
	var result semel.Swapped
	result.Reading, result.Err = h.store.CompareAndSwap(ctx, w.Old, w.Next)
	out.swapped(w, &result)
	return true
}

// swapped appends what a swap came to, as far as it can be told.
func (out *reply) swapped(w semel.Swap, result *semel.Swapped) {
	r := &result.Reading
	var err error
	switch o := outcomeOf(result.Err); {
	case o == conflict:
		err = out.sent(r, w.Next.Digest)
	case o == done && (r.Now.IsZero() || r.Record.WrittenAt.IsZero() || r.Record.Nonce != w.Next.Nonce):
		err = fmt.Errorf("the store wrote something, and gave no reading of it")
	}
	if err != nil {
		result.Err = err
	}
	// Of many answers each finds room, if need be with a short text.
	out.b = appendSwapped(out.b, result, max(leastText, min(maxText, out.room-len(out.b)-leastAnswer)))
}

const (
	maxSwaps    = 1 << 16 // in one message
	leastAnswer = 64      // bytes that the answer to a swap may have in any case
	leastText   = leastAnswer - 8
)

func (h *Handler) many(ctx context.Context, in *cursor, out *reply) bool {
	count := in.uint32()
	if count > maxSwaps {
		return false
	}
	var swaps []semel.Swap
	for range count {
		if swaps = append(swaps, in.swap()); in.bad {
			return false
		}
	}
	if !in.whole() {
		return false
	}
	for i, result := range h.swapMany(ctx, swaps) {
		rest := (len(swaps) - i - 1) * leastAnswer
		out.room -= rest
		out.swapped(swaps[i], &result)
		out.room += rest
	}
	return true
}

// swapMany hands swaps to the store in one commit if it takes many, else one
// after the other.
func (h *Handler) swapMany(ctx context.Context, swaps []semel.Swap) []semel.Swapped {
	if h.batcher != nil {
		if out := h.batcher.SwapMany(ctx, swaps); len(out) == len(swaps) {
			return out
		}
		out := make([]semel.Swapped, len(swaps))
		for i := range out {
			out[i].Err = fmt.Errorf("the store gave too few or too many answers to %d swaps, and nobody knows which are meant", len(swaps))
		}
		return out
	}
	out := make([]semel.Swapped, len(swaps))
	for i, w := range swaps {
		out[i].Reading, out[i].Err = h.store.CompareAndSwap(ctx, w.Old, w.Next)
	}
	return out
}

func (h *Handler) sweep(ctx context.Context, in *cursor, out *reply) bool {
	limit := int(int64(in.uint64()))
	if !in.whole() || h.sweeper == nil {
		return false
	}
	swept, err := h.sweeper.Sweep(ctx, limit)
	o := outcomeOf(err)
	if o == conflict {
		o = unknown
	}
	out.b = binary.BigEndian.AppendUint64(append(out.b, byte(o)), uint64(swept))
	if err != nil {
		out.b = appendText(out.b, err.Error(), maxText)
	}
	return true
}

// parts appends as many of n things as fit: outcome, cut, count, text of the
// outcome, and the things.
func (out *reply) parts(n int, err error, size func(i int) int, add func(b []byte, i int) []byte) {
	o := outcomeOf(err)
	if o == conflict {
		o = unknown
	}
	head := len(out.b)
	out.b = append(out.b, byte(o), 0, 0, 0, 0, 0)
	if err != nil {
		out.b = appendText(out.b, err.Error(), maxText)
	}
	sent := 0
	for sent < n && out.fits(size(sent)) {
		out.b = add(out.b, sent)
		sent++
	}
	if sent < n && sent == 0 {
		out.b = out.b[:head]
		out.parts(0, fmt.Errorf("the next takes %d bytes and a message has at most %d; raise MaxBytes at both ends", size(0), out.room), nil, nil)
		return
	}
	if sent < n {
		out.b[head+1] = 1
	}
	binary.BigEndian.PutUint32(out.b[head+2:], uint32(sent))
}

func (h *Handler) list(ctx context.Context, in *cursor, out *reply) bool {
	filter := in.filter()
	if !in.whole() || h.lister == nil || filter.Limit < 0 {
		return false
	}
	records, err := h.lister.List(ctx, filter)
	for i := range records {
		if bad := sendable(&records[i]); bad != nil {
			records, err = nil, bad
			break
		}
	}
	out.parts(len(records), err,
		func(i int) int { return recordSize(&records[i]) },
		func(b []byte, i int) []byte { return appendRecord(b, &records[i]) })
	return true
}

func (h *Handler) history(ctx context.Context, in *cursor, out *reply) bool {
	digest, skip := in.digest(), in.uint64()
	if !in.whole() || h.journal == nil {
		return false
	}
	entries, err := h.journal.History(ctx, digest)
	entries = entries[min(skip, uint64(len(entries))):]
	out.parts(len(entries), err,
		func(i int) int { return recordSize(&entries[i].Record) },
		func(b []byte, i int) []byte { return appendEntry(b, &entries[i]) })
	return true
}
