package pocketbase

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
)

// tenants send the same keys, each for operations of its own.
var tenants = [...]string{"acme", "globex"}

// operation is one thing that a client wants to happen once.
type operation struct {
	name   string // tells its objects from those of all others
	tenant string
	key    string
	amount int
	copies int
}

func (o *operation) body() string { return fmt.Sprintf(`{"op":%q,"amount":%d}`, o.name, o.amount) }

// forged is another body, sent under the operation's key.
func (o *operation) forged() string { return fmt.Sprintf(`{"op":%q,"amount":1}`, o.name+forgery) }

// forgery ends the name that a forged body would give its object.
const forgery = "/forged"

// newOperations gives n operations of 5 to most copies. Two in a row have the
// same key and are of different tenants.
func newOperations(source *rand.Rand, n, most int) []operation {
	all := make([]operation, n)
	for i := range all {
		tenant := tenants[i%len(tenants)]
		number := 1 + i/len(tenants)
		all[i] = operation{
			name:   fmt.Sprintf("%s/%d", tenant, number),
			tenant: tenant,
			key:    fmt.Sprintf("order-%d", number),
			amount: 100 + source.IntN(100_000),
			copies: 5 + source.IntN(most-4),
		}
	}
	return all
}

// send is one request of the plan.
type send struct {
	op     int
	forged bool
}

// plan puts all copies in an order: some of an operation's at once, which is
// next to each other, the others later, fewer and fewer.
func plan(source *rand.Rand, ops []operation) []send {
	type timed struct {
		send
		at float64
	}
	var all []timed
	for i := range ops {
		start := source.Float64() * 0.9
		atOnce := 1 + source.IntN(min(ops[i].copies, 12))
		for n := range ops[i].copies {
			at := start
			if n >= atOnce {
				at += min(source.ExpFloat64()*0.15, 1)
			}
			all = append(all, timed{send{op: i}, at})
		}
		all = append(all, timed{send{op: i, forged: true}, start + 0.02 + source.Float64()*0.3})
	}
	slices.SortStableFunc(all, func(a, b timed) int { return cmp.Compare(a.at, b.at) })
	sends := make([]send, len(all))
	for i := range all {
		sends[i] = all[i].send
	}
	return sends
}
