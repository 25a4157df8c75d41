package config

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/token"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/gateway"
	"github.com/semelhq/semel/lifecycle"
)

// Quota is the block of that name. Routes that have the same one, by its address,
// count together.
type Quota struct {
	NewKeys  int
	Per      time.Duration
	Burst    int
	InFlight int
	Tenants  int
	// Tenant says whose quota a request counts for; nil: the scope does.
	Tenant *Scope
	Shared bool
	Block  int
	Alone  int // negative: none
	Within time.Duration
	// Overrides are by the value of the header of Tenant.
	Overrides map[string]lifecycle.Limits

	name string // the match of the route that it is of; none at the top level
	at   map[string]*token.Token
}

// quotaFields are in the file only, under quota.
func quotaFields() []Field {
	count := func(name string, place func(q *Quota) *int) Field {
		return Field{Name: name, set: parsed(parseCount, func(_ *Settings, r *Route) *int { return place(r.Quota) })}
	}
	return []Field{
		count("new-keys", func(q *Quota) *int { return &q.NewKeys }),
		{Name: "per", set: parsed(above, func(_ *Settings, r *Route) *time.Duration { return &r.Quota.Per })},
		count("burst", func(q *Quota) *int { return &q.Burst }),
		count("in-flight", func(q *Quota) *int { return &q.InFlight }),
		count("tenants", func(q *Quota) *int { return &q.Tenants }),
		{Name: "tenant", set: func(_ *Settings, r *Route, value string) error {
			scope, err := ParseScope(value)
			r.Quota.Tenant = &scope
			return err
		}},
		{Name: "shared", set: parsed(parseBool, func(_ *Settings, r *Route) *bool { return &r.Quota.Shared })},
		count("block", func(q *Quota) *int { return &q.Block }),
		{Name: "alone", set: parsed(parseAlone, func(_ *Settings, r *Route) *int { return &r.Quota.Alone })},
		{Name: "within", set: parsed(above, func(_ *Settings, r *Route) *time.Duration { return &r.Quota.Within })},
	}
}

// limitFields are those of one tenant, under overrides.
func limitFields(l *lifecycle.Limits) []Field {
	count := func(name string, place *int) Field {
		return Field{Name: name, set: func(_ *Settings, _ *Route, value string) (err error) {
			if value == "none" {
				*place = -1
				return nil
			}
			*place, err = parseCount(value)
			return err
		}}
	}
	return []Field{count("new-keys", &l.NewKeys), count("burst", &l.Burst), count("in-flight", &l.InFlight)}
}

// parseAlone gives -1 for none.
func parseAlone(text string) (int, error) {
	n, err := strconv.Atoi(text)
	switch {
	case err != nil || n < 0:
		return 0, fmt.Errorf("%q is no whole number from 0", text)
	case n == 0:
		return -1, nil
	}
	return n, nil
}

// readQuota reads the block, of a route if it has a match.
func (f *file) readQuota(r *Route, e entry) {
	r.at["quota"] = e.at
	if n, ok := e.value.(*ast.StringNode); ok && n.Value == "none" {
		r.Quota = nil
		return
	}
	m := f.mapping(e.value, "settings of the quota, such as `new-keys: 100`, or none")
	r.Quota = &Quota{at: make(map[string]*token.Token)}
	own := Route{Quota: r.Quota, at: r.Quota.at}
	fields := quotaFields()
	for _, e := range f.entries(m) {
		if e.name == "overrides" {
			r.Quota.at[e.name] = e.at
			f.readOverrides(r.Quota, e)
			continue
		}
		f.set(e, fields, nil, &own, "in a quota", "overrides")
	}
}

func (f *file) readOverrides(q *Quota, e entry) {
	q.Overrides = make(map[string]lifecycle.Limits)
	for _, e := range f.entries(f.mapping(e.value, "tenants with limits of their own, such as `acme: {new-keys: 1000}`")) {
		var limits lifecycle.Limits
		fields := limitFields(&limits)
		for _, e := range f.entries(f.mapping(e.value, "the tenant's limits, such as `new-keys: 1000`")) {
			f.set(e, fields, nil, nil, "among a tenant's limits")
		}
		q.Overrides[e.name] = limits
	}
}

// SetQuotas gives each route of c, which Gateway made, its quota. Those that are
// shared count in the store of guard. Routes that have one in common count together.
func (s *Settings) SetQuotas(c *gateway.Config, guard *semel.Guard) error {
	return s.setQuotas(c, guard, func(r *Route, err error) error { return err })
}

func (s *Settings) setQuotas(c *gateway.Config, guard *semel.Guard, told func(r *Route, err error) error) error {
	made := make(map[*Quota]*lifecycle.Quota)
	var wrong []error
	for i, r := range append(slices.Clone(s.Routes), s.Default) {
		if r.Quota == nil {
			continue
		}
		o := &c.Routes[i].Options
		if made[r.Quota] == nil {
			quota, err := r.Quota.build(guard)
			if err != nil {
				if err = told(&r, err); err != nil {
					wrong = append(wrong, err)
				}
				continue
			}
			made[r.Quota] = quota
		}
		o.Policy.Quota = made[r.Quota]
		if r.Quota.Tenant != nil {
			o.Tenant = r.Quota.Tenant.function()
		}
	}
	return errors.Join(wrong...)
}

// build gives the quota as it counts. Its error speaks of the file's names.
func (q *Quota) build(guard *semel.Guard) (*lifecycle.Quota, error) {
	o := lifecycle.QuotaOptions{
		NewKeys: q.NewKeys, Per: q.Per, Burst: q.Burst, InFlight: q.InFlight, Tenants: q.Tenants,
		Name: q.name, Block: q.Block, Alone: q.Alone, Within: q.Within,
	}
	if q.Shared {
		o.Shared = guard
	} else {
		o.Name = ""
	}
	if len(q.Overrides) > 0 {
		if q.Tenant == nil || len(q.Tenant.Headers) != 1 {
			return nil, errors.New("overrides name tenants by a value of the one header that tells them; set tenant, as in `tenant: header:X-Tenant`")
		}
		o.Overrides = make(map[string]lifecycle.Limits)
		tell := q.Tenant.function()
		for _, value := range slices.Sorted(maps.Keys(q.Overrides)) {
			name, err := tell(&http.Request{Header: http.Header{q.Tenant.Headers[0]: {value}}})
			if err != nil {
				return nil, fmt.Errorf("overrides: %q cannot be a tenant: %w", value, err)
			}
			if _, err := lifecycle.NewQuota(lifecycle.QuotaOptions{
				NewKeys: q.NewKeys, Per: q.Per, Burst: q.Burst, InFlight: q.InFlight, Overrides: map[string]lifecycle.Limits{value: q.Overrides[value]},
			}); err != nil && strings.Contains(err.Error(), "of the tenant") { // in the file's own words
				return nil, fmt.Errorf("overrides: %s", strings.TrimPrefix(err.Error(), "lifecycle: "))
			}
			o.Overrides[name] = q.Overrides[value]
		}
	}
	made, err := lifecycle.NewQuota(o)
	if err != nil {
		names := strings.NewReplacer("NewKeys", "new-keys", "Per", "per", "Burst", "burst", "InFlight", "in-flight",
			"Block", "block", "Alone", "alone", "Within", "within", "Shared", "shared: true", "Name, ", "")
		return nil, errors.New(names.Replace(strings.TrimPrefix(err.Error(), "lifecycle: ")))
	}
	return made, nil
}

// place finds the setting that a message mentions first.
func (q *Quota) place(message string) *token.Token {
	for word := range strings.FieldsSeq(message) {
		if at := q.at[strings.Trim(word, ":;,")]; at != nil {
			return at
		}
	}
	return nil
}

// String gives the quota in words.
func (q *Quota) String() string {
	var parts []string
	if q.NewKeys > 0 {
		per := q.Per
		if per == 0 {
			per = time.Minute
		}
		parts = append(parts, fmt.Sprintf("%d new keys in %s", q.NewKeys, formatDuration(per)))
	}
	if q.InFlight > 0 {
		parts = append(parts, fmt.Sprintf("%d at once", q.InFlight))
	}
	if len(q.Overrides) > 0 {
		parts = append(parts, fmt.Sprintf("%d with limits of their own", len(q.Overrides)))
	}
	whose := "each client"
	if q.Tenant != nil {
		whose = "each " + strings.TrimPrefix(q.Tenant.String(), "header:")
	}
	text := whose + ": " + strings.Join(parts, ", ")
	if q.Shared {
		text += "; shared through the store"
	}
	return text
}
