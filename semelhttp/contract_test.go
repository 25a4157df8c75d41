package semelhttp_test

import (
	"bufio"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/textproto"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/semelhttp"
	"github.com/semelhq/semel/store/memory"
)

// counted is a handler that counts its runs and answers with the count.
func counted(runs *atomic.Int64) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		fmt.Fprintf(w, "run %d", runs.Add(1))
	}
}

func TestRequestsThatAreRefusedOrPassed(t *testing.T) {
	long := strings.Repeat("k", 256)
	for name, c := range map[string]struct {
		o       semelhttp.Options
		method  string
		body    string
		headers []string
		status  int
		kind    semelhttp.ProblemKind
	}{
		"no key passes":              {method: "POST", status: 200},
		"no key where required":      {o: semelhttp.Options{RequireKey: true}, method: "POST", status: 400, kind: semelhttp.KeyRequired},
		"GET is not guarded":         {o: semelhttp.Options{RequireKey: true}, method: "GET", status: 200},
		"PUT is not guarded":         {method: "PUT", headers: []string{"Idempotency-Key", long}, status: 200},
		"PUT, where the route wants": {o: semelhttp.Options{Methods: []string{"PUT"}}, method: "PUT", headers: []string{"Idempotency-Key", long}, status: 400, kind: semelhttp.KeyInvalid},
		"key of 255":                 {method: "PATCH", headers: []string{"Idempotency-Key", long[1:]}, status: 200},
		"key of 256":                 {method: "POST", headers: []string{"Idempotency-Key", long}, status: 400, kind: semelhttp.KeyInvalid},
		"empty key":                  {method: "POST", headers: []string{"Idempotency-Key", ""}, status: 400, kind: semelhttp.KeyInvalid},
		"empty string":               {method: "POST", headers: []string{"Idempotency-Key", `""`}, status: 400, kind: semelhttp.KeyInvalid},
		"two lines":                  {method: "POST", headers: []string{"Idempotency-Key", "a", "Idempotency-Key", "a"}, status: 400, kind: semelhttp.KeyInvalid},
		"a list":                     {method: "POST", headers: []string{"Idempotency-Key", "a, b"}, status: 400, kind: semelhttp.KeyInvalid},
		"parameters":                 {method: "POST", headers: []string{"Idempotency-Key", `"a";v=1`}, status: 400, kind: semelhttp.KeyInvalid},
		"body at the cap":            {o: semelhttp.Options{MaxBody: 4}, method: "POST", body: "1234", headers: []string{"Idempotency-Key", "k"}, status: 200},
		"body over the cap":          {o: semelhttp.Options{MaxBody: 4}, method: "POST", body: "12345", headers: []string{"Idempotency-Key", "k"}, status: 413, kind: semelhttp.BodyTooLarge},
		"key from long ago":          {method: "POST", headers: []string{"Idempotency-Key", "017f22e2-79b0-7cc3-98c4-dc0c0c07398f"}, status: 410, kind: semelhttp.KeyExpired},
		"key from the future":        {method: "POST", headers: []string{"Idempotency-Key", "0fff22e2-79b0-7cc3-98c4-dc0c0c07398f"}, status: 400, kind: semelhttp.KeyEarly},
		"another header":             {o: semelhttp.Options{KeyHeader: "x-request-id", RequireKey: true}, method: "POST", headers: []string{"X-Request-Id", "a"}, status: 200},
	} {
		t.Run(name, func(t *testing.T) {
			var runs atomic.Int64
			s := serve(t, counted(&runs), c.o)
			a := send(t, c.method, s.URL, c.body, c.headers...)
			if a.StatusCode != c.status || a.kind() != c.kind {
				t.Errorf("got %d %s, want %d %s", a.StatusCode, a.body, c.status, c.kind)
			}
			if ran := runs.Load() > 0; ran != (c.status == 200) {
				t.Errorf("ran: %v", ran)
			}
			if strings.Contains(a.body, long) {
				t.Error("the answer repeats the key")
			}
		})
	}
}

func TestTruncatedBodyStartsNothing(t *testing.T) {
	var runs atomic.Int64
	s := serve(t, counted(&runs), semelhttp.Options{})
	for name, raw := range map[string]string{
		"short of its length": "Content-Length: 100\r\n\r\nhalf",
		"broken chunk":        "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nzz\r\n",
		"no last chunk":       "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
	} {
		conn, err := net.Dial("tcp", s.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(conn, "POST / HTTP/1.1\r\nHost: x\r\nX-Tenant: acme\r\nIdempotency-Key: k\r\n%s", raw)
		conn.(*net.TCPConn).CloseWrite()
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if p, _ := semelhttp.ReadProblem(resp); p == nil || p.Kind() != semelhttp.BodyUnreadable || runs.Load() != 0 {
			t.Errorf("%s: got %d %+v after %d runs", name, resp.StatusCode, p, runs.Load())
		}
		conn.Close()
	}
}

func TestDuplicateWaitsThenReplays(t *testing.T) {
	var runs atomic.Int64
	entered, leave := make(chan struct{}), make(chan struct{})
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		runs.Add(1)
		close(entered)
		<-leave
		io.WriteString(w, "done")
	}, semelhttp.Options{})
	var all sync.WaitGroup
	for range 50 {
		all.Go(func() {
			if a := send(t, "POST", s.URL, "", "Idempotency-Key", "k"); a.body != "done" {
				t.Errorf("got %d %s", a.StatusCode, a.body)
			}
		})
	}
	<-entered
	close(leave)
	all.Wait()
	if runs.Load() != 1 {
		t.Errorf("ran %d times", runs.Load())
	}
}

func TestInProgressAndInFlightLimits(t *testing.T) {
	entered, leave := make(chan struct{}), make(chan struct{})
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		close(entered)
		<-leave
	}, semelhttp.Options{Policy: semel.Policy{Wait: -1}, MaxInFlight: 2})
	var first sync.WaitGroup
	first.Go(func() { send(t, "POST", s.URL, "", "Idempotency-Key", "k") })
	<-entered
	if a := send(t, "POST", s.URL, "", "Idempotency-Key", "k"); a.kind() != semelhttp.InProgress || a.StatusCode != 409 || a.Header.Get("Retry-After") == "" {
		t.Errorf("duplicate: got %d %s, Retry-After %q", a.StatusCode, a.body, a.Header.Get("Retry-After"))
	}
	close(leave)
	first.Wait()

	var runs atomic.Int64
	s = serve(t, counted(&runs), semelhttp.Options{MaxInFlight: 1, Operation: func(r *http.Request) string {
		if a := send(t, "POST", "http://"+r.Host, "", "Idempotency-Key", "inner"); r.Header.Get("Idempotency-Key") == "outer" && a.kind() != semelhttp.TooManyInFlight {
			t.Errorf("over the limit: got %d %s", a.StatusCode, a.body)
		}
		return "op"
	}})
	if a := send(t, "POST", s.URL, "", "Idempotency-Key", "outer"); a.body != "run 1" {
		t.Errorf("within the limit: got %d %s", a.StatusCode, a.body)
	}
}

func TestStreamReachesTheClientWhileItRuns(t *testing.T) {
	more := make(chan struct{})
	s := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		io.WriteString(w, "data: 1\n\n")
		w.(http.Flusher).Flush()
		<-more
		io.WriteString(w, "data: 2\n\n")
	}, semelhttp.Options{HoldFlush: true})
	r, _ := http.NewRequest("POST", s.URL, nil)
	r.Header.Set("Idempotency-Key", "k")
	r.Header.Set("X-Tenant", "acme")
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	lines := bufio.NewReader(resp.Body)
	if line, err := lines.ReadString('\n'); line != "data: 1\n" {
		t.Fatal(line, err)
	}
	close(more) // the first event came while the handler was still running
	if rest, err := io.ReadAll(lines); string(rest) != "\ndata: 2\n\n" {
		t.Errorf("got %q, %v", rest, err)
	}
}

func TestHeldFlushIsStillStored(t *testing.T) {
	s := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, "{")
		w.(http.Flusher).Flush()
		io.WriteString(w, "}")
	}, semelhttp.Options{HoldFlush: true})
	for range 2 {
		if a := send(t, "POST", s.URL, "", "Idempotency-Key", "k"); a.body != "{}" {
			t.Errorf("got %d %q", a.StatusCode, a.body)
		}
	}
}

func TestBrokenStreamIsNotTakenForComplete(t *testing.T) {
	var runs atomic.Int64
	s := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		runs.Add(1)
		io.WriteString(w, "half")
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	}, semelhttp.Options{})
	r, _ := http.NewRequest("POST", s.URL, http.NoBody)
	r.Header.Set("Idempotency-Key", "k")
	r.Header.Set("X-Tenant", "acme")
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(resp.Body); err == nil {
		t.Errorf("the broken stream ended as if it were complete: %q", b)
	}
	resp.Body.Close()
	if a := send(t, "POST", s.URL, "", "Idempotency-Key", "k"); a.kind() != semelhttp.OutcomeUnknownKind || runs.Load() != 1 {
		t.Errorf("retry: got %d %s after %d runs", a.StatusCode, a.body, runs.Load())
	}
}

func TestInformationalAndBodilessAnswers(t *testing.T) {
	for _, status := range []int{200, 201, 204, 304} {
		s := serve(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Link", "</a.css>; rel=preload")
			w.WriteHeader(http.StatusEarlyHints)
			w.WriteHeader(status)
		}, semelhttp.Options{})
		for i := range 2 {
			early := 0
			ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{Got1xxResponse: func(code int, _ textproto.MIMEHeader) error { early = code; return nil }})
			r, _ := http.NewRequestWithContext(ctx, "POST", s.URL, nil)
			r.Header.Set("Idempotency-Key", "k")
			r.Header.Set("X-Tenant", "acme")
			resp, err := http.DefaultClient.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			b, _ := io.ReadAll(resp.Body)
			resp.Body.Close()
			if resp.StatusCode != status || len(b) != 0 || (early == 103) != (i == 0) || (resp.Header.Get("Idempotent-Replayed") == "true") != (i == 1) {
				t.Errorf("%d, request %d: got %d %q, early %d, %v", status, i, resp.StatusCode, b, early, resp.Header)
			}
		}
	}
}

func TestHijackedConnectionIsRemembered(t *testing.T) {
	s := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\nraw")
		conn.Close()
	}, semelhttp.Options{})
	if a := send(t, "POST", s.URL, "", "Idempotency-Key", "k"); a.body != "raw" {
		t.Errorf("got %q", a.body)
	}
	if a := send(t, "POST", s.URL, "", "Idempotency-Key", "k"); a.kind() != semelhttp.ResultGone {
		t.Errorf("retry: got %d %s", a.StatusCode, a.body)
	}
}

func TestHeadIsReplayedWithoutABody(t *testing.T) {
	s := serve(t, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "body") }, semelhttp.Options{Methods: []string{"HEAD"}})
	for range 2 {
		if a := send(t, "HEAD", s.URL, "", "Idempotency-Key", "k"); a.StatusCode != 200 || a.body != "" {
			t.Errorf("got %d %q", a.StatusCode, a.body)
		}
	}
}

func TestCanonicalForms(t *testing.T) {
	part := func(boundary, value string) string {
		return strings.ReplaceAll("--B\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n"+value+"\r\n--B--\r\n", "B", boundary)
	}
	sum := sha256.Sum256([]byte("x"))
	digest := "sha-256=:" + base64.StdEncoding.EncodeToString(sum[:]) + ":"
	for name, c := range map[string]struct {
		canonical       semelhttp.Canonical
		header          string
		first, second   string
		firstH, secondH string
		status          int
		kind            semelhttp.ProblemKind
	}{
		"form, other order":         {semelhttp.Form(), "Content-Type", "a=1&b=%32", "b=2&a=1", "application/x-www-form-urlencoded", "application/x-www-form-urlencoded", 200, ""},
		"form, other value":         {semelhttp.Form(), "Content-Type", "a=1", "a=2", "application/x-www-form-urlencoded", "application/x-www-form-urlencoded", 422, semelhttp.PayloadMismatch},
		"multipart, other boundary": {semelhttp.Form(), "Content-Type", part("one", "v"), part("two", "v"), "multipart/form-data; boundary=one", "multipart/form-data; boundary=two", 200, ""},
		"multipart, other value":    {semelhttp.Form(), "Content-Type", part("one", "v"), part("one", "w"), "multipart/form-data; boundary=one", "multipart/form-data; boundary=one", 422, semelhttp.PayloadMismatch},
		"no form":                   {semelhttp.Form(), "Content-Type", "a=1", "{}", "application/x-www-form-urlencoded", "application/json", 400, semelhttp.BodyUnreadable},
		"digest":                    {semelhttp.ContentDigest(), "Content-Digest", "x", "x", digest, "md5=:AA==:, " + digest, 200, ""},
		"digest of another body":    {semelhttp.ContentDigest(), "Content-Digest", "x", "y", digest, digest, 400, semelhttp.BodyUnreadable},
		"no digest":                 {semelhttp.ContentDigest(), "Content-Digest", "x", "x", digest, "", 400, semelhttp.BodyUnreadable},
	} {
		t.Run(name, func(t *testing.T) {
			var runs atomic.Int64
			s := serve(t, counted(&runs), semelhttp.Options{Canonical: c.canonical})
			if a := send(t, "POST", s.URL, c.first, "Idempotency-Key", "k", c.header, c.firstH); a.body != "run 1" {
				t.Fatalf("first: got %d %s", a.StatusCode, a.body)
			}
			if a := send(t, "POST", s.URL, c.second, "Idempotency-Key", "k", c.header, c.secondH); a.StatusCode != c.status || a.kind() != c.kind || runs.Load() != 1 {
				t.Errorf("second: got %d %s after %d runs, want %d %s", a.StatusCode, a.body, runs.Load(), c.status, c.kind)
			}
		})
	}
}

func TestChosenHeadersCount(t *testing.T) {
	var runs atomic.Int64
	s := serve(t, counted(&runs), semelhttp.Options{FingerprintHeaders: []string{"X-Currency"}})
	send(t, "POST", s.URL, "1", "Idempotency-Key", "k", "X-Currency", "EUR")
	if a := send(t, "POST", s.URL, "1", "Idempotency-Key", "k", "X-Currency", "USD"); a.kind() != semelhttp.PayloadMismatch {
		t.Errorf("got %d %s", a.StatusCode, a.body)
	}
	if a := send(t, "POST", s.URL, "1", "Idempotency-Key", "k", "X-Currency", "EUR", "X-Trace", "7"); a.body != "run 1" {
		t.Errorf("got %d %s", a.StatusCode, a.body)
	}
}

func TestOptionsThatAreRefused(t *testing.T) {
	guard := newGuard(t, memory.New(memory.Options{}))
	for name, o := range map[string]semelhttp.Options{
		"lower case": {Methods: []string{"post"}},
		"not done":   {NotDone: []int{200}},
		"both":       {RequireKey: true, DeriveKey: true},
		"hop by hop": {KeepHeaders: []string{"connection"}},
		"negative":   {MaxBody: -1},
		"bad policy": {Policy: semel.Policy{Lease: 1}},
	} {
		o.Scope = semelhttp.SharedScope()
		if _, err := semelhttp.NewHandler(guard, http.NotFoundHandler(), o); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestDamagedResultIsInDoubt(t *testing.T) {
	store := memory.New(memory.Options{})
	var runs atomic.Int64
	h, err := semelhttp.NewHandler(newGuard(t, store), counted(&runs), semelhttp.Options{Scope: semelhttp.SharedScope()})
	if err != nil {
		t.Fatal(err)
	}
	ask(h, "k", "")
	records, err := store.List(t.Context(), semel.Filter{Scope: "shared|POST|/|key"})
	if err != nil || len(records) != 1 {
		t.Fatal(records, err)
	}
	for _, damaged := range [][]byte{{}, {9}, {1, 200}, {1, 200, 1, 255}} {
		bad := records[0]
		bad.Result = damaged
		read, err := store.CompareAndSwap(t.Context(), records[0].Version, bad)
		if err != nil {
			t.Fatal(err)
		}
		records[0].Version = read.Record.Version
		if w := ask(h, "k", ""); w.Code != 409 || !strings.Contains(w.Body.String(), "outcome-unknown") || runs.Load() != 1 {
			t.Errorf("%v: got %d %s after %d runs", damaged, w.Code, w.Body, runs.Load())
		}
	}
}

func TestStreamIsCompleteOnlyOnceItIsRecorded(t *testing.T) {
	for name, handler := range map[string]http.HandlerFunc{
		"with a length": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "6")
			io.WriteString(w, "abc")
			w.(http.Flusher).Flush()
			io.WriteString(w, "def")
			w.(http.Flusher).Flush()
		},
		"in chunks": func(w http.ResponseWriter, _ *http.Request) {
			io.WriteString(w, "abc")
			w.(http.Flusher).Flush()
			io.WriteString(w, "def")
		},
	} {
		for _, fail := range []bool{false, true} {
			store := &failingStore{Store: memory.New(memory.Options{})}
			h, err := semelhttp.NewHandler(newGuard(t, store), handler, semelhttp.Options{
				Scope:  semelhttp.SharedScope(),
				Policy: semel.Policy{Lease: 50 * time.Millisecond, FinishWithin: time.Millisecond},
			})
			if err != nil {
				t.Fatal(err)
			}
			s := httptest.NewServer(h)
			store.fail.Store(fail)
			r, _ := http.NewRequest("POST", s.URL, http.NoBody)
			r.Header.Set("Idempotency-Key", "k")
			resp, err := http.DefaultClient.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			b, err := io.ReadAll(resp.Body)
			resp.Body.Close()
			if complete := err == nil && string(b) == "abcdef"; complete == fail {
				t.Errorf("%s, store fails %v: the client read %q, %v", name, fail, b, err)
			}
			s.Close()
		}
	}
}
