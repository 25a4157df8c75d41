package pocketbase

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// listed names one operation in what `semel list` prints.
type listed struct{ tenant, key string }

// counts are what has to be zero, by the names of INVARIANTS.
type counts struct {
	double    int // more objects than one
	lost      int // answered as done, and the object is missing
	swallowed int // answered as done by replays only, and the object is missing
	flip      int // two different definitive answers
	leak      int // answered with another operation's object
	stuck     int // no definitive answer
	silent    int // in doubt in the store, and answered as done
	unlisted  int // answered as unknown, and not listed as in doubt
	unmarked  int // replayed without saying so
	forged    int // another body that was not refused
	strange   int // objects, answers or listings that belong to nothing
}

// report is what the check came to.
type report struct {
	counts
	done, inDoubt int      // operations
	unrun         int      // of those in doubt, without an object
	answers       int      // definitive ones
	mismatches    int      // another body that was refused
	findings      []string // the first of them
	operations    int
}

// maxFindings are enough to see what is wrong.
const maxFindings = 20

func (r *report) find(count *int, format string, args ...any) {
	*count++
	if len(r.findings) == maxFindings {
		return
	}
	r.findings = append(r.findings, fmt.Sprintf(format, args...))
}

// String gives each count with the bound that it supports: for none in n the
// rule of three (95 %), at most 3/n.
func (r *report) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d operations: %d done, %d in doubt (%d of them never ran); %d definitive answers, %d other bodies refused\n",
		r.operations, r.done, r.inDoubt, r.unrun, r.answers, r.mismatches)
	line := func(name string, n, of int) {
		if n == 0 && of > 0 {
			fmt.Fprintf(&b, "  %-10s 0 of %d (95 %%: <= %.2g)\n", name, of, min(1, 3/float64(of)))
		} else {
			fmt.Fprintf(&b, "  %-10s %d of %d\n", name, n, of)
		}
	}
	line("DOUBLE", r.double, r.operations)
	line("LOST", r.lost, r.done)
	line("SWALLOWED", r.swallowed, r.done)
	line("FLIP", r.flip, r.answers)
	line("LEAK", r.leak, r.answers)
	line("STUCK", r.stuck, r.operations)
	line("SILENT", r.silent, r.operations)
	line("unlisted", r.unlisted, r.inDoubt)
	line("unmarked", r.unmarked, r.answers)
	line("forged", r.forged, r.mismatches+r.forged)
	line("strange", r.strange, r.answers)
	return b.String()
}

// check compares the three sources.
func check(ops []operation, answers []answer, held []record, inDoubt []listed) *report {
	r := &report{operations: len(ops)}
	objects := make(map[string][]record)
	for _, o := range held {
		objects[o.Op] = append(objects[o.Op], o)
	}
	byOp := make([][]answer, len(ops))
	for _, a := range answers {
		byOp[a.op] = append(byOp[a.op], a)
	}
	doubted := make(map[listed]bool)
	for _, l := range inDoubt {
		doubted[l] = true
	}
	for i := range ops {
		o := &ops[i]
		place := listed{o.tenant, o.key}
		r.operation(o, byOp[i], objects[o.name], doubted[place])
		r.forgeries(o, byOp[i], objects[o.name+forgery])
		delete(objects, o.name)
		delete(objects, o.name+forgery)
		delete(doubted, place)
	}
	for name, left := range objects {
		r.find(&r.strange, "%d objects are called %q and nobody asked for them", len(left), name)
	}
	for l := range doubted {
		r.find(&r.strange, "%v is listed as in doubt and nobody sent it", l)
	}
	return r
}

// operation checks one operation.
func (r *report) operation(o *operation, answers []answer, objects []record, doubted bool) {
	var dones, unknowns []answer
	for _, a := range answers {
		switch {
		case a.forged || a.meaning == nothing:
		case a.meaning == done:
			dones = append(dones, a)
		case a.meaning == unknown:
			unknowns = append(unknowns, a)
		default:
			r.find(&r.strange, "%s was answered %q", o.name, a.seen)
		}
	}
	r.answers += len(dones) + len(unknowns)
	if len(objects) > 1 {
		r.find(&r.double, "%s was executed %d times", o.name, len(objects))
	}
	switch {
	case len(dones) > 0:
		r.done++
		r.finished(o, dones, objects, doubted)
	case len(unknowns) > 0:
		r.inDoubt++
		if len(objects) == 0 {
			r.unrun++
		}
		if !doubted {
			r.find(&r.unlisted, "%s was answered as unknown and is not listed as in doubt", o.name)
		}
	default:
		r.find(&r.stuck, "%s has no definitive answer after %d requests", o.name, len(answers))
	}
	r.flips(o, dones, unknowns)
}

// finished checks an operation that was answered as done.
func (r *report) finished(o *operation, dones []answer, objects []record, doubted bool) {
	if doubted {
		r.find(&r.silent, "%s was answered as done and is listed as in doubt", o.name)
	}
	first := 0
	var known time.Time // since when a client had the answer
	for _, a := range dones {
		if known.IsZero() || a.came.Before(known) {
			known = a.came
		}
		if !a.replayed {
			first++
		}
		if a.object.Op != o.name || a.object.Amount != o.amount {
			r.find(&r.leak, "%s for %d was answered with the object %+v", o.name, o.amount, a.object)
		}
	}
	if first > 1 {
		r.find(&r.unmarked, "%s has %d answers that are not marked as replays", o.name, first)
	} else if i := slices.IndexFunc(dones, func(a answer) bool { return !a.replayed && a.sent.After(known) }); i >= 0 {
		r.find(&r.unmarked, "%s was asked again after it was answered, and the answer is not marked as a replay", o.name)
	}
	switch missing := !slices.Contains(objects, dones[0].object); {
	case missing && first == 0:
		r.find(&r.swallowed, "%s was answered as done by replays only, with %+v, and the application holds %+v", o.name, dones[0].object, objects)
	case missing:
		r.find(&r.lost, "%s was answered as done, with %+v, and the application holds %+v", o.name, dones[0].object, objects)
	}
}

// flips checks that the definitive answers are one. An unknown may become known
// later; what was known never becomes unknown.
func (r *report) flips(o *operation, dones, unknowns []answer) {
	for _, same := range [...][]answer{dones, unknowns} {
		for _, a := range same {
			if a.seen != same[0].seen {
				r.find(&r.flip, "%s was answered both\n%s\nand\n%s", o.name, same[0].seen, a.seen)
				break
			}
		}
	}
	for _, u := range unknowns {
		if slices.ContainsFunc(dones, func(d answer) bool { return d.came.Before(u.sent) }) {
			r.find(&r.flip, "%s was answered as unknown after it was answered as done", o.name)
			return
		}
	}
}

// forgeries checks that another body under the operation's key came to nothing.
func (r *report) forgeries(o *operation, answers []answer, objects []record) {
	if len(objects) > 0 {
		r.find(&r.forged, "another body under the key of %s was executed %d times", o.name, len(objects))
	}
	for _, a := range answers {
		switch {
		case !a.forged || a.meaning == nothing:
		case a.meaning == refused && strings.HasPrefix(a.seen, "422 "):
			r.mismatches++
		default:
			r.find(&r.forged, "another body under the key of %s was answered %q", o.name, a.seen)
		}
	}
}
