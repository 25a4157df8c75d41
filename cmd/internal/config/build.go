package config

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/goccy/go-yaml/token"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/gateway"
	"github.com/semelhq/semel/semelhttp"
	"github.com/semelhq/semel/store/memory"
)

// Gateway gives the settings as package gateway takes them, without Guard and
// Logger. Its error tells every mistake, in the file where it is one of the file.
func (s *Settings) Gateway() (gateway.Config, error) {
	c := gateway.Config{UpstreamHost: s.UpstreamHost, TrustForwarded: s.TrustForwarded, Drain: s.Drain, StatusPath: s.StatusPath, PolicyPath: s.PolicyPath}
	f := s.file
	if f == nil {
		f = &file{}
	}
	f.problems = nil // those of loading were told
	var wrong []error
	var err error
	if c.Upstream, err = parseUpstream(s.Upstream); err != nil {
		wrong = append(wrong, err)
	}
	guard, err := semel.NewGuard(memory.New(memory.Options{}), semel.Options{})
	if err != nil {
		return c, err
	}
	for _, r := range append(slices.Clone(s.Routes), s.Default) {
		built, mistakes := r.build(guard)
		for _, m := range mistakes {
			if m.at == nil {
				wrong = append(wrong, errors.New(m.text))
			} else if !slices.Contains(f.problems, m) { // a default's mistake is every route's
				f.problems = append(f.problems, m)
			}
		}
		same := func(other gateway.Route) bool { return other.Match == built.Match && other.Resolve != nil }
		if r.Resolve != nil && slices.ContainsFunc(c.Routes, same) {
			f.refuse(r.at["match"], "resolve: an earlier route has this match and a resolver; what is in doubt is asked of the resolver of its match, so there can be one")
		}
		c.Routes = append(c.Routes, built)
	}
	if c.StatusPath == c.PolicyPath && c.PolicyPath != "none" {
		wrong = append(wrong, fmt.Errorf("policy-path: the status endpoint is at %s; give it another path, or none", c.PolicyPath))
	}
	_ = s.setQuotas(&c, guard, func(r *Route, err error) error {
		m := problem{r.Quota.place(err.Error()), "quota: " + err.Error()}
		if m.at == nil {
			m.at = r.at["quota"]
		}
		if !slices.Contains(f.problems, m) { // the top's mistake is every route's
			f.problems = append(f.problems, m)
		}
		return nil
	})
	refused, err := s.checkLifecycle(&c)
	f.problems = append(f.problems, refused...)
	return c, f.all(append(wrong, err))
}

func parseUpstream(text string) (*url.URL, error) {
	if text == "" {
		return nil, errors.New("an upstream is required: --upstream http://127.0.0.1:3000, or SEMEL_UPSTREAM, or upstream: in the file")
	}
	u, err := url.Parse(text)
	if err != nil || u.Host == "" && !strings.Contains(text, "//") {
		return nil, fmt.Errorf("upstream: %q is no URL; write it with its scheme, as in http://%s", text, strings.TrimPrefix(text, "//"))
	}
	if err := gateway.CheckUpstream(u); err != nil {
		return nil, fmt.Errorf("upstream: %w", err)
	}
	return u, nil
}

// build gives the route for the gateway, or what is wrong with it.
func (r *Route) build(guard *semel.Guard) (gateway.Route, []problem) {
	var wrong []problem
	refuse := func(err error) {
		wrong = append(wrong, problem{r.place(err.Error()), strings.TrimPrefix(err.Error(), "semelhttp: ")})
	}
	out := gateway.Route{Match: r.Match, Silence: r.Timeout, Options: r.options()}
	if r.Timeout == 0 {
		out.Silence = -1
	}
	methods, err := gateway.ParseMatch(r.Match)
	if err != nil {
		wrong = append(wrong, problem{r.at["match"], err.Error()})
	}
	out.Options.Methods = methods
	out.Resolve = r.Resolve
	wrong = append(wrong, r.checkResolve(methods)...)
	if out.Options.Canonical, err = r.Fingerprint.canonical(r.MaxBody); err != nil {
		wrong = append(wrong, problem{r.place(err.Error()), "fingerprint: " + err.Error()})
	}
	if r.Require && r.DeriveKey {
		refuse(errors.New("require refuses what derive-key would accept; set one of them"))
		out.Options.DeriveKey = false
	}
	if _, err := out.Options.Policy.Filled(); err != nil {
		for text := range strings.SplitSeq(err.Error(), "\n") {
			refuse(errors.New(strings.TrimPrefix(text, fmt.Sprintf("semel: policy %q: ", r.Match))))
		}
	} else if _, err := semelhttp.NewHandler(guard, http.NotFoundHandler(), out.Options); err != nil {
		refuse(err)
	}
	return out, wrong
}

// checkResolve tells what is wrong with the route's resolver.
func (r *Route) checkResolve(methods []string) []problem {
	switch {
	case r.Resolve == nil:
		return nil
	case r.FailOpen:
		return []problem{{r.at["resolve"], "resolve: a route that goes on without its store (fail-open) can leave an outcome that this process alone knows of; take one of them away"}}
	case r.Class != semel.AtMostOnce:
		return []problem{{r.at["resolve"], fmt.Sprintf("resolve: the class %v leaves nothing in doubt; take the resolver away, or the class at-most-once", r.Class)}}
	}
	err := r.Resolve.Check(r.Match, methods)
	if err == nil {
		return nil
	}
	at := r.at["resolve"]
	if name, _, _ := strings.Cut(err.Error(), ":"); r.at["resolve."+name] != nil {
		at = r.at["resolve."+name]
	}
	return []problem{{at, "resolve: " + err.Error()}}
}

// place finds where the setting was made that a message begins with, or
// mentions first; else the route itself.
func (r *Route) place(message string) *token.Token {
	for word := range strings.FieldsSeq(strings.ToLower(message)) {
		word = strings.Trim(word, ":;,")
		if word == "keepheaders" {
			word = "keep-headers"
		}
		if at := r.at[word]; at != nil && word != "match" {
			return at
		}
	}
	return r.at["match"]
}

func (r *Route) options() semelhttp.Options {
	wait := r.Wait
	if wait == 0 {
		wait = -1
	}
	return semelhttp.Options{
		Scope: r.Scope.function(),
		Policy: semel.Policy{
			Name: r.Match, Class: r.Class, Lease: r.Lease, Wait: wait, Replay: r.Replay, Remember: r.Remember, MaxResult: int(r.MaxResult),
		},
		RequireKey: r.Require, DeriveKey: r.DeriveKey, FingerprintHeaders: r.Fingerprint.Headers, BodyCounts: r.Fingerprint.words(), MaxBody: r.MaxBody,
		KeepHeaders: r.KeepHeaders, NotDone: r.NotDone, MaxInFlight: r.MaxInFlight,
	}
}

// function gives the scope as semelhttp takes it. Whoever meets its refusal
// first is often the one who has just started the gateway.
func (s Scope) function() semelhttp.Scope {
	if s.Shared {
		return semelhttp.SharedScope()
	}
	scope := semelhttp.HeaderScope(s.Headers...)
	return func(r *http.Request) (string, error) {
		name, err := scope(r)
		if err != nil {
			err = fmt.Errorf("%w; if this service has only one client, start the gateway with --scope shared", err)
		}
		return name, err
	}
}
