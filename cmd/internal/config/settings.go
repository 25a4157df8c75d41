package config

import (
	"time"

	"github.com/goccy/go-yaml/token"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/gateway"
	"github.com/semelhq/semel/lifecycle"
)

// Settings is all that `semel gateway` can be told.
type Settings struct {
	Upstream       string
	UpstreamHost   string
	Listen         string
	Admin          string // empty: no admin listener
	Store          string
	Cache          string // caches in front of the store, nearest first; empty for the store's own default
	SecretFile     string
	LogLevel       string
	LogFormat      string
	TrustForwarded bool
	StatusPath     string // none: there is no status endpoint
	PolicyPath     string // none: clients cannot ask for policies
	Drain          time.Duration
	// Default holds for requests that no route matches, and for what a route leaves
	// out.
	Default Route
	Routes  []Route
	// StoreTraits and StoreSurvives are what the file says of the store, besides what
	// the store says of itself; nil: nothing.
	StoreTraits   []semel.Trait
	StoreSurvives *semel.Survival
	// Lifecycle says how the store is kept small.
	Lifecycle Lifecycle
	// Source is the file that was read; empty if none.
	Source string
	file   *file
}

// Route holds the settings of one route.
type Route struct {
	Match       string
	Class       semel.Class
	Scope       Scope
	Require     bool
	DeriveKey   bool
	FailOpen    bool
	Lease       time.Duration
	Wait        time.Duration // 0: duplicates do not wait
	Replay      time.Duration
	Remember    time.Duration
	Timeout     time.Duration // 0: the upstream may be silent for ever
	MaxBody     int64
	MaxResult   int64
	MaxInFlight int
	KeepHeaders []string
	NotDone     []int
	Fingerprint Fingerprint
	Resolve     *gateway.Resolver // nil if there is none
	Quota       *Quota            // nil if there is none; routes that take it from the top have the same
	Assumptions lifecycle.Assumptions

	tier *lifecycle.Tier         // of this level; nil if it names none
	at   map[string]*token.Token // where a value was set, by name
}

// Fingerprint says what of a request must be equal for it to be the same.
type Fingerprint struct {
	JSON          bool
	Include       []string
	Exclude       []string
	Form          bool
	ContentDigest bool
	Headers       []string
}

// Scope says whose a request is.
type Scope struct {
	Shared  bool
	Headers []string
}

// String gives the scope as it is written in settings.
func (s Scope) String() string {
	if s.Shared {
		return "shared"
	}
	text := "header:"
	for i, name := range s.Headers {
		if i > 0 {
			text += ","
		}
		text += name
	}
	return text
}

// Defaults gives the settings where nobody says anything.
func Defaults() Settings {
	return Settings{
		Listen: ":8080", Store: "sqlite:semel.db", LogLevel: "info", LogFormat: "auto", Drain: 30 * time.Second, StatusPath: "/.well-known/semel/status", PolicyPath: "/.well-known/semel/policy",
		Default: Route{
			Match: "*", Scope: Scope{Headers: []string{"Authorization"}},
			Lease: 30 * time.Second, Wait: 10 * time.Second, Replay: 24 * time.Hour, Remember: 72 * time.Hour,
			Timeout: time.Minute, MaxBody: 1 << 20, MaxResult: 1 << 20, MaxInFlight: 10_000, NotDone: []int{425, 429},
		},
	}
}
