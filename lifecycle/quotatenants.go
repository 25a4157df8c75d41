package lifecycle

import "strings"

// tenant is what is remembered of one.
type tenant struct {
	name   string
	limits *limits
	// inFlight counts what has entered and not left, and what waits to enter.
	inFlight int
	// free is when the bucket is full again, by the quota's clock: each new key
	// moves it on by an interval.
	free int64
	// share is of a shared quota.
	share share

	newer, older *tenant // by when they were last seen
}

// tenants remembers so many of them at most. The quota's mutex guards it.
type tenants struct {
	byName         map[string]*tenant
	newest, oldest *tenant
	most           int
}

// victims is how many are looked at for one who loses nothing by being forgotten.
const victims = 16

// tenant gives the tenant of that name, or nil if there is no room for another.
func (q *Quota) tenant(name string, now int64) *tenant {
	s := &q.tenants
	t := s.byName[name]
	if t != nil {
		if t != s.newest {
			s.unlink(t)
			s.link(t)
		}
		return t
	}
	if len(s.byName) >= s.most {
		if t = s.forget(now); t == nil {
			return nil
		}
	} else {
		t = new(tenant)
	}
	*t = tenant{name: strings.Clone(name), limits: &q.general} // the name may be a part of something large
	if own := q.overrides[name]; own != nil {
		t.limits = own
	}
	s.byName[t.name] = t
	s.link(t)
	return t
}

// forget forgets one of whom nothing is in flight, and gives the room: of the
// longest unseen the first whose bucket is full, or else the longest unseen.
func (s *tenants) forget(now int64) *tenant {
	var victim *tenant
	looked := 0
	next := s.oldest
	for range len(s.byName) {
		t := next
		next = t.newer
		if t.inFlight > 0 { // not to be met again the next time
			s.unlink(t)
			s.link(t)
			continue
		}
		if victim == nil {
			victim = t
		}
		if t.free <= now {
			victim = t
			break
		}
		if looked++; looked == victims {
			break
		}
	}
	if victim != nil {
		s.unlink(victim)
		delete(s.byName, victim.name)
	}
	return victim
}

func (s *tenants) link(t *tenant) {
	t.newer, t.older = nil, s.newest
	if s.newest != nil {
		s.newest.newer = t
	} else {
		s.oldest = t
	}
	s.newest = t
}

func (s *tenants) unlink(t *tenant) {
	if t.newer != nil {
		t.newer.older = t.older
	} else {
		s.newest = t.older
	}
	if t.older != nil {
		t.older.newer = t.newer
	} else {
		s.oldest = t.newer
	}
	t.newer, t.older = nil, nil
}
