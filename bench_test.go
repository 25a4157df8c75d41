package semel_test

import (
	"context"
	"strconv"
	"testing"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/store/memory"
)

func BenchmarkGuard(b *testing.B) {
	guard, err := semel.NewGuard(memory.New(memory.Options{}), semel.Options{})
	if err != nil {
		b.Fatal(err)
	}
	p, _ := semel.Policy{}.Filled()
	run := func(b *testing.B, key func(i int) string) {
		b.ReportAllocs()
		data := []byte("ok")
		for i := range b.N {
			ask := semel.Ask{Key: semel.Key{Scope: "s", ID: key(i)}, Policy: &p}
			c, _, err := guard.Begin(context.Background(), ask)
			if err != nil {
				b.Fatal(err)
			}
			if c != nil {
				if _, err := c.Complete(semel.Result{Data: data}); err != nil {
					b.Fatal(err)
				}
			}
		}
	}
	b.Run("fresh", func(b *testing.B) { run(b, strconv.Itoa) })
	b.Run("replay", func(b *testing.B) { run(b, func(int) string { return "same" }) })
}
