package sim

import (
	"errors"
	"slices"
	"time"

	"github.com/semelhq/semel"
)

// planted is a bug put around the machine, into the store or into the driver on
// purpose, to see whether the checks notice. The zero value is no bug.
type planted struct {
	digest          func(semel.Key) semel.Digest
	move            func(a *attempt, m semel.Move) semel.Move
	reply           func(a *attempt, c *call, r semel.Reading, err error) (semel.Reading, error)
	ending          func(a *attempt, e ending) ending
	told            func(a *attempt, ans answer) answer
	swap            func(held *semel.Record, old *semel.Version, next *semel.Record)
	sweeps          func(r *semel.Record, now time.Time) bool
	strands         func(a *attempt) bool
	settlesAnything func(r *semel.Record) bool

	losesTail, countsPerRecord, keepsEpoch, clockNotLearned bool
	sharesFlights, startsEarly, failsOpen, sleepsForever    bool
	neverRenews, neverCancels, tellsEarly, triesOnce        bool
	followsClient, sendsTwice                               bool
}

// Mutant is a planted bug: one that others shipped, or one that a change of
// Semel could bring. Each must be found by the checks.
type Mutant struct {
	Name string
	// Bug says what goes wrong, and which line of the list of field bugs it is.
	Bug string
	// Breaks are the invariants of which one is expected to notice.
	Breaks []string

	planted planted
}

// Mutants gives all planted bugs, in the order of reports.
func Mutants() []Mutant {
	return slices.Concat(storeMutants(), fenceMutants(), replyMutants(), moveMutants(), handlerMutants(), driverMutants(), answerMutants())
}

// storeMutants are stores that forget, or that name versions twice.
func storeMutants() []Mutant {
	return []Mutant{
		{"version-restarts", "a deleted record's versions begin anew (32)", []string{"S2"}, planted{countsPerRecord: true}},
		{"epoch-kept", "the counter goes back after a failover, under the same epoch (29)", []string{"S2"}, planted{keepsEpoch: true}},
		{"tail-lost", "a failover loses the last acknowledged writes (28, 29, 35)", []string{"LOST", "S1", "S2", "S3", "S5", "S8", "SILENT", "SWALLOWED"}, planted{losesTail: true}},
		{"sweeps-pending", "the sweeper deletes what is pending past its lease (12)", []string{"X4"}, planted{sweeps: func(r *semel.Record, now time.Time) bool {
			return r.State == semel.Pending && !now.Before(r.Expires())
		}}},
		{"evicts", "finished records are evicted before their time (9, 34)", []string{"X4"}, planted{sweeps: func(r *semel.Record, now time.Time) bool {
			return r.State == semel.Done
		}}},
		{"result-cut", "the store keeps the first 22 bytes of a result (18, 25)", []string{"FLIP", "LEAK"}, planted{swap: func(_ *semel.Record, _ *semel.Version, next *semel.Record) {
			next.Result = next.Result[:min(len(next.Result), 22)]
		}}},
		{"scope-ignored", "keys of two tenants are one record (16, 22, 23)", []string{"LEAK", "S1", "S3", "S8", "SWALLOWED"}, planted{digest: func(k semel.Key) semel.Digest {
			return semel.Key{ID: k.ID}.Digest(nil)
		}}},
		{"key-cut", "the column is too short for the key (25)", []string{"LEAK", "S1", "S3", "S5", "S8", "SWALLOWED"}, planted{digest: func(k semel.Key) semel.Digest {
			return semel.Key{Scope: k.Scope, ID: k.ID[:2]}.Digest(nil)
		}}},
	}
}

// fenceMutants are stores that do not compare where they should.
func fenceMutants() []Mutant {
	return []Mutant{
		{"swap-is-write", "the old version is not compared at all (6)", []string{"S1", "S3", "S4"}, planted{swap: func(held *semel.Record, old *semel.Version, _ *semel.Record) {
			*old = held.Version
		}}},
		{"insert-overwrites", "an insert goes over what is held (20, 26)", []string{"S1", "S3", "S4"}, planted{swap: func(held *semel.Record, old *semel.Version, _ *semel.Record) {
			if old.IsZero() {
				*old = held.Version
			}
		}}},
		{"completion-not-fenced", "a completion goes by the key alone (4)", []string{"S3", "S4"}, planted{swap: func(held *semel.Record, old *semel.Version, next *semel.Record) {
			if next.State == semel.Done {
				*old = held.Version
			}
		}}},
		{"release-not-fenced", "a stale holder releases its successor's claim (6)", []string{"S3", "S4"}, planted{swap: func(held *semel.Record, old *semel.Version, next *semel.Record) {
			if next.State == semel.Released {
				*old = held.Version
			}
		}}},
		{"renewal-not-fenced", "a renewal prolongs whatever is pending", []string{"S3", "S1"}, planted{swap: func(held *semel.Record, old *semel.Version, next *semel.Record) {
			if held.State == semel.Pending && next.State == semel.Pending && !old.IsZero() {
				*old = held.Version
			}
		}}},
		{"done-overwritten", "only pending records are fenced", []string{"S3", "S4"}, planted{swap: func(held *semel.Record, old *semel.Version, next *semel.Record) {
			if held.State == semel.Done {
				*old = held.Version
			}
		}}},
	}
}

// replyMutants misjudge what the store answered.
func replyMutants() []Mutant {
	held := func(change func(a *attempt, r *semel.Reading)) planted {
		return planted{reply: func(a *attempt, _ *call, r semel.Reading, err error) (semel.Reading, error) {
			if a.stage == asking && r.Record.Held() && (err == nil || errors.Is(err, semel.ErrConflict)) && r.Record.Nonce != a.last {
				change(a, &r)
			}
			return r, err
		}}
	}
	state := func(when func(a *attempt, r *semel.Reading) bool) planted {
		return held(func(a *attempt, r *semel.Reading) {
			if when(a, r) {
				r.Record.State = semel.Released
			}
		})
	}
	return []Mutant{
		{"takes-over-everything", "a lease that ended is taken over under at-most-once (4)", []string{"S5"}, held(func(_ *attempt, r *semel.Reading) {
			r.Record.Class = semel.AtLeastOnce
		})},
		{"own-clock", "leases are judged by the process' clock (38)", []string{"S1", "S5", "X5", "L1"}, held(func(a *attempt, r *semel.Reading) {
			r.Now = a.p.clock()
		})},
		{"waiter-runs", "a waiter takes the key without looking again (10)", []string{"S1", "S5"}, state(func(a *attempt, r *semel.Reading) bool {
			return a.waiting() && r.Record.State == semel.Pending
		})},
		{"payload-ignored", "another payload is answered from the record (17)", []string{"S8"}, held(func(a *attempt, r *semel.Reading) {
			r.Record.Fingerprint = fingerprint(a.payload)
		})},
		{"payload-ignored-in-flight", "another payload waits for the first (17)", []string{"S8"}, held(func(a *attempt, r *semel.Reading) {
			if r.Record.State == semel.Pending {
				r.Record.Fingerprint = fingerprint(a.payload)
			}
		})},
		{"expired-runs-again", "a result that is no longer kept is a new key (9)", []string{"S4"}, state(func(_ *attempt, r *semel.Reading) bool {
			return r.Record.State == semel.Done && !r.Now.Before(r.Record.WrittenAt.Add(r.Record.Replay))
		})},
		{"failure-runs-again", "a stored 500 is a new key (19)", []string{"S4"}, state(func(_ *attempt, r *semel.Reading) bool {
			return r.Record.State == semel.Done && r.Record.Code >= 500
		})},
		{"in-progress-cached", "a local cache tells of a lease for ever (21)", []string{"L1"}, held(func(a *attempt, r *semel.Reading) {
			if a.p.cached == nil {
				a.p.cached = map[int]semel.Reading{}
			}
			if c, ok := a.p.cached[a.key.slot]; ok {
				*r = c
			} else if r.Record.State == semel.Pending {
				a.p.cached[a.key.slot] = *r
			}
		})},
	}
}

// moveMutants mistake errors and lost answers, or change what the machine asked for.
func moveMutants() []Mutant {
	mine := func(change func(r *semel.Reading)) planted {
		return planted{reply: func(a *attempt, _ *call, r semel.Reading, err error) (semel.Reading, error) {
			if errors.Is(err, semel.ErrConflict) && r.Record.Nonce == a.last {
				change(&r)
			}
			return r, err
		}}
	}
	believed := func(s stage) planted {
		return planted{reply: func(a *attempt, c *call, r semel.Reading, err error) (semel.Reading, error) {
			if err != nil && r.Now.IsZero() && a.stage == s && !c.read {
				next := c.swap.Next
				next.Version, next.WrittenAt = semel.Version{Epoch: c.swap.Old.Epoch, Counter: c.swap.Old.Counter + 1}, a.p.clock()
				return semel.Reading{Record: next}, nil
			}
			return r, err
		}}
	}
	swaps := func(change func(a *attempt, w *semel.Swap)) planted {
		return planted{move: func(a *attempt, m semel.Move) semel.Move {
			if m.Do == semel.SwapRecord {
				change(a, &m.Swap)
			}
			return m
		}}
	}
	return []Mutant{
		{"own-claim-is-a-duplicate", "after a lost answer the own claim counts as done (8)", []string{"SWALLOWED", "L1"}, mine(func(r *semel.Reading) {
			r.Record.State, r.Record.Nonce, r.Record.Replay = semel.Done, semel.Nonce{}, time.Hour
		})},
		{"nonce-forgotten", "after a lost answer the own claim is another's (8)", []string{"L1", "S5"}, mine(func(r *semel.Reading) { r.Record.Nonce = semel.Nonce{} })},
		{"fresh-nonce", "each try has a nonce of its own", []string{"L1"}, swaps(func(a *attempt, w *semel.Swap) { w.Next.Nonce = a.w.nonce() })},
		{"completion-believed", "an error of the completion is taken for success (3, 28)", []string{"SILENT"}, believed(finishing)},
		{"renewal-believed", "an error of a renewal is taken for success", []string{"S1", "LOST"}, believed(renewing)},
		{"claim-believed", "an error of a claim is taken for success (11)", []string{"S1", "S11", "S12"}, believed(asking)},
		{"attempts-from-one", "a run after another is counted as the first", []string{"S5"}, swaps(func(_ *attempt, w *semel.Swap) { w.Next.Attempt = 1 })},
		{"one-lifetime", "the record lives as long as the lease (12)", []string{"X1"}, swaps(func(a *attempt, w *semel.Swap) {
			if w.Next.State != semel.Pending {
				w.Next.TTL = min(a.key.policy.Lease, a.key.policy.Remember)
			}
		})},
		{"timed-key-forgotten", "a key is forgotten while its own time still admits it", []string{"X1"}, swaps(func(a *attempt, w *semel.Swap) {
			if w.Next.State != semel.Pending {
				w.Next.TTL = a.key.policy.Remember
			}
		})},
	}
}

// handlerMutants make the wrong thing of a handler's return.
func handlerMutants() []Mutant {
	releases := func(when func(a *attempt, e ending) bool) planted {
		return planted{ending: func(a *attempt, e ending) ending {
			if when(a, e) {
				e.state = semel.Released
			}
			return e
		}}
	}
	return []Mutant{
		{"panic-releases", "a panic frees the key although the effect may have happened (5, 13)", []string{"S10"}, releases(func(a *attempt, _ ending) bool {
			return a.handler.plan == panics
		})},
		{"doubt-releases", "an unknown outcome frees the key (5)", []string{"S10"}, releases(func(_ *attempt, e ending) bool { return e.state == semel.Pending })},
		{"large-result-releases", "a result too large to keep frees the key (2)", []string{"S10"}, releases(func(a *attempt, e ending) bool {
			return len(e.data) > a.key.policy.MaxResult
		})},
		{"unknown-completion-releases", "a completion that erred is followed by a release (3)", []string{"S10", "S13"}, planted{
			reply: func(a *attempt, _ *call, r semel.Reading, err error) (semel.Reading, error) {
				a.muddled = a.stage == finishing && err != nil && r.Now.IsZero()
				return r, err
			},
			move: func(a *attempt, m semel.Move) semel.Move {
				if a.muddled && m.Do == semel.SwapRecord && a.stage == finishing {
					m.Swap.Next.State = semel.Released
				}
				return m
			},
		}},
		{"panic-strands", "after a panic the claim is renewed and never ended (13)", []string{"STUCK"}, planted{strands: func(a *attempt) bool {
			return a.handler.plan == panics
		}}},
		{"takes-back-anything", "a claim that was given up takes back another's (6)", []string{"S3"}, planted{
			reply: func(a *attempt, c *call, r semel.Reading, err error) (semel.Reading, error) {
				if a.stage == disowning && c.read {
					r.Record.Nonce = a.last
				}
				return r, err
			},
		}},
		{"late-claim-left", "a claim that came late and was given up is left in the store", []string{"L1"}, planted{
			reply: func(a *attempt, c *call, r semel.Reading, err error) (semel.Reading, error) {
				if a.stage == disowning && c.read && r.Record.Version == a.machine.Record().Version {
					r.Record = semel.Record{}
				}
				return r, err
			},
		}},
		{"operator-does-not-look", "an operator settles what is not in doubt", []string{"S3"}, planted{settlesAnything: func(r *semel.Record) bool {
			return r.State == semel.Pending
		}}},
	}
}

// driverMutants leave something of the driver out, or do it too soon.
func driverMutants() []Mutant {
	return []Mutant{
		{"never-renews", "leases are not renewed (4)", []string{"S1"}, planted{neverRenews: true}},
		{"never-cancels", "the handler is not cancelled before its lease can end (4)", []string{"S1"}, planted{neverCancels: true}},
		{"starts-early", "the handler starts before its claim is durable", []string{"S11"}, planted{startsEarly: true}},
		{"fails-open", "without a store the handler runs anyway (11)", []string{"S11", "S12", "S1"}, planted{failsOpen: true}},
		{"late-grant-runs", "a grant that came after its lease is used", []string{"S1", "LOST"}, planted{move: func(a *attempt, m semel.Move) semel.Move {
			if held := a.machine.Record().Version; a.stage == asking && m.Do == semel.SwapRecord && !held.IsZero() && m.Swap.Old == held {
				return semel.Move{Do: semel.Run, Until: a.p.clock().Add(a.key.policy.Lease / 3)}
			}
			return m
		}}},
		{"waits-for-ever", "a waiter is never woken (14)", []string{"STUCK"}, planted{sleepsForever: true}},
		{"flights-mix-payloads", "duplicates of one process share whatever the payload (17)", []string{"S8"}, planted{sharesFlights: true}},
		{"tries-once", "a completion is tried once (3)", []string{"LOST"}, planted{triesOnce: true}},
		{"follows-client", "the result is not stored once the client has left (1)", []string{"LOST"}, planted{followsClient: true}},
		{"transport-resends", "the transport sends the request to the upstream once more (7)", []string{"DOUBLE"}, planted{sendsTwice: true}},
		{"clock-not-learned", "a new process takes its own clock for the store's (38)", []string{"X1", "X5"}, planted{clockNotLearned: true}},
		{"answers-crossed", "a batch hands out its answers in the wrong order", []string{"S1", "S3", "S11", "SILENT", "SWALLOWED", "LEAK", "L1"}, planted{
			reply: func(a *attempt, c *call, r semel.Reading, err error) (semel.Reading, error) {
				if c.read || err != nil {
					return r, err
				}
				r, a.p.previous = a.p.previous, r
				if !r.Record.Held() {
					r = a.p.previous
				}
				return r, nil
			},
		}},
	}
}

// answerMutants tell clients something else than what is known.
func answerMutants() []Mutant {
	tells := func(k kind, change func(a *attempt, ans *answer)) planted {
		return planted{told: func(a *attempt, ans answer) answer {
			if ans.kind == k {
				change(a, &ans)
			}
			return ans
		}}
	}
	return []Mutant{
		{"tells-early", "a success is told before it is stored (3)", []string{"SILENT"}, planted{tellsEarly: true}},
		{"doubt-is-failure", "an unknown outcome is told as a failure", []string{"SILENT"}, tells(unknown, func(_ *attempt, ans *answer) {
			ans.kind, ans.code = notStored, 503
		})},
		{"doubt-is-success", "an unknown outcome is told as a success", []string{"SILENT", "SWALLOWED"}, tells(unknown, func(_ *attempt, ans *answer) {
			ans.kind, ans.code = stored, 201
		})},
		{"replayed-as-200", "a replay has another status than the first answer (18)", []string{"FLIP"}, tells(stored, func(_ *attempt, ans *answer) {
			if !ans.own {
				ans.code = 200
			}
		})},
		{"mismatch-discloses", "another payload is told the stored answer in its refusal (16)", []string{"S8"}, tells(mismatch, func(a *attempt, ans *answer) {
			ans.code, ans.data = a.ghost.seen.Record.Code, a.ghost.seen.Record.Result
		})},
		{"replays-last-answer", "a replay gives the last answer that was given (16)", []string{"FLIP", "LEAK"}, tells(stored, func(a *attempt, ans *answer) {
			last := a.p.previous.Record.Result
			a.p.previous.Record.Result = ans.data
			if last != nil && ans.data != nil {
				ans.data = last
			}
		})},
	}
}
