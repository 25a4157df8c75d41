package semelhttp_test

import (
	"context"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/semelhttp"
	"github.com/semelhq/semel/store/memory"
)

// local is a store whose authority cannot be asked while cut is set.
type local struct {
	semel.Store
	cut bool
}

func (s *local) CompareAndSwap(ctx context.Context, old semel.Version, next semel.Record) (semel.Reading, error) {
	r, err := s.Store.CompareAndSwap(ctx, old, next)
	r.Unconfirmed = s.cut
	return r, err
}

// The mark is not part of what is stored: it tells of this answer alone.
func TestUnconfirmedAnswersAreMarked(t *testing.T) {
	store := &local{Store: memory.New(memory.Options{}), cut: true}
	h, err := semelhttp.NewHandler(newGuard(t, store), http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "done")
	}), semelhttp.Options{Scope: semelhttp.SharedScope()})
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		what, replayed, mark string
		cut                  bool
	}{
		{"a run without the store", "", "true", true},
		{"a replay without the store", "true", "true", true},
		{"a replay with the store again", "true", "", false},
	} {
		store.cut = step.cut
		w := ask(h, "k", "x")
		got := strings.Join(w.Header()[semelhttp.UnconfirmedHeader], ",")
		if w.Code != 200 || w.Body.String() != "done" || got != step.mark || w.Header().Get("Idempotent-Replayed") != step.replayed {
			t.Errorf("%s: %d %q %v", step.what, w.Code, w.Body, w.Header())
		}
	}
}
