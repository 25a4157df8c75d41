package semelhttp_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/semelhttp"
	"github.com/semelhq/semel/store/memory"
)

// An operator's answer to a key in doubt is what the next retry gets, headers
// that no answer may keep left out.
func TestAnswerIsReplayed(t *testing.T) {
	guard, err := semel.NewGuard(memory.New(memory.Options{}), semel.Options{})
	if err != nil {
		t.Fatal(err)
	}
	var claimed semel.Digest
	h, err := semelhttp.NewHandler(guard, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set(semelhttp.OutcomeHeader, semelhttp.OutcomeUnknown)
		w.WriteHeader(http.StatusBadGateway)
	}), semelhttp.Options{Scope: semelhttp.SharedScope(), Operation: func(*http.Request) string { return "order" }})
	if err != nil {
		t.Fatal(err)
	}
	claimed = guard.Digest(semel.Key{Scope: semel.JoinScope("shared", "order", "key"), ID: "k-1"})
	if w := ask(h, "k-1", "coffee"); w.Code != http.StatusConflict {
		t.Fatalf("got %d, want 409", w.Code)
	}
	answer := semelhttp.Answer{Status: 201, Body: []byte(`{"id":7}`), Header: http.Header{
		"content-type": {"application/json"}, "Link": {"<a>", "<b>"}, "Set-Cookie": {"a=b"}, "Authorization": {"secret"}, "X-Own": {"1"},
	}}
	result, err := answer.Result("x-own", "authorization")
	if err != nil {
		t.Fatal(err)
	}
	for {
		_, err = guard.Resolve(t.Context(), claimed, semel.Settlement{State: semel.Done, Result: result, Who: "anna", Why: "the order exists"}, nil)
		if err == nil || !strings.Contains(err.Error(), "in progress") {
			break
		}
		time.Sleep(time.Millisecond)
	}
	if err != nil {
		t.Fatal(err)
	}
	w := ask(h, "k-1", "coffee")
	if got := w.Header(); w.Code != 201 || w.Body.String() != `{"id":7}` || got.Get("Content-Type") != "application/json" ||
		len(got["Link"]) < 2 || got.Get("X-Own") != "1" || got.Get("Set-Cookie") != "" || got.Get("Authorization") != "" ||
		got.Get("Idempotent-Replayed") != "true" {
		t.Errorf("the retry got %d %q %v", w.Code, w.Body, got)
	}
	held, err := guard.Store().Get(t.Context(), claimed)
	if err != nil {
		t.Fatal(err)
	}
	again, err := semelhttp.AnswerOf(&held.Record)
	if err != nil || again.Status != 201 || string(again.Body) != `{"id":7}` || again.Header.Get("Content-Type") != "application/json" {
		t.Errorf("read again: %+v, %v", again, err)
	}
	held.Record.Replay = 0
	if _, err := semelhttp.AnswerOf(&held.Record); err == nil {
		t.Error("a record without an answer gave one")
	}
}

func TestAnswersThatNobodyCouldGive(t *testing.T) {
	for _, a := range []semelhttp.Answer{{}, {Status: 100}, {Status: 600}, {Status: 204, Body: []byte("x")}, {Status: 304, Body: []byte("x")}} {
		if _, err := a.Result(); err == nil || !strings.Contains(err.Error(), "an answer") {
			t.Errorf("%+v: got %v, want an error", a, err)
		}
	}
}
