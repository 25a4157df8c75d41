package payments

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

const example = "github.com/semelhq/semel/cmd/examples/payments"

// A change replaces one place of the example's source.
type change struct {
	file string
	old  string // found exactly once
	new  string
}

// points gives the places where a shop can be told to die.
func points() map[string]change {
	before := func(file, anchor, name string) change {
		return change{file, anchor, "failpoint(\"" + name + "\")\n" + anchor}
	}
	after := func(file, anchor, name string) change {
		return change{file, anchor, anchor + "\nfailpoint(\"" + name + "\")\n"}
	}
	all := map[string]change{}
	for name, c := range map[string]change{
		"order-begun":       before("orders.go", "	tx, _ := postgres.TxFrom(r.Context())", ""),
		"order-written":     before("orders.go", "	send(w, answer(http.StatusCreated", ""),
		"payment-claimed":   before("payments.go", "	var amount int64", ""),
		"charge-to-be-sent": before("payments.go", "		return s.provider.charge(", ""),
		"charge-answered":   before("provider.go", "	if err == nil && status != http.StatusCreated {", ""),
		"step-recorded":     before("payments.go", "	answered, err := s.settle(ctx, step.Data)", ""),
		"ledger-begun":      before("payments.go", "		if _, err := tx.Exec(ctx, `UPDATE orders", ""),
		"ledger-written":    before("payments.go", "		return semel.Result{Code: http.StatusCreated}, err", ""),
		"ledger-committed":  before("payments.go", "	return answer(http.StatusCreated, c), err", ""),
		"payment-answered":  after("payments.go", "	send(w, answered)", ""),
		"resolver-called":   before("payments.go", "	said, err := s.provider.find(ctx", ""),
		"resolver-settled":  before("payments.go", "	result, err := answered.Result()", ""),
		"result-stored":     {"main.go", "	return serve(ctx, s.listen, mux, completer)", "	return serve(ctx, s.listen, dieBeforeTheAnswer(mux), completer)"},
	} {
		c.new = strings.Replace(c.new, `failpoint("")`, `failpoint("`+name+`")`, 1)
		all[name] = c
	}
	return all
}

// names gives the points in an order that is always the same.
func names() []string { return slices.Sorted(maps.Keys(points())) }

// failpoints is the file that is added to the example.
const failpoints = `package main

import (
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

var passed atomic.Int64

// failpoint ends the process as kill -9 does, if it is told to die here: at the
// n-th time that it comes by.
func failpoint(name string) {
	where, times, _ := strings.Cut(os.Getenv("PAYMENTS_DIE_AT"), ":")
	n, _ := strconv.ParseInt(times, 10, 64)
	if name != where || passed.Add(1) != n {
		return
	}
	_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	time.Sleep(time.Hour)
}

func dieBeforeTheAnswer(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { next.ServeHTTP(dying{w}, r) })
}

type dying struct{ http.ResponseWriter }

func (d dying) WriteHeader(status int) {
	if status == http.StatusCreated {
		failpoint("result-stored")
	}
	d.ResponseWriter.WriteHeader(status)
}
`

// build compiles the shop with the points in it and further changes.
func build(t *testing.T, name string, changes ...change) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "go", "list", "-f", "{{.Dir}}", example).Output()
	if err != nil {
		t.Fatal(err)
	}
	source, dir := strings.TrimSpace(string(out)), t.TempDir()
	texts := map[string]string{"failpoints.go": failpoints}
	for _, point := range names() {
		changes = append(changes, points()[point])
	}
	for _, c := range changes {
		if texts[c.file] == "" {
			text, err := os.ReadFile(filepath.Join(source, c.file))
			if err != nil {
				t.Fatal(err)
			}
			texts[c.file] = string(text)
		}
		if n := strings.Count(texts[c.file], c.old); n != 1 {
			t.Fatalf("%s has %q %d times, want once: the example has changed, and this test has to follow", c.file, c.old, n)
		}
		texts[c.file] = strings.Replace(texts[c.file], c.old, c.new, 1)
	}
	overlay := map[string]map[string]string{"Replace": {}}
	for file, text := range texts {
		path := filepath.Join(dir, file)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		overlay["Replace"][filepath.Join(source, file)] = path
	}
	text, err := json.Marshal(overlay)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "overlay.json"), text, 0o600); err != nil {
		t.Fatal(err)
	}
	binary, err := compile(name, example, "-overlay", filepath.Join(dir, "overlay.json"))
	if err != nil {
		t.Fatal(err)
	}
	return binary
}

// provider builds the provider, once.
var provider = sync.OnceValues(func() (string, error) { return compile("provider", example+"/provider") })

func compile(name, pkg string, flags ...string) (string, error) {
	binary := filepath.Join(scratch, name+".exe") // the suffix harms nobody
	arguments := slices.Concat([]string{"build", "-o", binary}, flags, []string{pkg})
	if out, err := exec.Command("go", arguments...).CombinedOutput(); err != nil {
		return "", fmt.Errorf("building %s: %w\n%s", name, err, out)
	}
	return binary, nil
}
