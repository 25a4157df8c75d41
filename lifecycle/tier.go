package lifecycle

import (
	"fmt"
	"time"

	"github.com/semelhq/semel"
)

// Tier is a pair of retentions for a kind of work. The zero value is Standard.
type Tier uint8

const (
	// Standard is for an API that people and programs retry within a day: replay
	// 24 h, remember 72 h.
	Standard Tier = iota
	// Financial is for money, which is retried after a weekend and reconciled after
	// a month: replay 7 days, remember 30 days.
	Financial
	// Inventory is for holds that end by themselves within minutes: replay 15 min,
	// remember 1 h.
	Inventory
	// Telemetry is for much that matters little: replay 1 h, remember 24 h.
	Telemetry
)

// String gives the name used in configuration.
func (t Tier) String() string {
	names := [...]string{"standard", "financial", "inventory", "telemetry"}
	if int(t) < len(names) {
		return names[t]
	}
	return fmt.Sprintf("tier(%d)", uint8(t))
}

// ParseTier reads what [Tier.String] wrote.
func ParseTier(s string) (Tier, error) {
	for t := Standard; t <= Telemetry; t++ {
		if t.String() == s {
			return t, nil
		}
	}
	return 0, fmt.Errorf("lifecycle: %q is no tier; there are standard, financial, inventory and telemetry", s)
}

// Retention gives how long a result can be replayed, and how long its key is
// remembered. A tier that is unknown is Standard.
func (t Tier) Retention() (replay, remember time.Duration) {
	const day = 24 * time.Hour
	switch t {
	case Financial:
		return 7 * day, 30 * day
	case Inventory:
		return 15 * time.Minute, time.Hour
	case Telemetry:
		return time.Hour, day
	}
	return day, 3 * day
}

// Apply gives p with the tier's retentions where p has none. What p has is kept:
// the other one then gives way, so that the key is not forgotten before its result.
func (t Tier) Apply(p semel.Policy) semel.Policy {
	replay, remember := t.Retention()
	switch {
	case p.Replay == 0 && p.Remember == 0:
		p.Replay, p.Remember = replay, remember
	case p.Replay == 0:
		p.Replay = min(replay, p.Remember)
	case p.Remember == 0:
		p.Remember = max(remember, p.Replay)
	}
	return p
}
