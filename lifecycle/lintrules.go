package lifecycle

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/semelhq/semel"
)

// spanned writes a length of time down.
func spanned(d time.Duration) string { return Span(d).String() }

func set(field string, d time.Duration) string { return fmt.Sprintf("Set %s: %v.", field, Span(d)) }

// numbers are what semel.Policy.Filled refuses, and assumptions that cannot be.
func (l *linter) numbers() {
	v, p, safe := l.view, &l.view.p, &l.view.safe
	if p.Lease < shortestLease {
		l.add(Refusal, "lease-short", "lease", spanned(p.Lease), "at least 50ms", "A claim is renewed every third of its lease: this one would be lost before the store has answered.", set("lease", safe.Lease))
	}
	if p.Replay < 0 {
		l.add(Refusal, "replay-negative", "replay", spanned(p.Replay), "0 or more", "A time in the past is none.", "Take replay away, or set it to how long an answer is to be had again.")
	}
	if p.Remember < p.Replay {
		l.add(Refusal, "remember-below-replay", "remember", spanned(p.Remember), "at least "+spanned(p.Replay), "The key would be forgotten before its answer, and the next copy would run again.",
			set("remember", safe.Remember))
	}
	if p.Remember < p.Lease {
		l.add(Refusal, "remember-below-lease", "remember", spanned(p.Remember), "at least "+spanned(p.Lease),
			fmt.Sprintf("The key is locked for %v and remembered for %v: a copy that comes after a long run would run again.", Span(p.Lease), Span(p.Remember)), set("remember", safe.Remember)+" Or make the lease shorter.")
	}
	if v.wrong != nil {
		for text := range strings.SplitSeq(v.wrong.Error(), "\n") {
			text = strings.TrimPrefix(text, fmt.Sprintf("semel: policy %q: ", p.Name))
			field, _, _ := strings.Cut(text, " ")
			if field != "a" && field != "replay" && field != "remember" { // else told above
				l.add(Refusal, "policy", strings.Trim(field, ":"), "", "", text, "")
			}
		}
	}
	if err := v.Check(); err != nil {
		for text := range strings.SplitSeq(err.Error(), "\n") {
			name, reason, _ := strings.Cut(text, ": ")
			l.add(Refusal, "assumption", "assumptions."+name, "", "", reason+".", "")
		}
	}
}

// retention are the rules about replay and remember.
func (l *linter) retention() {
	v, p, safe := l.view, &l.view.p, &l.view.safe
	need, text := sum(v.keep(p.Lease))
	if p.Remember < need && p.Remember >= p.Lease {
		l.add(Refusal, "retention", "remember", spanned(p.Remember), "at least "+spanned(need),
			"A copy that comes after the key was forgotten runs again, and one may come after "+text+".", set("remember", safe.Remember))
	}
	if d := v.a.BrokerRedelivery; p.Remember < d {
		l.add(Refusal, "retention-broker", "remember", spanned(p.Remember), "more than "+spanned(d),
			fmt.Sprintf("The broker may deliver a message again for %v, and after %v it would be taken for a new one.", Span(d), Span(p.Remember)), set("remember", safe.Remember))
	}
	if p.Replay < v.copies.span && p.Replay >= 0 {
		l.add(Warning, "replay-retries", "replay", spanned(p.Replay), "at least "+spanned(v.copies.span),
			fmt.Sprintf("A copy may come for %v, by %s; after %v it gets 410 in place of the answer.", Span(v.copies.span), v.copies.name, Span(p.Replay)), set("replay", safe.Replay))
	}
	if w := v.window(); w.span > p.Remember {
		l.add(Warning, "key-window", "remember", spanned(p.Remember), "at least "+spanned(w.span),
			"A key's own time (UUIDv7) has to lie within remember; else it gets 410 and never runs: "+w.name+".", set("remember", safe.Remember))
	}
	if v.a.TimedKeys && v.a.ClockSkew > keyAhead {
		l.add(Warning, "key-ahead", "assumptions.clock-skew", spanned(v.a.ClockSkew), "at most "+spanned(keyAhead),
			"A key whose own time (UUIDv7) lies more than 5m ahead is refused with 400: clients whose clocks run fast get nothing done.", "Set the clients' clocks by NTP, or let them take keys without a time.")
	}
	if v.a.Effect == Money && p.Remember < financialLeast {
		l.add(Note, "retention-money", "remember", spanned(p.Remember), "", "7d to 30d is usual: payments are tried again after weekends, and their books are closed by the month.", "Set tier: financial, or remember: 30d.")
	}
	if v.client.span == 0 {
		l.add(Note, "client-unstated", "assumptions.client-attempts", "not stated", "", "How long clients send a request again decides how long a key has to be remembered; it was taken for nothing.",
			"State client-attempts, client-timeout and client-backoff, or client-horizon, under assumptions.")
	}
}

const (
	// keyAhead is how far ahead a key's own time may lie (INVARIANTS X2).
	keyAhead = 5 * time.Minute
	// financialLeast is the shortest retention that is usual for money.
	financialLeast = 7 * 24 * time.Hour
)

// lease are the rules about the lease.
func (l *linter) lease() {
	v, p, safe := l.view, &l.view.p, &l.view.safe
	least, longest, why := v.leaseBounds()
	if p.Class == semel.Transactional {
		if p.Lease < transactionLease(v.longest) && v.longest > 0 {
			l.add(Refusal, "lease-transaction", "lease", spanned(p.Lease), "at least "+spanned(least),
				"A transaction's lease is not renewed, so an operation that takes its longest would be undone each time. "+why, set("lease", safe.Lease)+" Or make the operation shorter.")
		}
		return
	}
	if v.a.Pause > 0 && p.Lease <= 2*v.a.Pause {
		then := "a copy then runs beside what does not stop at once"
		if p.Class == semel.AtMostOnce {
			then = "copies are then told that the outcome is unknown"
		}
		l.add(Warning, "lease-pause", "lease", spanned(p.Lease), "more than "+spanned(2*v.a.Pause),
			fmt.Sprintf("A process that cannot get to the store for half of its lease loses it, and may not for %v: the operation is told to stop, and %s.", Span(v.a.Pause), then), set("lease", safe.Lease))
	}
	if v.longest > p.Lease {
		l.add(Note, "lease-renewed", "lease", spanned(p.Lease), "",
			fmt.Sprintf("The operation may take %v, longer than its lease. That is well: a lease is renewed every third of it, %v, while the operation runs.", Span(v.longest), (p.Lease/3).Round(time.Millisecond)), "")
	}
	help := set("lease", safe.Lease)
	if safe.Lease >= v.client.span {
		help = "Let clients try for longer: a shorter lease would not outlast a pause."
	}
	switch {
	case v.client.span > 0 && p.Lease >= v.client.span:
		l.add(Warning, "lease-retries", "lease", spanned(p.Lease), "less than "+spanned(v.client.span),
			fmt.Sprintf("After a crash copies are told in-progress until the lease ends, and the client gives up before: %s %v.", v.client.name, Span(v.client.span)), help)
	case v.client.span == 0 && p.Lease >= longest:
		l.add(Warning, "lease-long", "lease", spanned(p.Lease), "", "A crash stays unseen for so long, and every copy is told in-progress.", "A lease is renewed while the operation runs, so it need not be long: "+set("lease", safe.Lease))
	}
}

// waiting are the rules about who waits for whom.
func (l *linter) waiting() {
	v, p := l.view, &l.view.p
	cut := firstCut(&v.a)
	if cut.span > 0 && p.Wait >= cut.span {
		l.add(Warning, "wait-cut", "wait", spanned(p.Wait), "less than "+spanned(cut.span),
			fmt.Sprintf("A waiting copy is cut off after %s, %v, before it is told in-progress and when to come again.", cut.name, Span(cut.span)), set("wait", v.safe.Wait))
	}
	if p.Wait > p.Lease && p.Class != semel.Transactional {
		then := "runs the operation again, and is answered later by what that takes"
		if p.Class == semel.AtMostOnce {
			then = "is told that the outcome is unknown"
		}
		l.add(Note, "wait-lease", "wait", spanned(p.Wait), "", fmt.Sprintf("A copy that waits longer than the lease, %v, sees a crash: it then %s.", Span(p.Lease), then), "")
	}
	switch {
	case cut.span > 0 && v.a.HandlerP99 >= cut.span:
		l.add(Warning, "handler-cut", "assumptions.handler-p99", spanned(v.a.HandlerP99), "less than "+spanned(cut.span),
			fmt.Sprintf("One in a hundred first requests is cut off after %s, %v; only a retry gets the answer.", cut.name, Span(cut.span)), "Let clients and proxies wait longer, or answer 202 and let them ask later.")
	case cut.span > 0 && v.longest >= cut.span:
		l.add(Note, "handler-cut-rarely", "assumptions.handler-longest", spanned(v.longest), "", fmt.Sprintf("What takes its longest is cut off after %s, %v; the operation goes on, and a retry gets the answer.", cut.name, Span(cut.span)), "")
	}
	if v.Silence > 0 && v.longest >= v.Silence {
		then := "the next copy then runs beside it"
		if p.Class == semel.AtMostOnce {
			then = "its outcome is then unknown, though it goes well"
		}
		l.add(Warning, "timeout-handler", "timeout", spanned(v.Silence), "more than "+spanned(v.longest), fmt.Sprintf("The operation may take %v and is given up after %v; %s.", Span(v.longest), Span(v.Silence), then), set("timeout", up(v.longest+v.longest/5)))
	}
	if v.NotDoneAfter != 0 && v.longest > max(v.NotDoneAfter, 0) {
		l.add(Refusal, "resolve-early", "resolve.not-done-after", spanned(max(v.NotDoneAfter, 0)), "at least "+spanned(v.longest),
			fmt.Sprintf("The operation may go on for %v; a resolver that is believed sooner says not done of one that still runs, and the next copy runs beside it.", Span(v.longest)), set("not-done-after", up(v.longest+v.longest/5)))
	}
}

// effect are the rules about what a second run would do.
func (l *linter) effect() {
	v, p := l.view, &l.view.p
	harm := v.a.Effect == Once || v.a.Effect == Money
	name := v.a.Effect.String()
	if harm && p.Class == semel.AtLeastOnce {
		l.add(Refusal, "class-effect", "class", p.Class.String(), "at-most-once, fenced or transactional", "After a crash the next copy runs again, and a second run does harm (effect: "+name+").",
			"Set class: at-most-once; or fenced, if the target refuses a key that it has seen.")
	}
	if harm && v.FailOpen {
		level := Warning
		if v.a.Effect == Money {
			level = Refusal
		}
		l.add(level, "fail-open-effect", "fail-open", "true", "false", "While the store is away two processes may both run a key, and a second run does harm (effect: "+name+").", "Set fail-open: false: clients are then told to come again.")
	}
	if v.a.Effect == Money && p.Class == semel.Fenced {
		l.add(Note, "fenced-target", "class", "fenced", "", "After a crash the next copy runs again: only the target keeps money from moving twice, by refusing a key that it has seen.", "Make sure that it does, and for at least as long as remember.")
	}
	if v.a.Effect == Money && p.Class == semel.AtMostOnce && !v.Resolved && v.a.Reconciliation == 0 {
		l.add(Warning, "doubt-unattended", "resolve", "none", "", "After a crash in the middle a key is in doubt until somebody looks, and nobody is named who does.", "Give the route a resolver, or state how often the books are compared: reconciliation, under assumptions.")
	}
	if !v.KeyOptional {
		if v.KeyDerived && v.a.Effect == Money {
			l.add(Warning, "key-derived", "derive-key", "true", "", "Two payments with equal content, both meant, are taken for one, and the second is not made.", "Set require: true, and let clients send keys.")
		}
		return
	}
	if v.a.ProxyRetries > 0 {
		l.add(Warning, "key-optional-proxy", "require", "false", "true", fmt.Sprintf("The proxy sends a request again by itself (%d times), and one without a key runs each time.", v.a.ProxyRetries), "Set require: true, or switch the proxy's retries off for unsafe methods.")
	}
	if v.a.Effect == Money {
		l.add(Warning, "key-optional-money", "require", "false", "true", "A payment without a key passes unguarded: its retry pays again.", "Set require: true.")
	}
}

// sizes are the rules about answers and quotas.
func (l *linter) sizes() {
	v, p := l.view, &l.view.p
	if v.a.LongestAnswer > int64(p.MaxResult) && p.MaxResult >= 0 {
		l.add(Warning, "answer-size", "max-result", fmt.Sprint(p.MaxResult), fmt.Sprintf("at least %d", v.a.LongestAnswer), "A longer answer is passed on and not kept: its retries get 410, and never see it.", fmt.Sprintf("Set max-result: %d.", v.a.LongestAnswer))
	}
	if q := v.Quota; q.NewKeys > 0 && v.client.span > 0 {
		per := q.Per
		if per <= 0 {
			per = time.Minute
		}
		if refill := per / time.Duration(q.NewKeys); refill > v.client.span {
			l.add(Warning, "quota-retries", "quota", fmt.Sprintf("%d in %v", q.NewKeys, Span(per)), "", fmt.Sprintf("Room for a new key comes back every %v, and a client that was refused gives up before: %s %v.", Span(refill), v.client.name, Span(v.client.span)),
				"Allow more new keys in a shorter time, or let clients try for longer.")
		}
	}
}

// all are the rules about all policies together.
func (l *linter) all(views []*view) {
	var longest, remember, advised time.Duration
	for _, v := range views {
		longest, remember, advised = max(longest, v.longest), max(remember, v.p.Remember), max(advised, v.safe.Remember)
	}
	if d := l.facts.Drain; d > 0 && longest > d {
		l.add(Warning, "drain-handler", "drain", spanned(d), "at least "+spanned(longest), fmt.Sprintf("When a process is stopped, operations that run longer than %v are cut off, and an operation may take %v.", Span(d), Span(longest)), set("drain", up(longest)))
	}
	j := l.facts.Journal
	if j == 0 {
		return
	}
	if j < remember {
		l.add(Refusal, "journal-short", "journal", spanned(j), "at least "+spanned(remember), fmt.Sprintf("Keys are remembered for %v: what happened to one could not be looked up any more while it is still in force.", Span(remember)), set("journal", up(max(advised, remember))))
	}
	safe := max(j, advised)
	l.report.Advice = append(l.report.Advice, Advice{Field: "journal", Have: Span(j), Safe: Span(safe), Why: fmt.Sprintf("The trail has to outlive the keys, which are remembered for up to %v.", Span(advised))})
}

// store are the rules about the store. A finding is told once, at the worst level
// that a policy gives it.
func (l *linter) store(views []*view) {
	s := &l.facts.Store
	has := func(t semel.Trait) bool { return slices.Contains(s.Traits, t) }
	money, harm, timed := false, false, false
	exposed := false // money moves, and only the store's memory keeps it from moving twice
	for _, v := range views {
		money = money || v.a.Effect == Money
		harm = harm || v.a.Effect == Money || v.a.Effect == Once
		timed = timed || v.a.TimedKeys
		exposed = exposed || v.a.Effect == Money && v.p.Class != semel.Transactional && v.p.Class != semel.Fenced
	}
	if s.Refused != "" {
		l.add(Refusal, "store-refused", "store", "refused", "", s.Refused, "")
	}
	if s.Unreachable != "" {
		l.add(Warning, "store-unreachable", "store", "not reached", "", "Its settings could not be looked at: "+s.Unreachable, "Check where the store can be reached, or say --offline.")
	}
	if has(semel.TraitEvicts) {
		l.add(Refusal, "store-evicts", "store", "evicts", "a store that keeps what it has acknowledged", "It deletes records to make room, and what they guarded runs again: 16 MB of other writes were enough to lose a claim.",
			"On Redis set maxmemory-policy noeviction and enough memory; or keep this server as a cache, and the records elsewhere.")
	}
	if has(semel.TraitReplica) {
		l.add(Refusal, "store-replica", "store", "a replica", "the primary", "A replica lags behind: it says that a key is new which was taken a moment ago.", "Name the primary, or an address that always leads to it.")
	}
	if has(semel.TraitLossyFailover) {
		l.add(worse(exposed), "store-failover", "store", "asynchronous standby", "synchronous standbys", "A standby that takes over may lack the last keys that were acknowledged; their retries look new, and run again.",
			"On PostgreSQL set synchronous_standby_names; or use etcd; or the class fenced, with a target that refuses a key that it has seen.")
	}
	switch {
	case !s.Known:
	case s.Survives == semel.SurvivesNothing:
		l.add(worse(harm), "store-forgets", "store", "survives nothing", "", "Every key is forgotten when the process ends, and retries run again.", "Use sqlite:PATH, or a database.")
	case s.Survives == semel.SurvivesProcess:
		l.add(worse(money), "store-crash", "store", "survives a crash of the process alone", "", "A crash of the server's machine loses keys that were acknowledged, and their retries run again: "+s.Durability+".",
			"On MySQL set innodb_flush_log_at_trx_commit = 1 and sync_binlog = 1, on Redis appendfsync always.")
	}
	if has(semel.TraitTornPages) {
		l.add(Warning, "store-torn", "store", "pages may tear", "", "Loss of power can leave a page half written, and records in it damaged.", "Set full_page_writes = on (PostgreSQL), innodb_doublewrite = ON (MySQL).")
	}
	if has(semel.TraitClockOff) {
		why := "Leases and retentions go by the store's clock, so they hold; what people compare with other clocks does not."
		if timed {
			why = "Keys that carry their time (UUIDv7) are judged by the store's clock: those of clients whose clocks are right are refused."
		}
		l.add(Warning, "store-clock", "store", "its clock is off", "", why, "Let NTP set both clocks.")
	}
	if s.NoJournal && s.Known {
		level := Note
		if money {
			level = Warning
		}
		l.add(level, "store-journal", "store", "no journal", "", "What happened to a key cannot be looked up later, nor proved.", "Use PostgreSQL, MySQL, SQLite or etcd where that matters.")
	}
}

// worse gives a refusal, or else a warning.
func worse(bad bool) Level {
	if bad {
		return Refusal
	}
	return Warning
}
