package sim

// Fault is one kind of what can go wrong, or of what careless people do.
type Fault int

// The kinds of faults. Each is switched off in some seeds and frequent in
// others, so that rare combinations come up as well as the common mixture.
const (
	RequestLost       Fault = iota // a request never reaches the store
	AnswerLost                     // the store did it, and its answer never comes
	RequestDuplicated              // the same request is carried out again later
	RequestDelayed                 // a request is under way for up to 4 s
	AnswerDelayed                  // an answer is under way for up to 4 s
	Reordered                      // a request overtook an earlier one for the same key
	Partition                      // one process cannot reach the store for a while
	Outage                         // the store answers errors and does nothing
	ErrorAfterWrite                // the store did it and answered an error
	Failover                       // another node of the store takes over: new epoch, other clock
	Sweep                          // a sweep that deleted expired records
	DamagedRecord                  // a record cannot be read for a while
	RejectedResult                 // the store refuses a record with its result
	Crash                          // a process ends with everything in it
	Restart                        // it comes back, with an empty memory
	Pause                          // a process stands still beyond its leases, then gets everything late
	Hiccup                         // a process stands still for less than a lease
	WrongClock                     // a process whose clock is off by up to two hours
	DriftingClock                  // a process whose clock runs up to 5 % fast or slow
	ClientGone                     // a client leaves before its answer
	AnswerNotSeen                  // a client's answer is lost on its way
	Herd                           // many clients ask for the same at the same moment
	ChangedPayload                 // a key is used again with another fingerprint
	ForeignKey                     // another tenant uses an equal key
	SlowHandler                    // a handler runs longer than its lease
	DeafHandler                    // a handler goes on after its context was cancelled
	Panicked                       // a handler panics, before or after its effect
	NothingDone                    // a handler says that nothing happened
	DialError                      // the upstream could not be reached, so nothing happened
	OutcomeUnknown                 // a handler cannot say whether it had its effect
	Oversized                      // a result is larger than what is kept
	StrayFull                      // no room to tidy up behind a request
	SettledDone                    // an operator settles a key in doubt as done
	SettledNotDone                 // an operator settles a key in doubt as not done
	TimedKey                       // a key that carries its own time, by a client's clock
	LateRetry                      // a retry after the key was forgotten
	RefusedForNow                  // the store takes no new key at the moment
	faultCount
)

// String gives the kind's name in reports.
func (f Fault) String() string {
	names := [...]string{
		"request-lost", "answer-lost", "request-duplicated", "request-delayed", "answer-delayed", "reordered", "partition",
		"outage", "error-after-write", "failover", "sweep", "damaged-record", "rejected-result", "crash", "restart", "pause",
		"hiccup", "wrong-clock", "drifting-clock", "client-gone", "answer-not-seen", "herd", "changed-payload", "foreign-key",
		"slow-handler", "deaf-handler", "panic", "nothing-done", "dial-error", "outcome-unknown", "oversized-result",
		"stray-full", "settled-done", "settled-not-done", "timed-key", "late-retry", "refused-for-now",
	}
	if f >= 0 && int(f) < len(names) {
		return names[f]
	}
	return "unknown"
}

// Faults gives all kinds, in the order of reports.
func Faults() []Fault {
	all := make([]Fault, faultCount)
	for i := range all {
		all[i] = Fault(i)
	}
	return all
}

// usual is how often a fault fires when there is an opportunity, in ten
// thousand. Faults that are not in it are timed, or follow from others.
var usual = [faultCount]int64{
	RequestLost: 400, AnswerLost: 400, RequestDuplicated: 300, RequestDelayed: 200, AnswerDelayed: 200,
	Partition: 1, Outage: 1, ErrorAfterWrite: 150, Failover: 1, Sweep: 1, DamagedRecord: 1, RejectedResult: 800,
	Crash: 1, Pause: 1, Hiccup: 1, WrongClock: 4000, DriftingClock: 5000, ClientGone: 1200, AnswerNotSeen: 1000, Herd: 1500,
	ChangedPayload: 1500, ForeignKey: 3000, SlowHandler: 1500, DeafHandler: 3000, Panicked: 800, NothingDone: 800,
	DialError: 800, OutcomeUnknown: 800, Oversized: 800, StrayFull: 1000, SettledDone: 1, TimedKey: 2500, LateRetry: 3000,
	RefusedForNow: 100,
}

// weather is how often each fault fires in one world.
type weather [faultCount]int64

// newWeather draws, for each kind, one of: never, seldom, usual, often.
func newWeather(d dice) weather {
	var w weather
	for f, rate := range usual {
		switch d.below(8) {
		case 0, 1:
		case 2, 3:
			w[f] = max(rate/4, min(rate, 1))
		case 4, 5, 6:
			w[f] = rate
		default:
			w[f] = min(3*rate, 6000)
		}
	}
	return w
}

// strikes tells whether a fault fires now, and counts it if so. Once the world
// is healed nothing does.
func (w *world) strikes(f Fault) bool {
	if w.healed || w.weather[f] == 0 || w.dice.below(10_000) >= w.weather[f] {
		return false
	}
	w.faults[f]++
	return true
}

// Path is a way through the machine that faults are there to open. If seeds
// stopped reaching one, the checks along it would pass in vain.
type Path int

// The paths that are counted.
const (
	Granted          Path = iota // a claim was granted
	TakenOver                    // over a lease that had ended
	TakenAgain                   // over the own claim, whose answer came too late
	Renewals                     // a lease was prolonged
	LeasesLost                   // a renewal failed or was never answered
	OverOwnRenewal               // a completion over a renewal whose answer never came
	Lingering                    // storing went on behind a client that was told "unknown"
	SettledByOther               // a completion found another's answer and gave it
	TakenBack                    // a claim that landed after its request had been given up
	SharedFailure                // a failure that is not stored, told to those who waited
	Replays                      // a stored answer, told to a duplicate
	Refinements                  // an answer after "unknown" had been told
	DoubtTold                    // "unknown", told to a duplicate
	MismatchInFlight             // another payload, refused while the first was running
	RefusedEffects               // a target refused an old token
	pathCount
)

// String gives the path's name.
func (p Path) String() string {
	names := [...]string{
		"granted", "taken-over", "taken-again", "renewed", "lease-lost", "over-own-renewal", "lingering", "settled-by-other",
		"taken-back", "shared-failure", "replayed", "refined", "doubt-told", "mismatch-in-flight", "effect-refused",
	}
	if p >= 0 && int(p) < len(names) {
		return names[p]
	}
	return "unknown"
}

// Paths gives all paths, in the order of reports.
func Paths() []Path {
	all := make([]Path, pathCount)
	for i := range all {
		all[i] = Path(i)
	}
	return all
}
