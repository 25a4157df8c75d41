package storm

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"
)

// accounts gives the two customers. They use the same keys for different
// payments, with the very same bodies.
func accounts() [2]string { return [2]string{"acme", "globex"} }

// A Payment is one intended operation: it is to happen once, however often it
// is asked for.
type Payment struct {
	Account string
	Key     string // also the payment's reference
	Amount  int    // in cents
	At      time.Duration
	Copies  []Copy
}

// A Copy is one client that asks for a payment until it knows.
type Copy struct {
	After  time.Duration // the payment's time
	Amount int           // another than the payment's is a key used for another body
	Quoted bool          // the two ways to write a key are one key
	Seed   uint64        // of its pauses
}

// Plan spreads n payments over the given time, in the order in which they begin.
// It is all that is decided before a storm, and equal for equal seeds.
func Plan(seed uint64, n int, over time.Duration) []Payment {
	source := rand.New(rand.NewPCG(seed, 1))
	customers := accounts()
	var all []Payment
	for i := range n {
		amount := 100 + source.IntN(99_900)
		if i%len(customers) > 0 { // the same key and body as the customer before
			amount = all[i-1].Amount
		}
		one := Payment{
			Account: customers[i%len(customers)],
			Key:     fmt.Sprintf("order-%04d", 1+i/len(customers)),
			Amount:  amount,
			At:      time.Duration(float64(over) * (float64(i) + source.Float64()) / float64(n)),
		}
		one.Copies = copies(source, amount)
		all = append(all, one)
	}
	slices.SortFunc(all, func(a, b Payment) int { return cmp.Compare(a.At, b.At) })
	return all
}

// copies draws who asks for a payment, and when: some at once, some later, and
// for one payment in six somebody who uses its key for another amount.
func copies(source *rand.Rand, amount int) []Copy {
	var c []Copy
	within := func(from, to time.Duration, amount int) {
		c = append(c, Copy{
			After:  from + time.Duration(source.Int64N(int64(to-from))),
			Amount: amount, Quoted: source.IntN(2) == 0, Seed: source.Uint64(),
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
