package badinput

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/semelhq/semel/cmd/e2e/internal/program"
	"github.com/semelhq/semel/semelhttp"
)

// page is SQLite's page size here, in bytes.
const page = 4096

// onStore gives the command of a gateway with this file.
func onStore(t *testing.T, path, upstream string) *exec.Cmd {
	t.Helper()
	return exec.Command(built(t), "gateway", "--upstream", "http://"+upstream, "--require", "--lease=2s", "--log-format=json", "--store", "sqlite:"+path)
}

// stored gives a database with the answers to n keys, all of them run once, and
// the service that ran them.
func stored(t *testing.T, n int) (database []byte, u *upstream) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "semel.db")
	g := &gateway{upstream: newUpstream(t)}
	command := onStore(t, path, g.upstream.address())
	address, err := program.Address()
	if err != nil {
		t.Fatal(err)
	}
	command.Args = append(command.Args, "--listen", address)
	p, err := program.Start(command)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Kill)
	if err := p.Serving(address, time.Minute); err != nil {
		t.Fatal(err)
	}
	g.address = address
	for i := range n {
		g.try(t, trial{name: "a proper request", request: known(i), want: want{status: 201, starts: 1}})
	}
	if code, err := p.Terminate(time.Minute); code != 0 || err != nil {
		t.Fatalf("the gateway was asked to end: exit code %d, %v; it wrote:\n%s", code, err, p.Output())
	}
	if database, err = os.ReadFile(path); err != nil {
		t.Fatal(err)
	}
	return database, g.upstream
}

// known is the request with the i-th key.
func known(i int) []byte {
	return post(fmt.Sprintf("/known/%d", i), canary, fmt.Sprintf("Idempotency-Key: known-%d", i))
}

// TestStoresThatAreNone: nothing can be remembered there, so nothing starts; and
// what is there is left as it is.
func TestStoresThatAreNone(t *testing.T) {
	t.Parallel()
	database, _ := stored(t, 20)
	changed := func(change func(d []byte) []byte) []byte { return change(bytes.Clone(database)) }
	tests := []struct {
		name  string
		file  []byte
		texts []string
	}{
		{"a text", []byte(strings.Repeat("Dear diary, today I was a database.\n", 300)), []string{"no SQLite database", "another path"}},
		{"noise", noise(rand.New(rand.NewPCG(*seed, 3)), 20*page), []string{"no SQLite database", "another path"}},
		{"a few words", []byte("hello"), []string{"no SQLite database"}},
		{"a head overwritten", changed(func(d []byte) []byte { copy(d, make([]byte, 100)); return d }), []string{"no SQLite database", "backup"}},
		{"a first page overwritten", changed(func(d []byte) []byte { copy(d[100:page], make([]byte, page)); return d }), []string{"corrupt", "backup"}},
		{"its first page alone", database[:page], []string{"corrupt", "backup"}},
		{"another application's", changed(func(d []byte) []byte { binary.BigEndian.PutUint32(d[68:], 0x47504b47); return d }), []string{"another application", "another path"}},
		{"a newer version's", changed(func(d []byte) []byte { binary.BigEndian.PutUint32(d[60:], 99); return d }), []string{"newer", "99"}},
		{"an unknown version's", changed(func(d []byte) []byte { binary.BigEndian.PutUint32(d[60:], 0); return d }), []string{"schema 0"}},
	}
	for _, test := range tests {
		path := filepath.Join(t.TempDir(), "semel.db")
		if err := os.WriteFile(path, test.file, 0o600); err != nil {
			t.Fatal(err)
		}
		command := onStore(t, path, "127.0.0.1:1")
		command.Args = append(command.Args, "--listen=127.0.0.1:0")
		refusal(t, test.name, command, 1, append(test.texts, path)...)
		if after, err := os.ReadFile(path); err != nil || !bytes.Equal(after, test.file) {
			t.Errorf("%s: the file was changed, %v", test.name, err)
		}
		list := exec.Command(built(t), "list", "--store", "sqlite:"+path)
		refusal(t, test.name+", listed", list, 1, path)
	}
	t.Logf("%d files", len(tests))
}

// TestPathsThatAreNone: places where no file can be, or none that can be written.
func TestPathsThatAreNone(t *testing.T) {
	t.Parallel()
	database, _ := stored(t, 1)
	dir := t.TempDir()
	start := func(path string) *exec.Cmd {
		command := onStore(t, path, "127.0.0.1:1")
		command.Args = append(command.Args, "--listen=127.0.0.1:0")
		return command
	}
	refusal(t, "a directory", start(dir), 1, "it is a directory", "semel.db")
	refusal(t, "a device", start(os.DevNull), 1, "not a regular file")
	refusal(t, "no directory", start(filepath.Join(dir, "none", "semel.db")), 1, "directory must exist")
	refusal(t, "a file as directory", start(filepath.Join(built(t), "semel.db")), 1, "semel.db")
	refusal(t, "a name of 300 bytes", start(filepath.Join(dir, strings.Repeat("n", 300))), 1, "too long")
	refusal(t, "nothing to list", exec.Command(built(t), "list", "--store=sqlite:"+filepath.Join(dir, "none.db")), 1, "there is no store", "--store")

	// Another user may write there; to root all is permitted.
	locked := filepath.Join(dir, "locked")
	if err := os.Mkdir(locked, 0o755); err != nil {
		t.Fatal(err)
	}
	existing := filepath.Join(locked, "semel.db")
	if err := os.WriteFile(existing, database, 0o444); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(locked, 0o555); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Chmod(locked, 0o755) })
	stranger := func(path string) *exec.Cmd {
		command := start(path)
		if !asNobody(t, command, dir) {
			t.Skip("as root, and there is no way here to run a command as somebody else")
		}
		return command
	}
	refusal(t, "a directory of another user", stranger(filepath.Join(locked, "new.db")), 1, "writable for this user")
	refusal(t, "a file of another user", stranger(existing), 1, existing, "this user")
}

// TestDamagedStores: some pages of a database are lost. A gateway may refuse it,
// or start and find out; a key whose record was lost is then in doubt. It is
// never taken for new.
func TestDamagedStores(t *testing.T) {
	t.Parallel()
	const keys, damages = 60, 24
	t.Logf("seed %d", *seed)
	database, u := stored(t, keys)
	source := rand.New(rand.NewPCG(*seed, 4))
	refused, replayed, inDoubt := 0, 0, 0
	for n := range damages {
		damaged := bytes.Clone(database)
		at := (1 + source.IntN(len(database)/page-1)) * page // not the first page
		length := min(page*(1+source.IntN(3)), len(damaged)-at)
		filling := noise(source, length)
		if n%3 == 0 {
			clear(filling)
		}
		copy(damaged[at:], filling)
		name := fmt.Sprintf("%d bytes lost at %d", length, at)
		if n%8 == 7 {
			damaged = damaged[:at]
			name = fmt.Sprintf("cut after %d bytes", at)
		}
		path := filepath.Join(t.TempDir(), "semel.db")
		if err := os.WriteFile(path, damaged, 0o600); err != nil {
			t.Fatal(err)
		}
		r, d, ok := probe(t, name, path, u, keys)
		replayed, inDoubt = replayed+r, inDoubt+d
		if !ok {
			refused++
		}
	}
	t.Logf("%d damaged databases: %d were refused; in the others, of %d keys %d were replayed and %d are in doubt; none ran again (95 %%: <= %.2g)",
		damages, refused, replayed+inDoubt, replayed, inDoubt, 3/float64(replayed+inDoubt))
	if replayed == 0 || inDoubt == 0 {
		t.Errorf("the damage proves nothing: %d replayed, %d in doubt", replayed, inDoubt)
	}
}

// probe starts a gateway on a damaged file and asks for all keys. ok is false if
// it refuses to start.
func probe(t *testing.T, name, path string, u *upstream, keys int) (replayed, inDoubt int, ok bool) {
	t.Helper()
	address, err := program.Address()
	if err != nil {
		t.Fatal(err)
	}
	command := onStore(t, path, u.address())
	command.Args = append(command.Args, "--listen", address, "--log-level=error")
	p, err := program.Start(command)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Kill()
	if err := p.Serving(address, patience); err != nil {
		if code, _ := p.Wait(patience); code != 1 || !strings.Contains(p.Output(), "backup") {
			t.Errorf("%s: it ended with code %d and does not say what to do:\n%s", name, code, p.Output())
		}
		return 0, 0, false
	}
	before, _ := u.count("")
	for i := range keys {
		a, err := exchange(address, known(i), false)
		switch {
		case err != nil:
			t.Errorf("%s: key %d: %v", name, i, err)
		case a.status == 201 && a.replayed && a.body == fmt.Sprintf("run %d", i+1):
			replayed++
		case a.kind == semelhttp.OutcomeUnknownKind, a.kind == semelhttp.StoreUnavailable:
			inDoubt++
		default:
			t.Errorf("%s: key %d was answered %v", name, i, a)
		}
		if a.kind == semelhttp.StoreUnavailable {
			break // each of them takes its time
		}
	}
	if after, _ := u.count(""); after != before {
		t.Errorf("%s: %d known keys ran again", name, after-before)
	}
	return replayed, inDoubt, true
}

func noise(source *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(source.Uint32())
	}
	return b
}
