package demo

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"
)

// accounts are the two customers. They use the same keys for different
// payments, with the very same bodies.
var accounts = [...]string{"acme", "globex"}

// A payment is one intended operation: it is to happen once, however often it
// is asked for.
type payment struct {
	account string
	key     string // also the payment's reference
	amount  int    // in cents
	at      time.Duration
	copies  []copied
}

// A copied request is one client that asks for a payment until it knows.
type copied struct {
	after  time.Duration // the payment's time
	amount int           // another than the payment's is a key used for another body
	quoted bool          // the two ways to write a key are one key
	seed   uint64
}

// An outage is one kill of the gateway.
type outage struct {
	at   time.Duration // since the storm began
	down time.Duration // until it is started again
}

// A plan is all that is decided before a run: equal for equal seeds.
type plan struct {
	payments []payment
	outages  []outage
}

// newPlan spreads n payments over the given time.
func newPlan(seed uint64, n int, storm time.Duration) plan {
	source := rand.New(rand.NewPCG(seed, 1))
	var p plan
	for i := range n {
		amount := 100 + source.IntN(99_900)
		if i%len(accounts) > 0 { // the same key and body as the customer before
			amount = p.payments[i-1].amount
		}
		one := payment{
			account: accounts[i%len(accounts)],
			key:     fmt.Sprintf("order-%04d", 1+i/len(accounts)),
			amount:  amount,
			at:      time.Duration(float64(storm) * 0.94 * (float64(i) + source.Float64()) / float64(n)),
		}
		one.copies = copies(source, amount)
		p.payments = append(p.payments, one)
	}
	slices.SortFunc(p.payments, func(a, b payment) int { return cmp.Compare(a.at, b.at) })
	for _, part := range [...]float64{0.22, 0.48, 0.74} {
		p.outages = append(p.outages, outage{
			at:   time.Duration(float64(storm) * (part + 0.08*source.Float64())),
			down: 100*time.Millisecond + time.Duration(source.Int64N(int64(400*time.Millisecond))),
		})
	}
	return p
}

// copies draws who asks for a payment, and when: some at once, some later, and
// for one payment in six somebody who uses its key for another amount.
func copies(source *rand.Rand, amount int) []copied {
	var c []copied
	within := func(from, to time.Duration, amount int) {
		c = append(c, copied{
			after:  from + time.Duration(source.Int64N(int64(to-from))),
			amount: amount, quoted: source.IntN(2) == 0, seed: source.Uint64(),
		})
	}
	for range 3 + source.IntN(6) {
		within(0, 4*time.Millisecond, amount)
	}
	for range 2 + source.IntN(4) {
		within(200*time.Millisecond, 4*time.Second, amount)
	}
	if source.IntN(6) == 0 {
		other := amount + 1 + source.IntN(500)
		if source.IntN(4) == 0 {
			within(0, 30*time.Millisecond, other)
		} else {
			within(time.Second, 4*time.Second, other)
		}
	}
	return c
}
