package main

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
)

// simulate runs the verb by itself.
func simulate(args ...string) (out, errOut string, err error) {
	var o, e bytes.Buffer
	c := simCommand()
	c.SilenceErrors, c.SilenceUsage = true, true
	c.SetArgs(args)
	c.SetOut(&o)
	c.SetErr(&e)
	err = c.Execute()
	return o.String(), e.String(), err
}

func TestSimTellsTheSameTwice(t *testing.T) {
	var reports [2]simReport
	for i := range reports {
		out, errOut, err := simulate("--seeds", "40", "--seed", "9", "--json")
		if err != nil || errOut != "" {
			t.Fatalf("got %v, standard error %q", err, errOut)
		}
		if err := json.Unmarshal([]byte(out), &reports[i]); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	r := reports[0]
	if r.Seeds != 40 || r.Seed != 9 || r.Violations != 0 || r.Operations == 0 || r.Faults["crash"] == 0 || len(r.Hash) != 16 {
		t.Errorf("got %+v", r)
	}
	if r.Hash != reports[1].Hash {
		t.Errorf("hash %s, then %s", r.Hash, reports[1].Hash)
	}
}

// A violation ends with exit code 1 and a line that shows it again.
func TestSimViolation(t *testing.T) {
	out, _, err := simulate("--seeds", "200", "--mutant", "completion-not-fenced")
	if err != errTold {
		t.Fatalf("got %v, want the error that has been told", err)
	}
	_, line, found := strings.Cut(out, "replay: semel sim ")
	if !found {
		t.Fatalf("no line to replay in:\n%s", out)
	}
	line, _, _ = strings.Cut(line, "   ")
	out, _, err = simulate(append(strings.Fields(line), "--trace")...)
	if err != errTold || !strings.Contains(out, "store: version") || !strings.Contains(out, "semel sim "+line) {
		t.Errorf("%s: got %v\n%s", line, err, out)
	}
}

func TestSimMutants(t *testing.T) {
	out, _, err := simulate("--mutants", "--json")
	var r simReport
	if jsonErr := json.Unmarshal([]byte(out), &r); err != nil || jsonErr != nil {
		t.Fatalf("got %v, %v", err, jsonErr)
	}
	for _, m := range r.Mutants {
		if m.Name == "" || m.KilledAfter < 1 || m.Invariant == "" {
			t.Errorf("got %+v", m)
		}
	}
}

func TestSimUsage(t *testing.T) {
	for _, args := range [][]string{
		{"--seeds", "0"},
		{"--seeds", "-4"},
		{"--trace"},
		{"--trace", "--seeds", "1", "--json"},
		{"--mutant", "nobody"},
		{"--mutant", "evicts", "--mutants"},
		{"more"},
	} {
		out, _, err := simulate(args...)
		if _, usage := err.(usageError); !usage || out != "" {
			t.Errorf("%v: got %v and %q, want an error of usage", args, err, out)
		}
	}
}
