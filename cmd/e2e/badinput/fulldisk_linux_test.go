package badinput

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/semelhq/semel/semelhttp"
)

// mounted starts the command with a file system of 5 MiB at dir that only it
// sees, 4 of them taken by a file called filler. Without the right to mount
// the test is skipped: to fill a disk that others use is no test.
func mounted(t *testing.T, dir string, command *exec.Cmd) {
	t.Helper()
	unshare, err := exec.LookPath("unshare")
	if err != nil || os.Getuid() != 0 || exec.Command(unshare, "--mount", "true").Run() != nil {
		t.Skip("a full disk needs the right to mount one; run as root, with util-linux")
	}
	script := `mount -t tmpfs -o size=5m tmpfs "$0" && head -c 4194304 /dev/zero > "$0/filler" && exec "$@"`
	command.Args = append([]string{unshare, "--mount", "sh", "-c", script, dir}, command.Args...)
	command.Path = unshare
}

// TestFullDisk: what cannot be remembered does not start, what has started and
// cannot be stored is in doubt, what was stored before is replayed; and once
// there is room again, everything goes on.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	g := &gateway{upstream: newUpstream(t)}
	large := "HTTP/1.1 201 Created\r\nContent-Length: 40000\r\n\r\n" + strings.Repeat("l", 40000)
	request := func(i int) []byte {
		return post(fmt.Sprintf("/full/%d", i), canary, fmt.Sprintf("Idempotency-Key: full-%d", i))
	}
	command := onStore(t, filepath.Join(dir, "semel.db"), g.upstream.address())
	mounted(t, dir, command)
	g.start(t, command)

	g.try(t, trial{name: "before", request: known(0), want: want{status: 201, starts: 1}})
	before, _ := g.upstream.count("")
	const n = 48
	for i := range n {
		g.upstream.answer(fmt.Sprintf("/full/%d", i), says(large))
	}
	answers := askAll(t, g.address, n, request)
	after, _ := g.upstream.count("")
	done, inDoubt, refused := tally(t, answers)
	// A claim that took longer than its lease is in doubt, too, without a start.
	if started := after - before; started < done || started > done+inDoubt {
		t.Errorf("%d requests started, and %d were answered as done, %d as unknown", after-before, done, inDoubt)
	}
	if inDoubt+refused == 0 {
		t.Errorf("the disk was not full: %d answers were stored", done)
	}
	g.try(t, trial{name: "stored before", request: known(0), want: want{status: 201}})
	for i, a := range answers {
		if a.status == 201 {
			g.try(t, trial{name: "stored before the disk was full", request: request(i), want: want{status: 201}})
		}
	}
	if !strings.Contains(g.process.Output(), "full") {
		t.Errorf("the log does not say that the disk is full:\n%s", g.process.Output())
	}

	if err := os.Remove(fmt.Sprintf("/proc/%d/root%s/filler", g.process.PID(), dir)); err != nil {
		t.Fatal(err)
	}
	for i, a := range answers {
		switch {
		case a.status == 201:
		case a.kind == semelhttp.OutcomeUnknownKind:
			// Storing may have gone on behind the answer, and then the answer is there.
			before, _ := g.upstream.count("")
			again, err := exchange(g.address, request(i), false)
			after, _ := g.upstream.count("")
			if err != nil || after != before || again.kind != semelhttp.OutcomeUnknownKind && !(again.status == 201 && again.replayed) {
				t.Errorf("in doubt, asked again when there is room: got %v, %v, and %d starts", again, err, after-before)
			}
		default:
			g.upstream.answer(fmt.Sprintf("/full/%d", i), nil)
			g.try(t, trial{name: "refused, asked again when there is room", request: request(i), want: want{status: 201, starts: 1}})
		}
	}
	t.Logf("of %d requests on a disk that fills up %d were done, %d are in doubt, %d were refused and did not start", n, done, inDoubt, refused)
}

// askAll sends n requests, some at a time, and gives their answers.
func askAll(t *testing.T, address string, n int, request func(i int) []byte) []answer {
	t.Helper()
	answers := make([]answer, n)
	room := make(chan struct{}, 24)
	var wait sync.WaitGroup
	for i := range n {
		wait.Go(func() {
			room <- struct{}{}
			defer func() { <-room }()
			var err error
			if answers[i], err = exchange(address, request(i), false); err != nil {
				t.Errorf("request %d: %v", i, err)
			}
		})
	}
	wait.Wait()
	return answers
}

func tally(t *testing.T, answers []answer) (done, inDoubt, refused int) {
	t.Helper()
	for i, a := range answers {
		switch {
		case a.status == 201:
			done++
		case a.kind == semelhttp.OutcomeUnknownKind:
			inDoubt++
		case a.kind == semelhttp.StoreUnavailable:
			refused++
		default:
			t.Errorf("request %d was answered %v", i, a)
		}
	}
	return done, inDoubt, refused
}
