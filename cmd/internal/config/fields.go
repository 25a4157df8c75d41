package config

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/semelhq/semel/lifecycle"
)

// Field is one setting: a flag, a SEMEL_* variable and a name in the file.
type Field struct {
	Name string
	// Value stands for the value in help; empty for a switch.
	Value string
	Help  string
	// Default is told in help; empty if there is none.
	Default string
	// List: the file may have a list, flags and variables have commas.
	List bool
	set  func(s *Settings, r *Route, text string) error
	// route: a route may have one of its own.
	route bool
}

// Variable gives the name of the environment variable.
func (f Field) Variable() string {
	return "SEMEL_" + strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_"))
}

// Fields gives all settings that have a flag, in the order of help.
func Fields() []Field {
	d := Defaults()
	return slices.Concat(processFields(d), routeFields(d.Default))
}

// text makes a setter of a place for text.
func text(place func(s *Settings) *string) func(*Settings, *Route, string) error {
	return func(s *Settings, _ *Route, value string) error {
		*place(s) = value
		return nil
	}
}

// parsed makes a setter of a parser and a place for what it gives.
func parsed[T any](parse func(string) (T, error), place func(s *Settings, r *Route) *T) func(*Settings, *Route, string) error {
	return func(s *Settings, r *Route, value string) error {
		v, err := parse(value)
		if err == nil {
			*place(s, r) = v
		}
		return err
	}
}

// list makes a parser of many of a parser of one.
func list[T any](parse func(string) (T, error)) func(string) ([]T, error) {
	return func(value string) ([]T, error) {
		out := []T{}
		for part := range strings.SplitSeq(value, ",") {
			if part = strings.TrimSpace(part); part == "" && value == "" {
				break
			}
			v, err := parse(part)
			if err != nil {
				return nil, err
			}
			out = append(out, v)
		}
		return out, nil
	}
}

// choice makes a parser that takes one of a few words.
func choice(words ...string) func(string) (string, error) {
	return func(value string) (string, error) {
		if !slices.Contains(words, value) {
			return "", fmt.Errorf("%q is not known; there are %s", value, strings.Join(words, ", "))
		}
		return value, nil
	}
}

// above makes a parser of durations that refuses 0.
func above(value string) (time.Duration, error) {
	d, err := parseDuration(value)
	if err == nil && d == 0 {
		err = fmt.Errorf("%q must be longer than 0", value)
	}
	return d, err
}

func processFields(d Settings) []Field {
	return []Field{
		{Name: "upstream", Value: "URL", Help: "the service behind it, such as http://127.0.0.1:3000", set: text(func(s *Settings) *string { return &s.Upstream })},
		{Name: "listen", Value: "ADDRESS", Help: "where clients connect; port 0 takes a free one", Default: d.Listen, set: text(func(s *Settings) *string { return &s.Listen })},
		{Name: "store", Value: "URL", Help: "sqlite:PATH, memory:, postgres://… mysql://… redis://… etcd://… semel://…", Default: d.Store, set: text(func(s *Settings) *string { return &s.Store })},
		{Name: "cache", Value: "URLS", Help: "in front of the store, nearest first: memory:64MB,redis://… or none", List: true, set: text(func(s *Settings) *string { return &s.Cache })},
		{Name: "admin", Value: "ADDRESS", Help: "/healthz, /readyz, /metrics, such as on 127.0.0.1:7070", set: text(func(s *Settings) *string { return &s.Admin })},
		{Name: "secret-file", Value: "PATH", Help: "key the digests in the store with this file's content", set: text(func(s *Settings) *string { return &s.SecretFile })},
		{Name: "drain", Value: "TIME", Help: "how long running requests may take to end", Default: formatDuration(d.Drain), set: parsed(above, func(s *Settings, _ *Route) *time.Duration { return &s.Drain })},
		{Name: "status-path", Value: "PATH", Help: "where clients ask what is known of a key, or none", Default: d.StatusPath, set: parsed(parseOwnPath, func(s *Settings, _ *Route) *string { return &s.StatusPath })},
		{Name: "policy-path", Value: "PATH", Help: "where clients ask how requests are treated, or none", Default: d.PolicyPath, set: parsed(parseOwnPath, func(s *Settings, _ *Route) *string { return &s.PolicyPath })},
		{Name: "upstream-host", Value: "NAME", Help: "the upstream's Host header [the client's]", set: text(func(s *Settings) *string { return &s.UpstreamHost })},
		{Name: "trust-forwarded", Help: "keep X-Forwarded-* as they come: only behind a proxy", set: parsed(parseBool, func(s *Settings, _ *Route) *bool { return &s.TrustForwarded })},
		{Name: "log-level", Value: "LEVEL", Help: "info, warn, error, debug: each guarded request", Default: d.LogLevel, set: parsed(choice("debug", "info", "warn", "error"), func(s *Settings, _ *Route) *string { return &s.LogLevel })},
		{Name: "log-format", Value: "FORMAT", Help: "text, json, or auto: text on a terminal", Default: d.LogFormat, set: parsed(choice("auto", "text", "json"), func(s *Settings, _ *Route) *string { return &s.LogFormat })},
	}
}

func routeFields(d Route) []Field {
	fields := []Field{
		{Name: "scope", Value: "SCOPE", Help: "whose a key is: header:NAME[,NAME], or shared if there is only one client", Default: d.Scope.String(), set: parsed(ParseScope, func(_ *Settings, r *Route) *Scope { return &r.Scope })},
		{Name: "require", Help: "refuse POST and PATCH without a key", set: parsed(parseBool, func(_ *Settings, r *Route) *bool { return &r.Require })},
		{Name: "derive-key", Help: "where there is no key, take the content as the key", set: parsed(parseBool, func(_ *Settings, r *Route) *bool { return &r.DeriveKey })},
		{Name: "fail-open", Help: "go on without the store while it is away: answers are flagged, doubles possible", set: parsed(parseBool, func(_ *Settings, r *Route) *bool { return &r.FailOpen })},
		{Name: "class", Value: "CLASS", Help: "after a crash, at-most-once never runs it again, at-least-once and fenced do", Default: d.Class.String(), set: func(_ *Settings, r *Route, value string) (err error) {
			r.Class, err = parseClass(value)
			return err
		}},
		{Name: "lease", Value: "TIME", Help: "how long a crash stays unnoticed", Default: formatDuration(d.Lease), set: parsed(above, func(_ *Settings, r *Route) *time.Duration { return &r.Lease })},
		{Name: "wait", Value: "TIME", Help: "how long a copy waits for the first's answer", Default: formatDuration(d.Wait), set: parsed(parseDuration, func(_ *Settings, r *Route) *time.Duration { return &r.Wait })},
		{Name: "tier", Value: "TIER", Help: "replay and remember: standard, financial, inventory, telemetry", set: parsed(parseTier, func(_ *Settings, r *Route) **lifecycle.Tier { return &r.tier })},
		{Name: "replay", Value: "TIME", Help: "how long an answer can be had again", Default: formatDuration(d.Replay), set: parsed(above, func(_ *Settings, r *Route) *time.Duration { return &r.Replay })},
		{Name: "remember", Value: "TIME", Help: "how long a key is refused a second run", Default: formatDuration(d.Remember), set: parsed(above, func(_ *Settings, r *Route) *time.Duration { return &r.Remember })},
		{Name: "timeout", Value: "TIME", Help: "longest silence of the upstream, or 0", Default: formatDuration(d.Timeout), set: parsed(parseDuration, func(_ *Settings, r *Route) *time.Duration { return &r.Timeout })},
		{Name: "max-body", Value: "SIZE", Help: "the largest body of a guarded request", Default: formatBytes(d.MaxBody), set: parsed(ParseBytes, func(_ *Settings, r *Route) *int64 { return &r.MaxBody })},
		{Name: "max-result", Value: "SIZE", Help: "the largest answer that is kept", Default: formatBytes(d.MaxResult), set: parsed(ParseBytes, func(_ *Settings, r *Route) *int64 { return &r.MaxResult })},
		{Name: "max-in-flight", Value: "N", Help: "guarded requests at once; more get 503", Default: fmt.Sprint(d.MaxInFlight), set: parsed(parseCount, func(_ *Settings, r *Route) *int { return &r.MaxInFlight })},
		{Name: "keep-headers", Value: "NAMES", Help: "answer headers to keep besides the usual ones", List: true, set: parsed(list(parseHeader), func(_ *Settings, r *Route) *[]string { return &r.KeepHeaders })},
		{Name: "not-done", Value: "STATUSES", Help: "answers that mean nothing happened", Default: "425,429", List: true, set: parsed(list(parseStatus), func(_ *Settings, r *Route) *[]int { return &r.NotDone })},
	}
	for i := range fields {
		fields[i].route = true
	}
	return fields
}

// fingerprintFields are in the file only, under fingerprint.
func fingerprintFields() []Field {
	return []Field{
		{Name: "json", set: parsed(parseBool, func(_ *Settings, r *Route) *bool { return &r.Fingerprint.JSON })},
		{Name: "include", List: true, set: parsed(list(parsePointer), func(_ *Settings, r *Route) *[]string { return &r.Fingerprint.Include })},
		{Name: "exclude", List: true, set: parsed(list(parsePointer), func(_ *Settings, r *Route) *[]string { return &r.Fingerprint.Exclude })},
		{Name: "form", set: parsed(parseBool, func(_ *Settings, r *Route) *bool { return &r.Fingerprint.Form })},
		{Name: "content-digest", set: parsed(parseBool, func(_ *Settings, r *Route) *bool { return &r.Fingerprint.ContentDigest })},
		{Name: "headers", List: true, set: parsed(list(parseHeader), func(_ *Settings, r *Route) *[]string { return &r.Fingerprint.Headers })},
	}
}

// resolveFields are in the file only, under resolve of a route. What they come to is
// checked by package gateway.
func resolveFields() []Field {
	return []Field{
		{Name: "method", set: parsed(asIs, func(_ *Settings, r *Route) *string { return &r.Resolve.Method })},
		{Name: "path", set: parsed(asIs, func(_ *Settings, r *Route) *string { return &r.Resolve.Path })},
		{Name: "done", List: true, set: parsed(list(parseAnyStatus), func(_ *Settings, r *Route) *[]int { return &r.Resolve.Done })},
		{Name: "not-done", List: true, set: parsed(list(parseAnyStatus), func(_ *Settings, r *Route) *[]int { return &r.Resolve.NotDone })},
		{Name: "not-done-after", set: func(_ *Settings, r *Route, value string) error {
			d, err := parseDuration(value)
			if r.Resolve.NotDoneAfter = d; d == 0 {
				r.Resolve.NotDoneAfter = -1
			}
			return err
		}},
		{Name: "status", set: parsed(parseAnyStatus, func(_ *Settings, r *Route) *int { return &r.Resolve.Status })},
		{Name: "timeout", set: parsed(above, func(_ *Settings, r *Route) *time.Duration { return &r.Resolve.Timeout })},
		{Name: "every", set: parsed(above, func(_ *Settings, r *Route) *time.Duration { return &r.Resolve.Every })},
		{Name: "key-header", set: parsed(parseHeader, func(_ *Settings, r *Route) *string { return &r.Resolve.KeyHeader })},
	}
}

// parsePointer leaves the form of a JSON Pointer to those who use it, but for
// the mistake that is made most.
func parsePointer(value string) (string, error) {
	if !strings.HasPrefix(value, "/") {
		return "", fmt.Errorf("%q is no JSON Pointer; write /%s, or /order/amount for a field within a field", value, value)
	}
	return value, nil
}

// Route tells whether a route may have a value of its own.
func (f Field) Route() bool { return f.route }
