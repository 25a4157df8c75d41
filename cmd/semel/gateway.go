package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/cmd/internal/config"
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
	log, text := newLogger(stderr, s.LogLevel, s.LogFormat)
	secret, err := readSecret(s.SecretFile, log)
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
	composed.Logger = log
	options := semel.Options{Secret: secret, Observe: gateway.Observe(log)}
	if composed.Guard, err = semel.NewGuard(store, options); err != nil {
		return err
	}
	if err := s.SetQuotas(&composed, composed.Guard); err != nil {
		return usageError{err}
	}
	if err := failOpen(&s, store, &composed, options, log); err != nil {
		return err
	}
	g, err := gateway.New(composed)
	if err != nil {
		return usageError{err}
	}
	adminAddress := ""
	if admin != nil {
		adminAddress = admin.Addr().String()
	}
	announce(stderr, log, text, &s, store, public.Addr().String(), adminAddress)
	ctx, stop := untilSignal(log, s.Drain)
	defer stop()
	if err := g.Serve(ctx, public, admin); err != nil {
		return err
	}
	log.Info("stopped; everything that was accepted is finished")
	return store.Close()
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
		fmt.Fprintf(stderr, "semel gateway: listening on %s\n%s", reachable(address), describe(s, store, address, admin))
		return
	}
	log.Info("listening", "address", address, "upstream", s.Upstream, "store", store.URL, "store_gives", store.Durability,
		"survives", store.Survives.String(), "caches", store.Caches, "journal", store.Journal, "class", s.Default.Class.String(), "scope", s.Default.Scope.String(), "routes", len(s.Routes), "admin", admin)
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
		line("admin", "http://%s/healthz and /readyz", admin)
	}
	return b.String()
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

// reachable gives an address as a URL that works from this machine.
func reachable(address string) string {
	host, port, err := net.SplitHostPort(address)
	if ip := net.ParseIP(host); err == nil && ip != nil && ip.IsUnspecified() {
		return "http://localhost:" + port + " (all addresses of this machine)"
	}
	return "http://" + address
}

// newLogger gives the logger, and whether it writes for people.
func newLogger(w io.Writer, level, format string) (log *slog.Logger, text bool) {
	var l slog.Level
	_ = l.UnmarshalText([]byte(level)) // checked when it was read
	options := &slog.HandlerOptions{Level: l}
	if text = format == "text" || format == "auto" && isTerminal(w); text {
		return slog.New(slog.NewTextHandler(w, options)), true
	}
	return slog.New(slog.NewJSONHandler(w, options)), false
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// leastSecret is how many bytes of a secret cannot be guessed.
const leastSecret = 16

func readSecret(path string, log *slog.Logger) ([]byte, error) {
	if path == "" {
		return nil, nil
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("the secret file cannot be read, and without it every key would be a new one: %w", err)
	}
	if data = bytes.TrimRight(data, "\r\n"); len(data) < leastSecret {
		return nil, fmt.Errorf("the secret in %s has %d bytes; at least %d are needed: make one with `head -c 32 /dev/urandom | base64 > %[1]s`", path, len(data), leastSecret)
	}
	if info, err := os.Stat(path); err == nil && info.Mode().Perm()&0o004 != 0 {
		log.Warn("every user of this machine can read the secret file; restrict it, as with chmod 600", "file", path)
	}
	return data, nil
}

// listenAll opens the listeners. admin is nil if there is none.
func listenAll(s *config.Settings) (public, admin net.Listener, err error) {
	if public, err = listen(s.Listen, "--listen"); err != nil || s.Admin == "" {
		return public, nil, err
	}
	if admin, err = listen(s.Admin, "--admin"); err != nil {
		_ = public.Close()
	}
	return public, admin, err
}

func listen(address, flag string) (net.Listener, error) {
	l, err := net.Listen("tcp", address)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("cannot listen on %s: another program does already, perhaps another gateway: stop it, or take another port with %s", address, flag)
	case errors.Is(err, syscall.EACCES):
		return nil, fmt.Errorf("cannot listen on %s: this user may not; ports below 1024 need privileges, so take a higher one with %s", address, flag)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return nil, fmt.Errorf("cannot listen on %s: this machine does not have that address; take another with %s, or :PORT for all", address, flag)
	case err != nil:
		return nil, fmt.Errorf("cannot listen on %s (%s): %w", address, flag, err)
	}
	return l, nil
}

// untilSignal gives a context that ends at the first SIGINT or SIGTERM. The
// second ends the process at once.
func untilSignal(log *slog.Logger, drain time.Duration) (context.Context, func()) {
	ctx, cancel := context.WithCancel(context.Background())
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		select {
		case <-signals:
		case <-ctx.Done():
			return
		}
		log.Info("stopping: running requests are finished first; a second signal stops at once", "at_most", drain.String())
		cancel()
		<-signals
		log.Error("stopped at once; the keys of requests that were running are in doubt when their leases end")
		os.Exit(exitFailed)
	}()
	return ctx, func() {
		signal.Stop(signals)
		cancel()
	}
}
