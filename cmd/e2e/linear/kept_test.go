package linear

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/anishathalye/porcupine"

	"github.com/semelhq/semel"
)

// A history as text has one operation a line, in the order of their calls:
//
//	client key call return get  -   -     got     nonce version
//	client key call return swap old nonce wrote   nonce version
//	client key call return swap old nonce refused nonce version
//	client key call return swap old nonce unknown -     -
//
// call and return are nanoseconds from the beginning; "-" is nothing. Lines
// that begin with # are for people.
const columns = 10

// format writes a history as text.
func format(history []porcupine.Operation) []byte {
	var b bytes.Buffer
	version := func(v semel.Version) string {
		if v.IsZero() {
			return "-"
		}
		return v.String()
	}
	nonce := func(n uint64) string {
		if n == 0 {
			return "-"
		}
		return fmt.Sprint(n)
	}
	for _, op := range history {
		in, out := op.Input.(input), op.Output.(output)
		verb, what := "swap", "refused"
		switch {
		case !in.Swap:
			verb, what = "get", "got"
		case out.Unknown:
			what = "unknown"
		case out.Wrote:
			what = "wrote"
		}
		fmt.Fprintln(&b, op.ClientId, in.Key, op.Call, op.Return, verb, version(in.Old), nonce(in.Nonce), what, nonce(out.Held.Nonce), version(out.Held.Version))
	}
	return b.Bytes()
}

// parse reads what format wrote.
func parse(text []byte) (history []porcupine.Operation, err error) {
	for n, line := range strings.Split(string(text), "\n") {
		if line == "" || line[0] == '#' {
			continue
		}
		op, err := parseLine(strings.Fields(line))
		if err != nil {
			return nil, fmt.Errorf("line %d, %q: %w", n+1, line, err)
		}
		history = append(history, op)
	}
	return history, nil
}

func parseLine(f []string) (op porcupine.Operation, err error) {
	if len(f) != columns {
		return op, fmt.Errorf("it has %d columns, want %d", len(f), columns)
	}
	read := func(text, form string, to ...any) {
		if err == nil && text != "-" {
			_, err = fmt.Sscanf(text, form, to...)
		}
	}
	var in input
	var out output
	read(f[0], "%d", &op.ClientId)
	read(f[1], "%d", &in.Key)
	read(f[2], "%d", &op.Call)
	read(f[3], "%d", &op.Return)
	read(f[5], "%d.%d", &in.Old.Epoch, &in.Old.Counter)
	read(f[6], "%d", &in.Nonce)
	read(f[8], "%d", &out.Held.Nonce)
	read(f[9], "%d.%d", &out.Held.Version.Epoch, &out.Held.Version.Counter)
	in.Swap, out.Wrote, out.Unknown = f[4] == "swap", f[7] == "wrote", f[7] == "unknown"
	known := f[4] == "get" && f[7] == "got" || f[4] == "swap" && (out.Wrote || out.Unknown || f[7] == "refused")
	if err == nil && !known {
		err = fmt.Errorf("there is no %s that %s", f[4], f[7])
	}
	op.Input, op.Output = in, out
	return op, err
}

// TestKept judges the histories in testdata again, and reads what it writes.
func TestKept(t *testing.T) {
	for dir, want := range map[string]porcupine.CheckResult{"illegal": porcupine.Illegal, "legal": porcupine.Ok} {
		files, err := filepath.Glob(filepath.Join("testdata", dir, "*.txt"))
		if err != nil || len(files) == 0 {
			t.Errorf("there are no %s histories: %v", dir, err)
		}
		for _, path := range files {
			t.Run(dir+"/"+filepath.Base(path), func(t *testing.T) {
				text, err := os.ReadFile(path)
				if err != nil {
					t.Fatal(err)
				}
				history, err := parse(text)
				if err != nil {
					t.Fatal(err)
				}
				if got := porcupine.CheckOperationsTimeout(model(), history, checkTime); got != want {
					t.Errorf("%d operations: got %s, want %s", len(history), got, want)
				}
				again, err := parse(format(history))
				if err != nil || !reflect.DeepEqual(again, history) {
					t.Errorf("it is another after it was written and read: %v", err)
				}
			})
		}
	}
}

// TestKeep writes the histories of testdata anew, if -keep says so.
func TestKeep(t *testing.T) {
	if !*keep {
		t.Skip("left out: -keep is not set")
	}
	small := size{6, 25, 1}
	for name, flaw := range flaws() {
		for i := uint64(0); ; i++ {
			history := record(t, []semel.Store{newBroken(flaw, i)}, small, false, i)
			if porcupine.CheckOperationsTimeout(model(), history, checkTime) == porcupine.Illegal {
				keepHistory(t, "illegal", name, history)
				break
			}
			if i == 10_000 {
				t.Fatalf("%s: no illegal history", name)
			}
		}
	}
	at := newPlace(t)
	keepHistory(t, "legal", "memory", record(t, []semel.Store{openMemory(t, at)}, small, false, 1))
	keepHistory(t, "legal", "memory, losing every tenth", record(t, []semel.Store{losing(openMemory)(t, at)}, small, false, 1))
}

func keepHistory(t *testing.T, dir, name string, history []porcupine.Operation) {
	t.Helper()
	path := filepath.Join("testdata", dir, strings.NewReplacer(" ", "-", ",", "").Replace(name)+".txt")
	text := append([]byte("# "+name+"\n"), format(history)...)
	if err := os.WriteFile(path, text, 0o644); err != nil {
		t.Fatal(err)
	}
}
