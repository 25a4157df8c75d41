package resolve_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/resolve"
	"github.com/semelhq/semel/store/memory"
)

// The provider's answer was lost. The completer asks the provider, and the retry
// gets the answer after all.
func Example() {
	provider := map[string]string{} // charges by the key that they came with
	policy, err := semel.Policy{
		Name: "charge",
		Resolve: func(_ context.Context, u semel.Unresolved) (semel.Settlement, error) {
			charge, ok := provider[u.DerivedKey("charge")]
			if !ok {
				return semel.Settlement{State: semel.Released, Why: "the provider never saw it"}, nil
			}
			return semel.Settlement{State: semel.Done, Result: semel.Result{Data: []byte(charge)}, Why: "the provider has it"}, nil
		},
	}.Filled()
	if err != nil {
		fmt.Println(err)
		return
	}
	guard, err := semel.NewGuard(memory.New(memory.Options{}), semel.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	charge := func(ctx context.Context) (semel.Result, error) {
		claim, _ := semel.ClaimFrom(ctx)
		return claim.Step(ctx, "charge", func(ctx context.Context) (semel.Result, error) {
			key, _ := semel.DerivedKey(ctx)
			provider[key] = "100 EUR"
			return semel.Result{}, errors.New("the connection was lost")
		})
	}
	ask := semel.Ask{Key: semel.Key{Scope: "shop", ID: "order-42"}, Policy: &policy}
	_, err = guard.Do(context.Background(), ask, charge)
	fmt.Println(err)

	settled := make(chan resolve.Event, 1)
	completer, err := resolve.New(guard, resolve.Options{
		Policies: []*semel.Policy{&policy},
		Observe:  func(e resolve.Event) { settled <- e },
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	go func() {
		fmt.Println((<-settled).Why)
		cancel()
	}()
	if err := completer.Run(ctx); err != nil {
		fmt.Println(err)
	}
	answer, err := guard.Do(context.Background(), ask, charge)
	fmt.Println(string(answer.Data), answer.Replayed, err)
	// Output:
	// the connection was lost
	// the provider has it
	// 100 EUR true <nil>
}
