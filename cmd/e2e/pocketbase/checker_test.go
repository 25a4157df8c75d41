package pocketbase

import (
	"testing"
	"time"
)

// TestCheckCounts breaks a sound history in one way at a time: each count is
// raised by what it is for, and by nothing else.
func TestCheckCounts(t *testing.T) {
	ops := []operation{
		{name: "acme/1", tenant: "acme", key: "order-1", amount: 7},
		{name: "globex/1", tenant: "globex", key: "order-1", amount: 8},
	}
	at := func(n int) time.Time { return time.Unix(int64(n), 0) }
	first := record{ID: "a", Op: "acme/1", Amount: 7}
	line := func(m meaning, when int, replayed bool) answer {
		return answer{meaning: m, sent: at(when), came: at(when + 1), replayed: replayed, seen: "200 " + first.ID, object: first}
	}
	sound := func() (answers []answer, held []record, inDoubt []listed) {
		other := answer{send: send{op: 1}, meaning: unknown, sent: at(1), came: at(2), seen: "409 unknown"}
		no := answer{send: send{forged: true}, meaning: refused, sent: at(4), came: at(5), seen: "422 mismatch"}
		return []answer{line(nothing, 0, false), line(done, 1, false), line(done, 3, true), no, other, other},
			[]record{first, {ID: "b", Op: "globex/1", Amount: 8}}, []listed{{"globex", "order-1"}}
	}
	type history struct {
		answers []answer
		held    []record
		inDoubt []listed
	}
	tests := []struct {
		name  string
		spoil func(h *history)
		want  counts
	}{
		{"sound", func(*history) {}, counts{}},
		{"never ran", func(h *history) { h.held = h.held[:1] }, counts{}},
		{"double", func(h *history) { h.held = append(h.held, record{ID: "c", Op: "acme/1", Amount: 7}) }, counts{double: 1}},
		{"double in doubt", func(h *history) { h.held = append(h.held, record{ID: "c", Op: "globex/1", Amount: 8}) }, counts{double: 1}},
		{"lost", func(h *history) { h.held = h.held[1:] }, counts{lost: 1}},
		{"another object", func(h *history) { h.held[0].ID = "z" }, counts{lost: 1}},
		{"swallowed", func(h *history) { h.held, h.answers[1].replayed = h.held[1:], true }, counts{swallowed: 1}},
		{"flip", func(h *history) { h.answers[2].seen = "200 z" }, counts{flip: 1}},
		{"unknown after done", func(h *history) { h.answers[2].meaning = unknown }, counts{flip: 1}},
		{"unknown before done", func(h *history) { h.answers[1].meaning, h.answers[1].seen = unknown, "409 unknown" }, counts{}},
		{"leak", func(h *history) { h.answers[2].object.Op = "globex/1" }, counts{leak: 1}},
		{"stuck", func(h *history) { h.answers, h.inDoubt = h.answers[:4], nil }, counts{stuck: 1}},
		{"silent", func(h *history) { h.inDoubt = append(h.inDoubt, listed{"acme", "order-1"}) }, counts{silent: 1}},
		{"unlisted", func(h *history) { h.inDoubt = nil }, counts{unlisted: 1}},
		{"unmarked", func(h *history) { h.answers[2].replayed = false }, counts{unmarked: 1}},
		{"unmarked later", func(h *history) { h.answers[1].replayed, h.answers[2].replayed = true, false }, counts{unmarked: 1}},
		{"forged answer", func(h *history) { h.answers[3].seen = "200 a" }, counts{forged: 1}},
		{"forged object", func(h *history) { h.held = append(h.held, record{Op: "acme/1" + forgery}) }, counts{forged: 1}},
		{"strange object", func(h *history) { h.held = append(h.held, record{Op: "initech/1"}) }, counts{strange: 1}},
		{"strange answer", func(h *history) { h.answers[0].meaning = elsewhere }, counts{strange: 1}},
		{"strange listing", func(h *history) { h.inDoubt = append(h.inDoubt, listed{"acme", "order-2"}) }, counts{strange: 1}},
	}
	for _, test := range tests {
		var h history
		h.answers, h.held, h.inDoubt = sound()
		test.spoil(&h)
		r := check(ops, h.answers, h.held, h.inDoubt)
		if r.counts != test.want {
			t.Errorf("%s: got %+v, want %+v; %q", test.name, r.counts, test.want, r.findings)
		}
		if r.counts != (counts{}) && len(r.findings) == 0 {
			t.Errorf("%s: nothing is said about it", test.name)
		}
	}
}
