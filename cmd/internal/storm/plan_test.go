package storm

import (
	"reflect"
	"testing"
	"time"
)

func TestPlan(t *testing.T) {
	one, again, other := Plan(1, 200, 10*time.Second), Plan(1, 200, 10*time.Second), Plan(2, 200, 10*time.Second)
	if !reflect.DeepEqual(one, again) {
		t.Error("the same seed gave another plan")
	}
	if reflect.DeepEqual(one, other) {
		t.Error("another seed gave the same plan")
	}
	type operation struct {
		key    string
		amount int
	}
	twins, changed := map[operation]int{}, 0
	for _, p := range one {
		twins[operation{p.Key, p.Amount}]++
		for _, c := range p.Copies {
			if c.Amount != p.Amount {
				changed++
			}
		}
		if len(p.Copies) < 5 || p.At > 10*time.Second {
			t.Errorf("%+v: too few copies, or too late", p)
		}
	}
	if len(twins) != 100 {
		t.Errorf("%d keys with one body, want 100 that both accounts use", len(twins))
	}
	if changed < 15 || changed > 60 {
		t.Errorf("%d keys are used for another body, want about a sixth of 200", changed)
	}
}
