package lifecycle_test

import (
	"testing"
	"time"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/lifecycle"
)

func TestTiers(t *testing.T) {
	for tier := lifecycle.Standard; tier <= lifecycle.Telemetry; tier++ {
		got, err := lifecycle.ParseTier(tier.String())
		if err != nil || got != tier {
			t.Errorf("%v is parsed as %v, %v", tier, got, err)
		}
		replay, remember := tier.Retention()
		p, err := tier.Apply(semel.Policy{}).Filled()
		if err != nil || p.Replay != replay || p.Remember != remember || replay <= 0 || replay > remember {
			t.Errorf("%v gives %v and %v, %v", tier, p.Replay, p.Remember, err)
		}
		for _, d := range []time.Duration{time.Minute, time.Hour, 24 * time.Hour, 100 * 24 * time.Hour} {
			if p, err := tier.Apply(semel.Policy{Replay: d}).Filled(); err != nil || p.Replay != d || p.Remember < remember {
				t.Errorf("%v with replay %v gives %v and %v, %v", tier, d, p.Replay, p.Remember, err)
			}
			if p, err := tier.Apply(semel.Policy{Remember: d}).Filled(); err != nil || p.Remember != d || p.Replay > replay {
				t.Errorf("%v with remember %v gives %v and %v, %v", tier, d, p.Replay, p.Remember, err)
			}
		}
	}
	def, err := semel.Policy{}.Filled()
	if err != nil {
		t.Fatal(err)
	}
	if replay, remember := lifecycle.Standard.Retention(); replay != def.Replay || remember != def.Remember {
		t.Errorf("Standard is %v and %v, and the default policy %v and %v", replay, remember, def.Replay, def.Remember)
	}
	for _, s := range []string{"", "Standard", "gold", "tier(9)"} {
		if _, err := lifecycle.ParseTier(s); err == nil {
			t.Errorf("%q is a tier", s)
		}
	}
}
