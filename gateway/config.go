package gateway

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/lifecycle"
	"github.com/semelhq/semel/semelhttp"
)

// Config are a gateway's settings.
type Config struct {
	// Upstream is the service behind the gateway: scheme (http or https), host and,
	// if all its paths have one, a prefix. Required.
	Upstream *url.URL
	// UpstreamHost is the Host header that the upstream gets. Default: the client's
	// own, so that the links which the upstream makes are right.
	UpstreamHost string
	// Guard remembers. Required. Serve closes it, and not its store.
	Guard *semel.Guard
	// Routes are tried in order; the first that matches is taken. The last must
	// match every request, so that none passes unnoticed. Required.
	Routes []Route
	// TrustForwarded keeps the X-Forwarded-For, -Host and -Proto that a request
	// comes with: for a gateway that only trusted proxies can reach. Default: they
	// are replaced.
	TrustForwarded bool
	// StatusPath is where the gateway itself tells clients what is known of their
	// keys, see semelhttp.Handler.Status; answers that leave something open link to
	// it. The upstream's own path of that name is hidden. Default
	// /.well-known/semel/status; "none" for nowhere.
	StatusPath string
	// PolicyPath is where the gateway tells clients how their requests are treated, see
	// semelhttp.Policies; refusals link to it. The upstream's own path of that name is
	// hidden. It tells the matches of all routes. Default /.well-known/semel/policy;
	// "none" for nowhere.
	PolicyPath string
	// Lifecycle says how Serve keeps the store of Guard small: gateways that share it
	// take turns. Policies is set to those of the routes. Growth is measured by
	// default where the store is a semel.Measurer and a semel.Sweeper: others, such as
	// Redis, have to be walked through for it. Default: see lifecycle.Options.
	Lifecycle lifecycle.Options
	// Metrics is served by the admin listener at /metrics. Default: nothing is.
	Metrics http.Handler
	// Drain is how long Serve waits for running requests when it is told to stop.
	// Default 30 s.
	Drain time.Duration
	// Logger is told of what goes wrong; neither keys nor bodies nor credentials go
	// to it. Default slog.Default().
	Logger *slog.Logger
}

// Route says how the requests that it matches are treated.
type Route struct {
	// Match is a path, or methods and a path: "/v1/*", "POST /v1/charges",
	// "POST,PUT /v1/charges/*/refund". A * stands for one part of the path, and at
	// the end for everything that follows; "*" alone is every path. Paths are
	// compared decoded and without empty parts. Methods that are named here are the
	// ones that are guarded, in place of Options.Methods.
	Match string
	// Options are the route's settings for semelhttp; HoldFlush is always set.
	Options semelhttp.Options
	// Resolve says how to ask the upstream what became of a request whose outcome is
	// unknown. It needs the class AtMostOnce, and a Match that no other route has.
	// Default: people find out.
	Resolve *Resolver
	// Guard is for a route whose store is another one than Config.Guard's, such as
	// one that goes on while the database is away. Serve closes it. Default
	// Config.Guard.
	Guard *semel.Guard
	// Silence is how long the upstream may say nothing before it is given up: until
	// its answer begins and, except for safe methods, between any two pieces of it.
	// Event streams may be silent for ever. A request that was given up has an
	// unknown outcome. Default 60 s; negative is for ever.
	Silence time.Duration
}

// defaultSilence is Route.Silence where it is not set.
const defaultSilence = 60 * time.Second

const (
	defaultStatusPath = "/.well-known/semel/status"
	defaultPolicyPath = "/.well-known/semel/policy"
	nowhere           = "none"
)

func (c Config) filled() (Config, error) {
	if c.Drain == 0 {
		c.Drain = 30 * time.Second
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	if c.StatusPath == "" {
		c.StatusPath = defaultStatusPath
	}
	if c.PolicyPath == "" {
		c.PolicyPath = defaultPolicyPath
	}
	var wrong []error
	if c.PolicyPath == c.StatusPath && c.PolicyPath != nowhere {
		wrong = append(wrong, fmt.Errorf("gateway: StatusPath and PolicyPath are both %s; give them paths of their own", c.PolicyPath))
	}
	if c.Guard == nil {
		wrong = append(wrong, errors.New("gateway: Config.Guard is required"))
	}
	if err := CheckUpstream(c.Upstream); err != nil {
		wrong = append(wrong, fmt.Errorf("gateway: %w", err))
	}
	if c.Drain < 0 {
		wrong = append(wrong, fmt.Errorf("gateway: Drain %v is negative", c.Drain))
	}
	if n := len(c.Routes); n == 0 || !catchesAll(c.Routes[n-1].Match) {
		wrong = append(wrong, errors.New(`gateway: the last route must match every request: give it the match "*"`))
	}
	c.Routes = slices.Clone(c.Routes)
	for i := range c.Routes {
		r := &c.Routes[i]
		if r.Silence == 0 {
			r.Silence = defaultSilence
		}
		if r.Guard == nil {
			r.Guard = c.Guard
		}
		r.Options.HoldFlush = true
		if c.StatusPath != nowhere {
			r.Options.StatusPath = c.StatusPath
		}
		if c.PolicyPath != nowhere {
			r.Options.PolicyPath = c.PolicyPath
		}
	}
	return c, errors.Join(wrong...)
}

func catchesAll(match string) bool { return match == "*" || match == "/*" }

// CheckUpstream tells what is wrong with the address of an upstream.
func CheckUpstream(u *url.URL) error {
	switch {
	case u == nil:
		return errors.New("an upstream is required, such as http://127.0.0.1:3000")
	case u.Scheme != "http" && u.Scheme != "https":
		return fmt.Errorf("the upstream %q must begin with http:// or https://", u.Redacted())
	case u.Hostname() == "":
		return fmt.Errorf("the upstream %q names no host; write it as http://127.0.0.1:3000", u.Redacted())
	case u.User != nil:
		return fmt.Errorf("the upstream %q contains credentials, which are not sent; let the clients send them", u.Redacted())
	case u.RawQuery != "" || u.Fragment != "":
		return fmt.Errorf("the upstream %q must end with its path: a query or a fragment cannot stand before every request's own", u.Redacted())
	}
	return nil
}
