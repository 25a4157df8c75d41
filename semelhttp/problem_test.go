package semelhttp_test

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/semelhttp"
)

// kinds are all problems with what clients rely on.
var kinds = []struct {
	kind      semelhttp.ProblemKind
	status    int
	retryable bool
	wait      string // Retry-After
	is        error
}{
	{kind: semelhttp.KeyRequired, status: 400},
	{kind: semelhttp.KeyInvalid, status: 400},
	{kind: semelhttp.KeyEarly, status: 400, is: semel.ErrEarly},
	{kind: semelhttp.ScopeRequired, status: 400},
	{kind: semelhttp.BodyUnreadable, status: 400},
	{kind: semelhttp.PayloadMismatch, status: 422, is: semel.ErrMismatch},
	{kind: semelhttp.InProgress, status: 409, retryable: true, wait: "1", is: semel.ErrInProgress},
	{kind: semelhttp.OutcomeUnknownKind, status: 409, is: semel.ErrInDoubt},
	{kind: semelhttp.ResultGone, status: 410, is: semel.ErrGone},
	{kind: semelhttp.KeyExpired, status: 410, is: semel.ErrExpired},
	{kind: semelhttp.BodyTooLarge, status: 413},
	{kind: semelhttp.TooManyInFlight, status: 503, retryable: true, wait: "1"},
	{kind: semelhttp.NotCommitted, status: 503, retryable: true, wait: "1", is: semel.ErrNotDone},
	{kind: semelhttp.QuotaExceeded, status: 429, retryable: true, wait: "1", is: semel.ErrOverQuota},
	{kind: semelhttp.StoreUnavailable, status: 503, retryable: true, wait: "1", is: semel.ErrUnavailable},
	{kind: semelhttp.HandlerFailed, status: 500},
	{kind: semelhttp.UpstreamUnreachable, status: 502, retryable: true},
}

func TestProblems(t *testing.T) {
	for _, c := range kinds {
		t.Run(string(c.kind), func(t *testing.T) {
			w := httptest.NewRecorder()
			if err := semelhttp.NewProblem(c.kind, "what happened").Write(w, httptest.NewRequest("POST", "/", nil)); err != nil {
				t.Fatal(err)
			}
			resp := w.Result()
			for name, want := range map[string]string{
				"Content-Type":  "application/problem+json",
				"Cache-Control": "no-store",
				"Retry-After":   c.wait,
				"Link":          `<https://github.com/semelhq/semel/blob/main/docs/spec/http.md>; rel="describedby"`,
			} {
				if got := resp.Header.Get(name); got != want {
					t.Errorf("%s is %q, want %q", name, got, want)
				}
			}
			if resp.StatusCode != c.status || resp.ContentLength != int64(w.Body.Len()) {
				t.Errorf("got %d and a length of %d for %d bytes, want %d", resp.StatusCode, resp.ContentLength, w.Body.Len(), c.status)
			}
			p, ok := semelhttp.ReadProblem(resp)
			if !ok || p.Kind() != c.kind || p.Status != c.status || p.Retryable != c.retryable || p.Title == "" || p.Detail != "what happened" {
				t.Fatalf("read back %+v, %v", p, ok)
			}
			if c.is != nil && !errors.Is(p, c.is) {
				t.Errorf("%v is not %v", p, c.is)
			}
			if c.is == nil && p.Unwrap() != nil {
				t.Errorf("%v is %v, want no error of the root package", p, p.Unwrap())
			}
		})
	}
}

func TestProblemNames(t *testing.T) {
	p := semelhttp.NewProblem(semelhttp.ResultGone, "")
	p.OriginalStatus = 201
	got, _ := json.Marshal(p)
	const want = `{"type":"https://github.com/semelhq/semel/blob/main/docs/spec/problems.md#result-gone","title":"The operation ran and its answer is not kept","status":410,"retryable":false,"original_status":201}`
	if string(got) != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestProblemPageHasEveryKind(t *testing.T) {
	page, err := os.ReadFile("../docs/spec/problems.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range kinds {
		if !strings.Contains(string(page), "\n## "+string(c.kind)+"\n") {
			t.Errorf("docs/spec/problems.md has no heading %q, to which the problem's type points", "## "+c.kind)
		}
	}
}

func TestProblemWrite(t *testing.T) {
	w := httptest.NewRecorder()
	w.Header().Set("Content-Encoding", "gzip")
	w.Header().Set("Etag", `"1"`)
	w.Header().Set("Vary", "Accept")
	p := semelhttp.NewProblem(semelhttp.InProgress, "")
	p.RetryAfter = 1001 * time.Millisecond
	if err := p.Write(w, httptest.NewRequest("HEAD", "/", nil)); err != nil {
		t.Fatal(err)
	}
	h := w.Header()
	if w.Body.Len() != 0 || h.Get("Retry-After") != "2" || h.Get("Content-Encoding") != "" || h.Get("Etag") != "" || h.Get("Vary") == "" {
		t.Errorf("got %d bytes and %v; want none for HEAD, Retry-After 2, and only Vary of the earlier headers", w.Body.Len(), h)
	}
}

func TestUnknownProblem(t *testing.T) {
	if p := semelhttp.NewProblem("no-such-kind", ""); p.Status != 500 || p.Type != "about:blank" || p.Kind() != "" || p.Unwrap() != nil {
		t.Errorf("got %+v, want a bare 500", p)
	}
}

func TestReadProblem(t *testing.T) {
	const foreign = `{"type":"https://example.com/out-of-credit","status":403}`
	for _, c := range []struct {
		name, media, body string
		want              bool
	}{
		{"somebody else's", "application/problem+json; charset=utf-8", foreign, true},
		{"empty object", "application/problem+json", `{}`, true},
		{"other media", "application/json", foreign, false},
		{"no JSON", "application/problem+json", `<html>`, false},
		{"too long", "application/problem+json", `{"detail":"` + strings.Repeat("x", 64<<10) + `"}`, false},
		{"no body", "application/problem+json", "", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			resp := &http.Response{StatusCode: 403, Header: http.Header{"Content-Type": {c.media}}, Body: io.NopCloser(strings.NewReader(c.body))}
			p, ok := semelhttp.ReadProblem(resp)
			if ok != c.want || ok && (p.Status != 403 || p.Kind() != "" || p.Type == "") {
				t.Errorf("got %+v, %v; want %v", p, ok, c.want)
			}
			if again, _ := io.ReadAll(resp.Body); string(again) != c.body {
				t.Errorf("%d bytes are left to read, want all %d", len(again), len(c.body))
			}
		})
	}
}

func FuzzReadProblem(f *testing.F) {
	f.Add(`{"type":"about:blank"}`, "3")
	f.Add(`{"status":-1,"retryable":"x"}`, "Fri, 31 Dec 2049 23:59:59 GMT")
	f.Add(`[]`, "99999999999999999999999")
	f.Add("", "-1")
	f.Fuzz(func(t *testing.T, body, after string) {
		h := http.Header{"Content-Type": {"application/problem+json"}, "Retry-After": {after}}
		resp := &http.Response{StatusCode: 503, Header: h, Body: io.NopCloser(strings.NewReader(body))}
		if p, ok := semelhttp.ReadProblem(resp); ok && p.RetryAfter < 0 {
			t.Errorf("Retry-After %q gives %v", after, p.RetryAfter)
		}
		if again, _ := io.ReadAll(resp.Body); string(again) != body {
			t.Errorf("%q is left of %q", again, body)
		}
	})
}
