package lifecycle_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/lifecycle"
	"github.com/semelhq/semel/store/memory"
)

// A tenant may begin two operations a minute. Retries of those are answered all
// the same.
func ExampleNewQuota() {
	quota, err := lifecycle.NewQuota(lifecycle.QuotaOptions{NewKeys: 2, Per: time.Minute})
	if err != nil {
		fmt.Println(err)
		return
	}
	policy, err := semel.Policy{Quota: quota}.Filled()
	if err != nil {
		fmt.Println(err)
		return
	}
	guard, err := semel.NewGuard(memory.New(memory.Options{}), semel.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, id := range []string{"order-1", "order-2", "order-3", "order-1"} {
		ask := semel.Ask{Key: semel.Key{Scope: "shop", ID: id}, Tenant: "shop", Policy: &policy}
		answer, err := guard.Do(context.Background(), ask, func(context.Context) (semel.Result, error) {
			return semel.Result{Data: []byte("accepted")}, nil
		})
		switch {
		case errors.Is(err, semel.ErrOverQuota):
			fmt.Println(id, "may come again later")
		case err != nil:
			fmt.Println(err)
		default:
			fmt.Printf("%s %s, replayed %v\n", id, answer.Data, answer.Replayed)
		}
	}
	// Output:
	// order-1 accepted, replayed false
	// order-2 accepted, replayed false
	// order-3 may come again later
	// order-1 accepted, replayed true
}
