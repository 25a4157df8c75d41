package gateway

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httputil"
	"net/url"
	"runtime/debug"
	"slices"
	"sync/atomic"
	"time"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/lifecycle"
	"github.com/semelhq/semel/resolve"
	"github.com/semelhq/semel/semelhttp"
)

// Gateway is a reverse proxy that guards what it passes on. It is an
// http.Handler, safe for concurrent use.
type Gateway struct {
	config Config
	log    *slog.Logger
	sender *sender
	safe   map[time.Duration]*http.Transport // by silence
	routes []route
	// policies tells how each route treats requests, in their order.
	policies http.Handler
	// client asks the upstream what became of requests.
	client     *http.Client
	completing map[*semel.Guard]*resolve.Completer
	// sweeper is nil where there is nothing to sweep.
	sweeper  *lifecycle.Sweeper
	draining atomic.Bool
}

// route is a Route, composed.
type route struct {
	pattern
	policy  semel.Policy
	handler *semelhttp.Handler
	status  http.Handler
	asker   *asker // nil if there is no resolver
}

// New composes a gateway. Its errors name the route and what to set.
func New(c Config) (*Gateway, error) {
	c, err := c.filled()
	if err != nil {
		return nil, err
	}
	g := &Gateway{
		config: c,
		log:    c.Logger,
		sender: &sender{pool: newPool(c.Upstream)},
		safe:   make(map[time.Duration]*http.Transport),

		client:     newClient(),
		completing: make(map[*semel.Guard]*resolve.Completer),
	}
	buffers := new(buffers)
	var wrong []error
	var asked []*asker
	for _, r := range c.Routes {
		composed, err := g.compose(r, buffers)
		if err != nil {
			wrong = append(wrong, fmt.Errorf("gateway: route %q: %w", r.Match, err))
		}
		g.routes = append(g.routes, composed)
		if composed.asker != nil {
			asked = append(asked, composed.asker)
		}
	}
	if len(wrong) == 0 {
		g.policies = semelhttp.Policies(g.Policies(), g.Policy)
		if err := g.completers(asked); err != nil {
			wrong = append(wrong, fmt.Errorf("gateway: %w", err))
		}
		if g.sweeper, err = g.newSweeper(); err != nil {
			wrong = append(wrong, fmt.Errorf("gateway: %w", err))
		}
	}
	return g, errors.Join(wrong...)
}

func (g *Gateway) compose(r Route, buffers *buffers) (route, error) {
	p, err := parsePattern(r.Match)
	if err != nil {
		return route{}, err
	}
	if p.methods != nil {
		r.Options.Methods = p.methods
	}
	if r.Options.Policy.Name == "" {
		r.Options.Policy.Name = r.Match
	}
	if r.Options.Panicked == nil {
		r.Options.Panicked = g.panicked
	}
	rewrite := g.rewrite
	var asker *asker
	if r.Resolve != nil {
		if asker, err = g.asks(&r); err != nil {
			return route{}, err
		}
		rewrite = func(p *httputil.ProxyRequest) {
			g.rewrite(p)
			asker.passKey(p)
		}
	}
	proxy := &httputil.ReverseProxy{
		Rewrite:      rewrite,
		Transport:    g.transport(max(0, r.Silence), guardedMethods(r.Options)),
		BufferPool:   buffers,
		ErrorHandler: g.failed,
		ErrorLog:     slog.NewLogLogger(g.log.Handler(), slog.LevelDebug),
	}
	h, err := semelhttp.NewHandler(r.Guard, g.unknownIfPanics(proxy), r.Options)
	if err != nil {
		return route{}, err
	}
	return route{p, r.Options.Policy, h, h.Status(), asker}, nil
}

// unknownIfPanics makes a panic of the proxy what it is: a defect of ours after
// which nobody knows whether the upstream acted. Package semelhttp would take it
// for the outcome of the operation.
func (g *Gateway) unknownIfPanics(proxy http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			if value := recover(); value != nil {
				if value != http.ErrAbortHandler {
					g.panicked(r, value, debug.Stack())
				}
				panic(http.ErrAbortHandler)
			}
		}()
		proxy.ServeHTTP(w, r)
	})
}

func guardedMethods(o semelhttp.Options) []string {
	if len(o.Methods) == 0 {
		return []string{http.MethodPost, http.MethodPatch}
	}
	return o.Methods
}

// ServeHTTP is part of http.Handler.
func (g *Gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodConnect {
		http.Error(w, "the gateway opens no tunnels", http.StatusMethodNotAllowed)
		return
	}
	if r.Method == "PRI" { // net/http hands on the preface of HTTP/2 (RFC 9113, section 3.4) as a request
		http.Error(w, "the gateway speaks HTTP/1.1 here", http.StatusHTTPVersionNotSupported)
		return
	}
	path := cleaned(r.URL.Path)
	switch path {
	case g.config.StatusPath:
		g.status(w, r)
		return
	case g.config.PolicyPath:
		g.policies.ServeHTTP(w, r)
		return
	}
	g.route(r.Method, path).handler.ServeHTTP(w, r)
}

// route gives the first that matches, and there is one: the last matches all.
func (g *Gateway) route(method, path string) *route {
	for i := range g.routes {
		if g.routes[i].matches(method, path) {
			return &g.routes[i]
		}
	}
	return &g.routes[len(g.routes)-1]
}

// Policies gives what the gateway tells clients of each route, in their order.
func (g *Gateway) Policies() []semelhttp.PolicyDocument {
	all := make([]semelhttp.PolicyDocument, len(g.routes))
	for i := range g.routes {
		all[i] = g.routes[i].handler.Document()
	}
	return all
}

// Policy gives the index in Policies of the route that a request with this method
// and escaped path takes, or -1 if it passes there unguarded.
func (g *Gateway) Policy(method, path string) int {
	decoded, err := url.PathUnescape(path)
	if err != nil {
		return -1
	}
	r := g.route(method, cleaned(decoded))
	if !slices.Contains(r.handler.Document().Methods, method) {
		return -1
	}
	return slices.IndexFunc(g.routes, func(other route) bool { return other.handler == r.handler })
}

// status answers for the route that the operation's own request took. Where the
// query does not tell which, that of any says what is missing.
func (g *Gateway) status(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	path, err := url.PathUnescape(query.Get("path"))
	if err != nil {
		path = "/"
	}
	g.route(query.Get("method"), cleaned(path)).status.ServeHTTP(w, r)
}

// rewrite aims a request at the upstream.
func (g *Gateway) rewrite(p *httputil.ProxyRequest) {
	p.SetURL(g.config.Upstream)
	p.Out.URL.RawQuery = p.In.URL.RawQuery // as it is, also what net/url cannot parse
	p.Out.Host = p.In.Host
	if g.config.UpstreamHost != "" {
		p.Out.Host = g.config.UpstreamHost
	}
	if !g.config.TrustForwarded {
		p.SetXForwarded()
		return
	}
	p.Out.Header["X-Forwarded-For"] = p.In.Header["X-Forwarded-For"]
	p.SetXForwarded()
	for _, name := range [...]string{"X-Forwarded-Host", "X-Forwarded-Proto", "Forwarded"} {
		if lines := p.In.Header[name]; len(lines) > 0 {
			p.Out.Header[name] = slices.Clone(lines)
		}
	}
}
