package badinput

import (
	"fmt"
	"net"
	"net/http"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/semelhq/semel/cmd/e2e/internal/program"
	"github.com/semelhq/semel/semelhttp"
)

// far is a gateway on a store over a network. A path is asked for with a key of
// its own, so that the service tells by path what ran how often.
type far struct {
	*gateway
	admin string
}

// onURL gives the command of a gateway on this store.
func onURL(t *testing.T, url, upstream string, more ...string) *exec.Cmd {
	t.Helper()
	args := []string{"gateway", "--upstream", "http://" + upstream, "--require", "--lease=2s", "--log-format=json", "--store", url}
	return exec.Command(built(t), append(args, more...)...)
}

// refused checks that a gateway on this store does not start.
func refused(t *testing.T, name, url string, texts ...string) {
	t.Helper()
	refusal(t, name, onURL(t, url, "127.0.0.1:1", "--listen=127.0.0.1:0"), 1, texts...)
}

func startFar(t *testing.T, url string, more ...string) *far {
	t.Helper()
	return startFarOf(t, newUpstream(t), url, more...)
}

// startFarOf starts one more gateway of a service.
func startFarOf(t *testing.T, u *upstream, url string, more ...string) *far {
	t.Helper()
	admin, err := program.Address()
	must(t, err)
	f := &far{&gateway{upstream: u}, admin}
	f.start(t, onURL(t, url, f.upstream.address(), append([]string{"--admin=" + admin}, more...)...))
	return f
}

func pathRequest(path string) []byte { return post(path, canary, "Idempotency-Key: key-of-"+path[1:]) }

// runs wants a path to run once, and to be replayed.
func (f *far) runs(t *testing.T, path string) {
	t.Helper()
	first := f.try(t, trial{name: path, request: pathRequest(path), want: want{status: 201, starts: 1}})
	if again := f.replays(t, path); first.replayed || again.body != first.body {
		t.Errorf("%s: got %v and then %v", path, first, again)
	}
}

// replays wants the answer of a path that ran.
func (f *far) replays(t *testing.T, path string) answer {
	t.Helper()
	a := f.try(t, trial{name: path + " again", request: pathRequest(path), want: want{status: 201}})
	if !a.replayed {
		t.Errorf("%s again: got %v, want a replay", path, a)
	}
	return a
}

// longestRetry bounds what a client may be told to wait, in seconds.
const longestRetry = 60

// refuses wants 503 for each of the paths, asked for at once: nothing starts,
// and the client is told when to come again.
func (f *far) refuses(t *testing.T, name string, paths ...string) {
	t.Helper()
	begin := time.Now()
	var wait sync.WaitGroup
	for _, path := range paths {
		wait.Go(func() {
			bad.Add(1)
			before := f.upstream.ran(path)
			a, err := exchange(f.address, pathRequest(path), false)
			seconds, _ := strconv.Atoi(a.after)
			if err != nil || a.kind != semelhttp.StoreUnavailable || seconds < 1 || seconds > longestRetry {
				t.Errorf("%s: %s: got %v, Retry-After %q, %v; want 503 store-unavailable and 1 to %d s", name, path, a, a.after, err, longestRetry)
			}
			if f.upstream.ran(path) != before {
				t.Errorf("%s: %s started", name, path)
			}
		})
	}
	wait.Wait()
	t.Logf("%s: %d requests were refused within %v", name, len(paths), time.Since(begin).Round(10*time.Millisecond))
}

// settles asks for paths that were refused until each has its answer: it ran
// once, or nobody knows whether it did. It never ran twice.
func (f *far) settles(t *testing.T, name string, paths ...string) {
	t.Helper()
	var done, unknown atomic.Int64
	var wait sync.WaitGroup
	for _, path := range paths {
		wait.Go(func() {
			var a answer
			var err error
			for deadline := time.Now().Add(patience); ; time.Sleep(100 * time.Millisecond) {
				a, err = exchange(f.address, pathRequest(path), false)
				if err != nil || a.status == 201 || a.kind == semelhttp.OutcomeUnknownKind || time.Now().After(deadline) {
					break
				}
			}
			ran := f.upstream.ran(path)
			switch {
			case err == nil && a.status == 201 && ran == 1:
				done.Add(1)
			case err == nil && a.kind == semelhttp.OutcomeUnknownKind && ran <= 1:
				unknown.Add(1)
			default:
				t.Errorf("%s: %s: got %v, %v after %d runs; want one run, or that its outcome is unknown", name, path, a, err, ran)
			}
		})
	}
	wait.Wait()
	t.Logf("%s: %d ran once, of %d the outcome is unknown", name, done.Load(), unknown.Load())
}

// ready waits until /readyz answers with this status.
func (f *far) ready(t *testing.T, status int) {
	t.Helper()
	client := http.Client{Timeout: 5 * time.Second}
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		resp, err := client.Get("http://" + f.admin + "/readyz")
		if err == nil {
			_ = resp.Body.Close() // it was not read
			if resp.StatusCode == status {
				return
			}
		}
		if time.Now().After(deadline) {
			t.Errorf("/readyz: %v, %v after %v; want %d", resp, err, patience, status)
			return
		}
	}
}

// holds has a path answer only when release is called. It tells when it began.
func (u *upstream) holds(path string) (began <-chan struct{}, release func()) {
	in, out := make(chan struct{}, 8), make(chan struct{})
	u.answer(path, func(c net.Conn) {
		in <- struct{}{}
		select {
		case <-out:
		case <-u.done:
		}
		says("HTTP/1.1 201 Created\r\nContent-Length: 4\r\n\r\nheld")(c)
	})
	return in, sync.OnceFunc(func() { close(out) })
}

// names numbers paths.
func names(format string, n int) []string {
	var out []string
	for i := range n {
		out = append(out, fmt.Sprintf(format, i))
	}
	return out
}

// outputs runs a program to its end and gives what it printed.
func outputs(t *testing.T, input string, name string, args ...string) string {
	t.Helper()
	command := exec.Command(name, args...)
	command.Stdin = strings.NewReader(input)
	out, err := command.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", name, err, out)
	}
	return strings.TrimSpace(string(out))
}
