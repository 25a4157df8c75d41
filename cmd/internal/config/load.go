package config

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/token"

	"github.com/semelhq/semel/gateway"
)

// Sources is where settings come from.
type Sources struct {
	// File is the path of the YAML file; empty for none.
	File string
	// Lookup finds an environment variable. Default: os.LookupEnv.
	Lookup func(name string) (string, bool)
	// Flags holds the flags that were given, by name.
	Flags map[string]string
}

// Load merges the sources: flags win over variables, variables over the file,
// the file over defaults; a route's own settings win over all of them for that
// route. Its error tells every mistake.
func Load(from Sources) (Settings, error) {
	if from.Lookup == nil {
		from.Lookup = os.LookupEnv
	}
	s := Defaults()
	defaults := s.Default
	s.Default.Replay, s.Default.Remember = 0, 0
	s.Default.at = make(map[string]*token.Token)
	f := &file{}
	if from.File != "" {
		var err error
		if f, err = open(from.File); err != nil {
			return s, err
		}
		s.Source, s.file = from.File, f
	}
	var routes ast.Node
	if f.top != nil {
		routes = f.readTop(&s)
	}
	var wrong []error
	for _, field := range Fields() {
		name := field.Variable()
		value, given := from.Lookup(name)
		if flag, ok := from.Flags[field.Name]; ok {
			name, value, given = "--"+field.Name, flag, true
		}
		if !given {
			continue
		}
		delete(s.Default.at, field.Name) // the mistake is not the file's any more
		if err := field.set(&s, &s.Default, value); err != nil {
			wrong = append(wrong, fmt.Errorf("%s: %w", name, err))
		}
	}
	s.Default.retain(&defaults)
	f.checkAssumptions(&s.Default)
	if routes != nil {
		f.readRoutes(&s, routes)
	}
	return s, f.all(append(wrong, s.check()...))
}

// all joins the file's problems and others; nil if there is none.
func (f *file) all(others []error) error {
	if len(f.problems) > 0 {
		others = append(others, f)
	}
	return errors.Join(others...)
}

// readTop sets what the top level says, and gives the routes.
func (f *file) readTop(s *Settings) (routes ast.Node) {
	fields := Fields()
	for _, e := range f.entries(f.top) {
		switch {
		case e.name == "routes":
			routes = e.value
		case e.name == "fingerprint":
			f.readFingerprint(&s.Default, e)
		case e.name == "quota":
			f.readQuota(&s.Default, e)
		case e.name == "assumptions":
			f.readAssumptions(s, &s.Default, e, true)
		case e.name == "lifecycle":
			f.readLifecycle(s, e)
		case e.name == "resolve":
			f.refuse(e.at, "a resolver belongs to a route: its path is that of one kind of request; set it under routes")
		default:
			f.set(e, fields, s, &s.Default, "here", "routes", "fingerprint", "quota", "assumptions", "lifecycle")
		}
	}
	return routes
}

// set sets one field by its name.
func (f *file) set(e entry, fields []Field, s *Settings, r *Route, where string, more ...string) {
	i := slices.IndexFunc(fields, func(field Field) bool { return field.Name == e.name })
	if i >= 0 {
		f.apply(fields[i], s, r, e)
		return
	}
	var names []string
	for _, field := range fields {
		names = append(names, field.Name)
	}
	f.unknown(e, where, append(names, more...))
}

func (f *file) readRoutes(s *Settings, node ast.Node) {
	sequence, ok := node.(*ast.SequenceNode)
	if !ok {
		f.refuse(node.GetToken(), "routes is a list: begin each route with `- match: `")
		return
	}
	fields := routeFields(s.Default)
	for _, item := range sequence.Values {
		m := f.mapping(item, "the settings of a route, such as `match: POST /v1/charges`")
		if m == nil {
			continue
		}
		r := s.Default
		r.Match, r.at = "", maps.Clone(s.Default.at)
		r.tier, r.Replay, r.Remember = nil, 0, 0
		r.at["match"] = item.GetToken()
		for _, e := range f.entries(m) {
			switch e.name {
			case "match":
				if text, at, ok := f.scalar(e); ok {
					r.Match, r.at["match"] = text, at
				}
			case "fingerprint":
				f.readFingerprint(&r, e)
			case "resolve":
				f.readResolve(&r, e)
			case "quota":
				f.readQuota(&r, e)
			case "assumptions":
				f.readAssumptions(s, &r, e, false)
			default:
				f.routeSetting(e, fields, s, &r)
			}
		}
		r.retain(&s.Default)
		f.checkAssumptions(&r)
		if r.Quota != nil && r.Quota != s.Default.Quota {
			r.Quota.name = r.Match
		}
		if r.Match == "" {
			f.refuse(item.GetToken(), "this route has no match; say which requests are meant, as in `match: POST /v1/charges`")
			continue
		}
		s.Routes = append(s.Routes, r)
	}
}

func (f *file) routeSetting(e entry, fields []Field, s *Settings, r *Route) {
	if e.name == "lifecycle" || slices.ContainsFunc(Fields(), func(field Field) bool { return field.Name == e.name && !field.route }) {
		f.refuse(e.at, "%q holds for the whole gateway; set it at the top level", e.name)
		return
	}
	f.set(e, fields, s, r, "in a route", "match", "fingerprint", "resolve", "quota", "assumptions")
}

func (f *file) readFingerprint(r *Route, e entry) {
	m := f.mapping(e.value, "settings of the fingerprint, such as `json: true`")
	r.Fingerprint = Fingerprint{}
	r.at["fingerprint"] = e.at
	fields := fingerprintFields()
	for _, e := range f.entries(m) {
		f.set(e, fields, nil, r, "in a fingerprint")
	}
}

func (f *file) readResolve(r *Route, e entry) {
	m := f.mapping(e.value, "settings of the resolver, such as `path: /charges/by-key/{derived-key}`")
	r.Resolve = &gateway.Resolver{Header: make(http.Header)}
	r.at["resolve"] = e.at
	own := Route{Resolve: r.Resolve, at: make(map[string]*token.Token)}
	fields := resolveFields()
	for _, e := range f.entries(m) {
		if e.name == "headers" {
			f.readHeaders(r.Resolve.Header, e)
			own.at[e.name] = e.at
			continue
		}
		f.set(e, fields, nil, &own, "in a resolver", "headers")
	}
	for name, at := range own.at { // a route has settings of these names, too
		r.at["resolve."+name] = at
	}
}

func (f *file) readHeaders(into http.Header, e entry) {
	for _, e := range f.entries(f.mapping(e.value, "headers, such as `Accept: application/json`")) {
		name, err := parseHeader(e.name)
		if err != nil {
			f.refuse(e.at, "headers: %v", err)
			continue
		}
		if text, _, ok := f.scalar(e); ok {
			into[name] = append(into[name], text)
		}
	}
}

// check looks at the process-wide settings that have no parser of their own.
func (s *Settings) check() []error {
	var wrong []error
	for _, a := range [...]struct{ name, value string }{{"listen", s.Listen}, {"admin", s.Admin}} {
		if err := checkAddress(a.value); err != nil && (a.name == "listen" || a.value != "") {
			wrong = append(wrong, fmt.Errorf("%s: %w", a.name, err))
		}
	}
	return wrong
}

func checkAddress(address string) error {
	i := strings.LastIndexByte(address, ':')
	if i < 0 || strings.ContainsAny(address, "/ ") {
		return fmt.Errorf("%q is no address to listen at; write HOST:PORT, or :PORT for all of this machine's addresses", address)
	}
	port := address[i+1:]
	if port == "" || strings.Trim(port, "0123456789") != "" || len(port) > 5 {
		return fmt.Errorf("%q has no port; write HOST:PORT, as in 127.0.0.1:8080", address)
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return fmt.Errorf("%q has a port that cannot be: the highest is 65535", address)
	}
	return nil
}
