package scopetest_test

import (
	"fmt"
	"testing"

	"github.com/semelhq/semel/store/scopetest"
)

// The test of an adapter's scope, at one isolation level.
func Example() {
	test := func(t *testing.T) { // TestScope
		scopetest.Run(t, scopetest.Options{
			New: func(t testing.TB, at scopetest.Place, s scopetest.Settings) *scopetest.Bench {
				t.Logf("opens a scope in the schema %s, with %d connections and the policy %v", at.Name, s.Conns, s.Policy)
				return nil
			},
		})
	}
	fmt.Println(test != nil)
	// Output: true
}
