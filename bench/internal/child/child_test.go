package child

import "testing"

func TestTicks(t *testing.T) {
	const stat = "4242 (a (odd) name) S 1 4242 4242 0 -1 4194304 100 0 0 0 31 11 0 0 20 0 7 0 100 0 0"
	if user, system, err := ticks(stat); user != 31 || system != 11 || err != nil {
		t.Errorf("ticks of %q: got %d, %d, %v; want 31, 11", stat, user, system, err)
	}
	if _, _, err := ticks("1 (x) S 2"); err == nil {
		t.Error("a short line gave no error")
	}
}
