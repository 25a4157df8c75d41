package lifecycle

import (
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/semelhq/semel"
)

// view is a policy with its defaults, and what its assumptions come to.
type view struct {
	*PolicyFacts
	p     semel.Policy // filled
	wrong error        // of Filled
	a     Assumptions  // in their bounds
	// client is how long after the first request the client may send a copy, copies how
	// long after it anybody may.
	client, copies term
	longest        time.Duration // what the operation may take
	// safe has the numbers that are advised.
	safe semel.Policy
}

// term is a part of a sum.
type term struct {
	name string
	span time.Duration
}

func newView(f *PolicyFacts) *view {
	v := &view{PolicyFacts: f, a: f.Assumptions}
	v.p, v.wrong = f.Policy.Filled()
	for _, s := range v.a.spans() {
		*s.at = min(max(*s.at, 0), longestAssumed)
	}
	v.a.ClientAttempts = min(max(v.a.ClientAttempts, 0), mostAttempts)
	v.a.ProxyRetries = min(max(v.a.ProxyRetries, 0), mostAttempts)
	v.longest = max(v.a.HandlerLongest, v.a.HandlerP99)
	v.client = v.a.retries()
	if v.a.ClientHorizon > v.client.span {
		v.client = term{"the client's horizon", v.a.ClientHorizon}
	}
	v.copies = v.client
	if v.a.BrokerRedelivery > v.copies.span {
		v.copies = term{"the broker's redelivery", v.a.BrokerRedelivery}
	}
	return v
}

// retries is the time over which the attempts of a client and of a proxy can come.
func (a *Assumptions) retries() term {
	if a.ClientAttempts == 0 && a.ClientTimeout == 0 && a.ProxyRetries == 0 {
		return term{name: "the client's retries"}
	}
	attempts := max(a.ClientAttempts, 1)
	parts := []string{fmt.Sprintf("%d attempts of %v", attempts, Span(a.ClientTimeout))}
	if attempts == 1 {
		parts[0] = fmt.Sprintf("1 attempt of %v", Span(a.ClientTimeout))
	}
	total := times(a.ClientTimeout, attempts)
	if pauses := a.pauses(attempts - 1); pauses > 0 {
		total = plus(total, pauses)
		parts = append(parts, fmt.Sprintf("pauses of %v in all", Span(pauses)))
	}
	if a.ProxyRetries > 0 {
		total = plus(total, times(a.ProxyTimeout, a.ProxyRetries))
		parts = append(parts, fmt.Sprintf("the proxy's own %d of %v", a.ProxyRetries, Span(a.ProxyTimeout)))
	}
	return term{"the client's retries (" + strings.Join(parts, ", ") + ")", total}
}

// pauses adds n pauses up.
func (a *Assumptions) pauses(n int) time.Duration {
	total, pause := time.Duration(0), a.ClientBackoff
	for ; n > 0 && pause > 0; n-- {
		if a.ClientBackoffCap > 0 && pause >= a.ClientBackoffCap || pause == longestAssumed {
			limit := pause
			if a.ClientBackoffCap > 0 {
				limit = min(limit, a.ClientBackoffCap)
			}
			return plus(total, times(limit, n))
		}
		total = plus(total, pause)
		pause = min(2*pause, longestAssumed)
	}
	return total
}

// keep are the parts of the shortest retention that is safe (INVARIANTS X6), with
// that lease.
func (v *view) keep(lease time.Duration) []term {
	return []term{{"lease", lease}, v.copies, {"partition", v.a.Partition}, {"reconciliation", v.a.Reconciliation}}
}

// sum adds terms up, and writes it down without those that are zero.
func sum(terms []term) (time.Duration, string) {
	total := time.Duration(0)
	var parts []string
	for _, t := range terms {
		if t.span > 0 {
			parts = append(parts, fmt.Sprintf("%s %v", t.name, Span(t.span)))
		}
		total = plus(total, t.span)
	}
	if len(parts) < 2 {
		return total, strings.Join(parts, "")
	}
	return total, fmt.Sprintf("%s = %v", strings.Join(parts, " + "), Span(total))
}

// endless is what sums are cut off at: no assumption comes near it.
const endless = 100 * 365 * 24 * time.Hour

// plus adds what is not negative, up to endless or the larger of the two.
func plus(a, b time.Duration) time.Duration {
	if a > endless-min(b, endless) {
		return max(a, b, endless)
	}
	return a + b
}

func times(d time.Duration, n int) time.Duration {
	if n > 0 && d > endless/time.Duration(n) {
		return endless
	}
	return d * time.Duration(n)
}

// up rounds up to what people write: seconds, minutes, hours, days.
func up(d time.Duration) time.Duration {
	unit := 24 * time.Hour
	switch {
	case d < time.Second:
		unit = time.Millisecond
	case d < 2*time.Minute:
		unit = time.Second
	case d < 3*time.Hour:
		unit = time.Minute
	case d < 4*24*time.Hour:
		unit = time.Hour
	}
	if d > math.MaxInt64-unit {
		return d
	}
	return (d + unit - 1) / unit * unit
}

// pauseUnstated is what is taken for the longest pause where nobody says.
const pauseUnstated = 5 * time.Second

// leaseBounds gives the shortest lease that is safe, the length that it has to stay
// below, and why. A longest of 0 is none.
func (v *view) leaseBounds() (least, longest time.Duration, why string) {
	if v.p.Class == semel.Transactional {
		least = transactionLease(v.longest)
		if v.longest == 0 {
			return least, 0, "A transaction is cut off after five sixths of its lease; what the operation takes is not stated."
		}
		return least, 0, fmt.Sprintf("A transaction is cut off after five sixths of its lease: six fifths of the operation's longest %v is %v.", Span(v.longest), Span(least))
	}
	pause, said := v.a.Pause, ""
	if pause == 0 {
		pause, said = pauseUnstated, " (assumed)"
	}
	least = max(up(2*pause+time.Millisecond), shortestLease)
	why = fmt.Sprintf("It is renewed every third of it and lost after half of it without the store: above 2 x pause %v%s = %v", Span(pause), said, Span(2*pause))
	switch {
	case v.client.span > least:
		longest = v.client.span
		why += fmt.Sprintf("; below %s, %v, so that a client learns of a crash before it stops", v.client.name, Span(longest))
	case v.client.span == 0:
		longest = max(longLease, least) + 1
	}
	return least, longest, why + "."
}

// longLease is a lease for which hardly anybody waits.
const longLease = time.Hour

// transactionLease is the shortest lease under which an operation of that length
// commits, with a millisecond to spare.
func transactionLease(longest time.Duration) time.Duration {
	return max(up(longest+longest/5+time.Millisecond), shortestLease)
}

// shortestLease is that of semel.Policy.
const shortestLease = 50 * time.Millisecond

// advise gives the four numbers.
func (l *linter) advise() {
	v := l.view
	least, longest, why := v.leaseBounds()
	lease := max(v.p.Lease, least)
	if longest > 0 && lease >= longest {
		lease = max((longest / 2).Truncate(time.Second), least)
	}
	l.tell("lease", v.p.Lease, lease, why)

	cut := firstCut(&v.a)
	wait := v.p.Wait
	why = "Nothing is stated that would cut a waiting copy off."
	if cut.span > 0 {
		why = fmt.Sprintf("Nine tenths of %s, %v: a copy that waits longer is cut off, in place of being told to come again.", cut.name, Span(cut.span))
		if wait >= cut.span {
			wait = max(cut.span/10*9, time.Nanosecond)
		}
	}
	l.tell("wait", v.p.Wait, wait, why)

	replay, remember := v.p.Replay, v.p.Remember
	why = "Nothing is stated by which it could be too short."
	if v.copies.span > 0 {
		why = fmt.Sprintf("So long a copy may come, and is to get the answer: %s %v.", v.copies.name, Span(v.copies.span))
	}
	replay = max(replay, up(v.copies.span), time.Second)
	l.tell("replay", v.p.Replay, replay, why)

	need, text := sum(v.keep(lease))
	need = max(need, v.window().span)
	why = "A copy that comes later would run again: " + text
	if v.window().span > need {
		why = "A key's own time has to lie within it: " + v.window().name
	}
	if remember = max(remember, up(need), lease, replay); replay > need {
		why += fmt.Sprintf("; and not below replay, %v", Span(replay))
	}
	l.tell("remember", v.p.Remember, remember, why+".")
	v.safe.Lease, v.safe.Wait, v.safe.Replay, v.safe.Remember = lease, wait, replay, remember
}

func (l *linter) tell(field string, have, safe time.Duration, why string) {
	l.report.Advice = append(l.report.Advice, Advice{Policy: l.view.p.Name, Field: field, Have: Span(have), Safe: Span(safe), Why: why})
}

// window is how old a key's own time may be when it comes, if keys carry one.
func (v *view) window() term {
	if !v.a.TimedKeys || v.a.ClockSkew == 0 {
		return term{}
	}
	total, text := sum([]term{v.copies, {"clock skew", v.a.ClockSkew}})
	return term{text, total}
}

// firstCut is what cuts a waiting request off first.
func firstCut(a *Assumptions) term {
	proxy, client := term{"the proxy's timeout", a.ProxyTimeout}, term{"the client's timeout", a.ClientTimeout}
	if client.span > 0 && (proxy.span == 0 || client.span < proxy.span) {
		return client
	}
	return proxy
}
