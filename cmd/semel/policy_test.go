package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/semelhq/semel/cmd/internal/config"
	"github.com/semelhq/semel/internal/server"
	"github.com/semelhq/semel/lifecycle"
)

var update = flag.Bool("update", false, "write the reports in testdata/policy anew")

// policyCheck runs the verb in this process.
func policyCheck(args ...string) (code int, stdout, stderr string) {
	var out, errs bytes.Buffer
	code = run(append([]string{"policy", "check"}, args...), &out, &errs)
	return code, out.String(), errs.String()
}

// TestPolicyCorpus: each file in testdata/policy names in its second line what is to
// be found in it; all that is said of it is in the report beside it.
func TestPolicyCorpus(t *testing.T) {
	files, err := filepath.Glob("testdata/policy/*.yaml")
	if err != nil || len(files) < 30 {
		t.Fatal(files, err)
	}
	for _, path := range files {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".yaml"), func(t *testing.T) {
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			code, stdout, stderr := policyCheck(path, "--offline", "--json")
			var report policyReport
			if err := unmarshalReport(stdout, &report); err != nil {
				t.Fatalf("exit %d: %v\n%s%s", code, err, stdout, stderr)
			}
			want := regexp.MustCompile(`# expect: (.*)`).FindStringSubmatch(string(text))[1]
			if got := foundRules(&report); got != want {
				t.Errorf("found %s, want %s", got, want)
			}
			if refused := strings.Contains(want, "refusal:"); refused != (code == 1) || !refused && code != 0 || stderr != "" {
				t.Errorf("exit %d, and on standard error %q", code, stderr)
			}
			golden(t, strings.TrimSuffix(path, ".yaml")+".json", stdout)
		})
	}
}

// unmarshalReport reads what was printed; levels are words there.
func unmarshalReport(text string, into *policyReport) error {
	decoder := json.NewDecoder(strings.NewReader(text))
	var raw struct {
		Findings []struct{ Level, Rule, Policy, Field, Have, Why string }
		Advice   []struct{ Policy, Field, Have, Safe, Why string }
	}
	if err := decoder.Decode(&raw); err != nil {
		return err
	}
	for _, f := range raw.Findings {
		found := foundJSON{}
		found.Policy, found.Rule, found.Field, found.Have, found.Why = f.Policy, f.Level+":"+f.Rule, f.Field, f.Have, f.Why
		into.Findings = append(into.Findings, found)
		if f.Field == "" || f.Why == "" {
			return fmt.Errorf("a finding says too little: %+v", f)
		}
	}
	for _, a := range raw.Advice {
		if a.Field == "" || a.Safe == "" || !strings.HasSuffix(a.Why, ".") {
			return fmt.Errorf("an advice says too little: %+v", a)
		}
	}
	return nil
}

// foundRules names what was found, each once for all routes.
func foundRules(r *policyReport) string {
	var names []string
	for _, f := range r.Findings {
		if !slices.Contains(names, f.Rule) {
			names = append(names, f.Rule)
		}
	}
	if len(names) == 0 {
		return "nothing"
	}
	return strings.Join(names, " ")
}

// golden compares a report with the one that is kept.
func golden(t *testing.T, path, got string) {
	t.Helper()
	var pretty bytes.Buffer
	if err := json.Indent(&pretty, []byte(got), "", "  "); err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile(path, pretty.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil || pretty.String() != string(want) {
		t.Errorf("%v: got\n%s\nwant\n%s", err, pretty.String(), want)
	}
}

// TestPolicyText: what a person sees fits into 80 columns, has no colours where none
// are wanted, and tells what is the same for several routes once.
func TestPolicyText(t *testing.T) {
	for _, name := range []string{"uuidv7-window", "good-fenced", "lock-24h-kept-5m"} {
		_, stdout, _ := policyCheck("testdata/policy/"+name+".yaml", "--offline")
		for line := range strings.SplitSeq(stdout, "\n") {
			if len(line) > 80 || strings.TrimRight(line, " ") != line || strings.Contains(line, "\x1b") {
				t.Errorf("%s: %q has %d columns", name, line, len(line))
			}
		}
	}
	_, stdout, _ := policyCheck("testdata/policy/good-fenced.yaml", "--offline")
	if n := strings.Count(stdout, "rule fenced-target"); n != 1 || !strings.Contains(stdout, "Safe for POST /v1/payouts, *\n") {
		t.Errorf("%d times:\n%s", n, stdout)
	}
	p, quiet := &policyReport{Findings: []foundJSON{{}}}, new(bytes.Buffer)
	if err := p.print(paper{quiet, true}); err != nil || !strings.Contains(quiet.String(), "\x1b[") {
		t.Errorf("with colours: %v, %q", err, quiet)
	}
}

// TestPolicyUsage: what is wrong with the command line or the file is not a finding.
func TestPolicyUsage(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	good := file("good", "remember: 3d\nstore: sqlite:"+dir+"/none/semel.db\n")
	for _, c := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{}, 2, "accepts 1 arg"},
		{[]string{filepath.Join(dir, "none")}, 2, "no such file"},
		{[]string{good, "--offline", "--store", "memory:"}, 2, "leave one of them away"},
		{[]string{good, "--store", "floppy:a"}, 2, "floppy"},
		{[]string{file("syntax", "lease: [")}, 2, "syntax:1"},
		{[]string{file("values", "assumptions: {pause: -1s}")}, 2, "values:1:22: pause: \"-1s\" is negative"},
		{[]string{file("else", "routes: [{match: x}]"), "--offline"}, 2, "else:1:18"},
		{[]string{file("both", "lease: 1ms\nroutes: [{match: x}]"), "--offline"}, 1, "rule lease-short"},
		{[]string{good}, 0, "a gateway makes it"},
		{[]string{good, "--store", "memory:"}, 0, "rule store-forgets"},
		{[]string{good, "--store", "redis://127.0.0.1:1"}, 0, "rule store-unreachable"},
		{[]string{good, "--store", "postgres://u@127.0.0.1:1/x"}, 0, "rule store-unreachable"},
		{[]string{good, "--store", "mysql://u@127.0.0.1:1/x"}, 0, "rule store-unreachable"},
		{[]string{good, "--store", "etcd://127.0.0.1:1"}, 0, "rule store-unreachable"},
		{[]string{good, "--store", "semel+http://127.0.0.1:1"}, 0, "rule store-unreachable"},
		{[]string{good, "--store", "sqlite:" + file("text", strings.Repeat("no database", 99))}, 1, "rule store-refused"},
	} {
		code, stdout, stderr := policyCheck(c.args...)
		if code != c.code || !strings.Contains(stdout+stderr, c.want) {
			t.Errorf("%v: exit %d, want %d and %q\n%s%s", c.args, code, c.code, c.want, stdout, stderr)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "none")); !errors.Is(err, os.ErrNotExist) {
		t.Error("the check has made a store")
	}
}

// TestPolicyAsksTheStore: an evicting Redis is found by its own settings, and a gateway
// refuses what the check refuses.
func TestPolicyAsksTheStore(t *testing.T) {
	redis := func(settings map[string]string) string {
		s, err := server.StartRedis(t.TempDir(), server.RedisOptions{Settings: settings})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = s.Kill() })
		return s.URL()
	}
	file := filepath.Join(t.TempDir(), "semel.yaml")
	if err := os.WriteFile(file, []byte("upstream: http://127.0.0.1:3000\nassumptions: {partition: 4d}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	code, stdout, _ := policyCheck(file, "--store", redis(map[string]string{"maxmemory-policy": "allkeys-lru"}))
	if code != 1 || !strings.Contains(stdout, "allkeys-lru") || !strings.Contains(stdout, "2 refusals") || !strings.Contains(stdout, "rule store-refused") {
		t.Errorf("exit %d:\n%s", code, stdout)
	}
	code, stdout, _ = policyCheck(file, "--store", redis(map[string]string{"appendonly": "yes", "appendfsync": "everysec"}))
	if code != 1 || !strings.Contains(stdout, "1 refusal, 1 warning") || !strings.Contains(stdout, "rule store-crash") || !strings.Contains(stdout, "rule store-journal") {
		t.Errorf("exit %d:\n%s", code, stdout)
	}
	for _, args := range [][]string{{"--validate"}, {"--listen", "127.0.0.1:0", "--store", "memory:"}} {
		var out, errs bytes.Buffer
		code := run(append([]string{"gateway", "--config", file}, args...), &out, &errs)
		if code != 2 || !strings.Contains(errs.String(), "[retention]") || !strings.Contains(errs.String(), "has to be at least 4d30s") {
			t.Errorf("%v: exit %d\n%s%s", args, code, out.String(), errs.String())
		}
	}
}

// TestJudgeLogs: a gateway that starts tells what the linter warns of, once; the
// store's weaknesses are told where the store is.
func TestJudgeLogs(t *testing.T) {
	file := filepath.Join(t.TempDir(), "semel.yaml")
	text := "upstream: http://127.0.0.1:3000\nassumptions: {client-timeout: 9s, store-traits: [lossy-failover]}\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	settings, err := config.Load(config.Sources{File: file})
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := judge(&settings, lifecycle.StoreFacts{}, slog.New(slog.NewTextHandler(&out, nil))); err != nil {
		t.Fatal(err)
	}
	var told []string
	for _, found := range regexp.MustCompile(`level=(\w+) msg=.*\[([a-z-]+)\]" route=(\S+)`).FindAllStringSubmatch(out.String(), -1) {
		told = append(told, strings.Join(found[1:], " "))
	}
	if want := []string{"WARN wait-cut *", "WARN lease-retries *"}; !slices.Equal(slices.Sorted(slices.Values(told)), slices.Sorted(slices.Values(want))) {
		t.Errorf("got %q\n%s", told, out.String())
	}
}

// TestPolicyAsksDatabases: what a server is set to decides what is found, the same
// file and the same policy.
func TestPolicyAsksDatabases(t *testing.T) {
	file := filepath.Join(t.TempDir(), "semel.yaml")
	if err := os.WriteFile(file, []byte("require: true\nremember: 30d\nassumptions: {effect: money, client-horizon: 7d, reconciliation: 24h}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	check := func(url, want string) {
		t.Helper()
		code, stdout, stderr := policyCheck(file, "--store", url, "--json")
		var report policyReport
		if err := unmarshalReport(stdout, &report); err != nil {
			t.Fatalf("%v\n%s%s", err, stdout, stderr)
		}
		if got := foundRules(&report); got != want || (code == 1) != strings.Contains(want, "refusal") {
			t.Errorf("exit %d: found %s, want %s\n%s", code, got, want, stdout)
		}
	}
	maria, err := server.StartMariaDB(t.TempDir(), server.MariaDBOptions{Settings: map[string]string{"innodb_flush_log_at_trx_commit": "2"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = maria.Kill() })
	check(maria.URL("mysql"), "refusal:store-crash warning:replay-retries")
	postgres, err := server.StartPostgres(t.TempDir(), server.PostgresOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = postgres.Kill() })
	check(postgres.URL("postgres"), "warning:replay-retries")
	standby, err := postgres.Standby(t.TempDir(), false)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = standby.Kill() })
	check(postgres.URL("postgres"), "refusal:store-failover warning:replay-retries")
	check(standby.URL("postgres"), "refusal:store-refused warning:replay-retries")
}
