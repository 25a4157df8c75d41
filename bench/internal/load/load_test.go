package load

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// TestClient sends to a server of net/http and compares what both saw.
func TestClient(t *testing.T) {
	var mu sync.Mutex
	keys := make(map[string]int)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil || r.Method == http.MethodPost && string(body) != Body {
			t.Errorf("body %q, error %v", body, err)
		}
		mu.Lock()
		defer mu.Unlock()
		keys[r.Header.Get("Idempotency-Key")]++
		if r.URL.Path == "/replayed" {
			w.Header().Set("Idempotent-Replayed", "true")
		}
		w.WriteHeader(http.StatusCreated)
		fmt.Fprint(w, len(keys))
	}))
	defer server.Close()
	c, err := Dial(server.Listener.Addr().String(), 3)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var next atomic.Uint64
	s, err := c.Run(context.Background(), 50*time.Millisecond, Post("/fresh", 0xabc).Replayed(false), Counting(&next))
	if err != nil || s.Count == 0 || s.Count != len(keys) || keys["00000abc-0000-4000-8000-000000000001"] != 1 {
		t.Errorf("%d requests, error %v; the server saw %d keys", s.Count, err, len(keys))
	}
	if _, err := c.Run(context.Background(), time.Second, Post("/replayed", 1).Replayed(false), Counting(&next)); err == nil {
		t.Error("a replay that was not expected went unnoticed")
	}
	clear(keys)
	answers, _ := c.Burst(Post("/replayed", 2), 7)
	if len(answers) != 3 || len(keys) != 1 || keys["00000002-0000-4000-8000-000000000007"] != 3 || string(answers[0].Body) != "1" {
		t.Errorf("burst: answers %+v, keys %v", answers, keys)
	}
	if text, err := Get(server.Listener.Addr().String(), "/"); err != nil || text != "2" {
		t.Errorf("get: got %q, error %v; want 2", text, err)
	}
}

func TestLength(t *testing.T) {
	for _, c := range []struct {
		head string
		want int
	}{
		{"HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n", 12},
		{"HTTP/1.1 200 OK\r\ncontent-length:0\r\nX: y\r\n\r\n", 0},
		{"HTTP/1.1 200 OK\r\nX-Content-Length: 3\r\n\r\n", -1},
		{"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", -1},
	} {
		if got := length([]byte(c.head)); got != c.want {
			t.Errorf("length of %q: got %d, want %d", c.head, got, c.want)
		}
	}
}
