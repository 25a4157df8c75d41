package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/cmd/internal/config"
	"github.com/semelhq/semel/cmd/internal/serving"
	"github.com/semelhq/semel/cmd/internal/stores"
	"github.com/semelhq/semel/gateway"
	"github.com/semelhq/semel/lifecycle"
	"github.com/semelhq/semel/store/available"
)

const gatewayFooter = `
Each flag of the first two groups is also a variable, as SEMEL_LOG_LEVEL, and a
setting in the file, as log-level: debug. Flags win over variables, those over the
file. SIGTERM and Ctrl-C let running requests end first. Exit codes: 0 stopped as
told, 1 it could not go on, 2 the settings are wrong.
`

func gatewayCommand() *cobra.Command {
	var file string
	var validate bool
	c := &cobra.Command{
		Use:   "gateway --upstream URL [flags]",
		Short: "put it in front of an HTTP service",
		Long: `Put idempotency in front of an HTTP service, which needs no change.

Clients send POST and PATCH with an Idempotency-Key header that is new for each
operation and the same for each retry. The gateway passes the first on to the
service and stores its answer; every repetition gets that answer again. The same
key with another body is refused (422), and if the service broke off so that
nobody knows whether it acted, the client is told so (409). Other requests, and
those without a key, pass as they are.`,
		Example: `  semel gateway --upstream http://127.0.0.1:3000
  curl -i localhost:8080/orders -H 'Authorization: me' -H 'Idempotency-Key: 1' -d 'x'
  semel list`,
		Args: checked(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			settings, err := loadSettings(c, file)
			if err != nil {
				return err
			}
			return gatewayRun(c, settings, validate)
		},
	}
	c.DisableFlagsInUseLine = true
	flags := c.Flags()
	for i, f := range config.Fields() {
		group := "Guarded requests"
		if !f.Route() {
			group = "Gateway"
		}
		addField(flags, f, group)
		if i == 0 {
			flags.StringVar(&file, "config", "", "YAML `FILE` with these settings, and with routes")
			mark(flags, "config", group)
		}
	}
	flags.BoolVar(&validate, "validate", false, "check the settings, print what they come to, and stop")
	flags.BoolP("help", "h", false, "show this")
	mark(flags, "validate", "Other")
	mark(flags, "help", "Other")
	c.Annotations = map[string]string{footerKey: gatewayFooter}
	return c
}

func addField(flags *pflag.FlagSet, f config.Field, group string) {
	if f.Value == "" {
		flags.Bool(f.Name, false, f.Help)
	} else {
		flags.String(f.Name, f.Default, f.Help)
		_ = flags.SetAnnotation(f.Name, valueKey, []string{f.Value})
	}
	mark(flags, f.Name, group)
}

// mark puts a flag under a heading. The flag exists, so there is no error.
func mark(flags *pflag.FlagSet, name, group string) {
	_ = flags.SetAnnotation(name, groupKey, []string{group})
}

// loadSettings merges flags, variables and the file.
func loadSettings(c *cobra.Command, file string) (config.Settings, error) {
	given := make(map[string]string)
	c.Flags().Visit(func(f *pflag.Flag) { given[f.Name] = f.Value.String() })
	if file == "" {
		file = os.Getenv("SEMEL_CONFIG")
	}
	settings, err := config.Load(config.Sources{File: file, Flags: given})
	if err != nil {
		return settings, usageError{err}
	}
	return settings, nil
}

// gatewayRun starts the gateway and serves until it is told to stop.
func gatewayRun(c *cobra.Command, s config.Settings, validate bool) error {
	composed, err := s.Gateway()
	if err = errors.Join(err, stores.Check(s.Store, stores.Options{Cache: s.Cache})); err != nil {
		return usageError{err}
	}
	if validate {
		if err := judge(&s, lifecycle.StoreFacts{}, nil); err != nil {
			return err
		}
		_, err := fmt.Fprintf(c.OutOrStdout(), "The settings are valid.\n%s", describe(&s, nil, s.Listen, s.Admin))
		return err
	}
	stderr := c.ErrOrStderr()
	log, text := serving.Logger(stderr, s.LogLevel, s.LogFormat)
	secret, err := serving.Secret(s.SecretFile, log)
	if err != nil {
		return err
	}
	public, admin, err := listenAll(&s)
	if err != nil {
		return err
	}
	defer public.Close()
	store, err := openStore(c.Context(), s.Store, s.Cache)
	if err != nil {
		return err
	}
	defer store.Close()
	if err := judge(&s, storeFacts(store), log); err != nil {
		return err
	}
	g, err := compose(&s, &composed, store, secret, log)
	if err != nil {
		return err
	}
	adminAddress := ""
	if admin != nil {
		adminAddress = admin.Addr().String()
	}
	announce(stderr, log, text, &s, store, public.Addr().String(), adminAddress)
	ctx, stop := serving.UntilSignal(log, s.Drain)
	defer stop()
	if err := g.Serve(ctx, public, admin); err != nil {
		return err
	}
	log.Info("stopped; everything that was accepted is finished")
	return store.Close()
}

// compose makes the gateway of its parts.
func compose(s *config.Settings, composed *gateway.Config, store *stores.Opened, secret []byte, log *slog.Logger) (*gateway.Gateway, error) {
	composed.Logger = log
	options := semel.Options{Secret: secret, Observe: gateway.Observe(log)}
	metrics, err := measured(s, composed, &options)
	if err != nil {
		return nil, err
	}
	if composed.Guard, err = semel.NewGuard(store, options); err != nil {
		return nil, err
	}
	if err := errors.Join(s.SetQuotas(composed, composed.Guard), s.SetLifecycle(composed, composed.Guard)); err != nil {
		return nil, usageError{err}
	}
	if metrics != nil {
		composed.Lifecycle.Observe = metrics.Sweeper
	}
	if err := failOpen(s, store, composed, options, log); err != nil {
		return nil, err
	}
	g, err := gateway.New(*composed)
	switch {
	case err != nil:
		return nil, usageError{err}
	case metrics != nil:
		err = metrics.Growth(g.Growth, s.Lifecycle.Growth)
	}
	return g, err
}

// measured has everything counted, if somebody can look at it: nil if there is no
// admin listener.
func measured(s *config.Settings, composed *gateway.Config, options *semel.Options) (*serving.Metrics, error) {
	if s.Admin == "" {
		return nil, nil
	}
	m, err := serving.NewMetrics()
	if err != nil {
		return nil, err
	}
	composed.Metrics = m.Handler()
	logged := options.Observe
	options.Observe = func(e semel.Event) {
		logged(e)
		m.Guard(e)
	}
	return m, nil
}

// failOpen gives the routes that go on without the store a guard that does.
func failOpen(s *config.Settings, store *stores.Opened, composed *gateway.Config, options semel.Options, log *slog.Logger) error {
	var open *semel.Guard
	for i, r := range append(slices.Clone(s.Routes), s.Default) {
		if !r.FailOpen {
			continue
		}
		if open == nil {
			free, err := store.FailOpen(func(c available.Conflict) {
				log.Error("this operation ran twice: here, while the store could not be reached, and elsewhere; the other answer stands",
					"key_digest", c.Main.Digest.String(), "here", c.Local.Owner, "elsewhere", c.Main.Owner)
			})
			if err != nil {
				return err
			}
			if open, err = semel.NewGuard(free, options); err != nil {
				return err
			}
		}
		composed.Routes[i].Guard = open
	}
	return nil
}

// announce says what was started: to people as a few lines, to a program as one
// line of JSON.
func announce(stderr io.Writer, log *slog.Logger, text bool, s *config.Settings, store *stores.Opened, address, admin string) {
	if text {
		fmt.Fprintf(stderr, "semel gateway: listening on %s\n%s", serving.Reachable(address), describe(s, store, address, admin))
		return
	}
	log.Info("listening", "address", address, "upstream", s.Upstream, "store", store.URL, "store_gives", store.Durability,
		"survives", store.Survives.String(), "caches", store.Caches, "journal", store.Journal, "journal_kept", s.Lifecycle.Journal.String(), "archive", s.Lifecycle.Archive, "sweeps", can[semel.Sweeper](store),
		"replay", s.Default.Replay.String(), "remember", s.Default.Remember.String(), "class", s.Default.Class.String(), "scope", s.Default.Scope.String(), "routes", len(s.Routes), "admin", admin)
	for _, caution := range store.Cautions {
		log.Warn("the store: " + caution)
	}
	if !store.Journal {
		log.Warn("this store keeps no journal: semel get cannot show what happened to a key")
	}
}

// describe gives the settings that matter, a line each.
func describe(s *config.Settings, store *stores.Opened, address, admin string) string {
	var b strings.Builder
	line := func(name, format string, args ...any) {
		fmt.Fprintf(&b, "  %-9s %s\n", name, fmt.Sprintf(format, args...))
	}
	line("upstream", "%s", s.Upstream)
	line("store", "%s", stores.Redacted(s.Store))
	if store != nil {
		describeStore(line, store)
	}
	describeKept(line, s, store)
	line("class", "%s", classInWords(s.Default.Class))
	if s.Default.Scope.Shared {
		line("scope", "shared: all clients are taken for one")
	} else {
		line("scope", "keys belong to whoever sends the same %s header", strings.Join(s.Default.Scope.Headers, " and "))
	}
	switch {
	case s.Default.Require:
		line("keys", "required: POST and PATCH without one are refused")
	case s.Default.DeriveKey:
		line("keys", "derived from the content where a client sends none")
	default:
		line("keys", "optional: POST and PATCH without one pass unguarded")
	}
	if s.Default.FailOpen {
		line("", "fail open: while the store is away requests go on, flagged; two gateways may both run one")
	}
	if s.Default.Quota != nil {
		line("quota", "%s", s.Default.Quota)
	}
	if len(s.Routes) > 0 {
		line("routes", "%d from %s, tried in order before the above", len(s.Routes), s.Source)
	}
	asked := 0
	for _, r := range s.Routes {
		if r.Resolve != nil {
			asked++
		}
	}
	if asked > 0 {
		line("unknown", "%d of the routes ask the upstream what became of a request; for the others a person looks", asked)
	}
	if admin != "" {
		line("admin", "http://%s/healthz, /readyz and /metrics", admin)
	}
	return b.String()
}

// describeKept says how long what is kept, who forgets it, and what nobody does.
// store is nil where it was not opened.
func describeKept(line func(name, format string, args ...any), s *config.Settings, store *stores.Opened) {
	own := ""
	if n := s.OwnRetentions(); n > 0 {
		own = fmt.Sprintf("; %d of the routes have times of their own", n)
	}
	line("keeps", "answers for %s, keys for %s%s", span(s.Default.Replay), span(s.Default.Remember), own)
	l := &s.Lifecycle
	switch {
	case l.Journal > 0 && l.Archive != "":
		line("", "the journal for %s by whole days, and then in %s", span(l.Journal), l.Archive)
	case l.Journal > 0:
		line("", "the journal for %s by whole days, and then nowhere: set archive to keep it", span(l.Journal))
	case store == nil || can[semel.Days](store):
		line("", "the journal for ever: set journal under lifecycle, or it grows without end")
	}
	if store != nil && !can[semel.Sweeper](store) {
		line("sweeps", "nothing: records end by themselves in this store")
	} else {
		line("sweeps", "every %s, in at most %.3g %% of the time, in turns with other gateways", span(cmp.Or(l.Every, time.Minute)), 100*cmp.Or(l.Share, 0.1))
	}
	switch {
	case l.Growth < 0:
		line("", "growth is not measured")
	case l.Growth == 0 && store != nil && !(can[semel.Measurer](store) && can[semel.Sweeper](store)):
		line("", "growth is not measured: this store would have to be walked through; set growth")
	}
}

// can tells whether a store has an ability.
func can[T any](store *stores.Opened) bool {
	_, ok := semel.As[T](store.Store)
	return ok
}

// describeStore says what the store gives, and what to look at.
func describeStore(line func(name, format string, args ...any), store *stores.Opened) {
	line("", "%s", store.Durability)
	for _, caution := range store.Cautions {
		line("", "caution: %s", caution)
	}
	if !store.Journal {
		line("", "no journal: what happened to a key cannot be looked up later")
	}
	if len(store.Caches) > 0 {
		line("cache", "%s: finished answers, copied; the store alone decides", strings.Join(store.Caches, ", then "))
	}
}

func classInWords(c semel.Class) string {
	switch c {
	case semel.AtMostOnce:
		return "at-most-once: what may have run is never run again"
	case semel.AtLeastOnce:
		return "at-least-once: after a crash the next copy runs, so it may run twice"
	case semel.Fenced:
		return "fenced: after a crash the next copy runs; the upstream knows the key"
	}
	return c.String()
}

// listenAll opens the listeners. admin is nil if there is none.
func listenAll(s *config.Settings) (public, admin net.Listener, err error) {
	if public, err = serving.Listen(s.Listen, "--listen"); err != nil || s.Admin == "" {
		return public, nil, err
	}
	if admin, err = serving.Listen(s.Admin, "--admin"); err != nil {
		_ = public.Close()
	}
	return public, admin, err
}
