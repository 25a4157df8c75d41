package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/semelhq/semel/cmd/internal/serving"
	"github.com/semelhq/semel/cmd/internal/stores"
	"github.com/semelhq/semel/store/remote"
)

type shareOptions struct {
	store, listen, tokenFile, cert, key, clientCA string
}

func shareCommand() *cobra.Command {
	var o shareOptions
	c := &cobra.Command{
		Use:   "share --store URL --listen ADDRESS --token-file FILE [flags]",
		Short: "let gateways on other machines use a store of this one",
		Long: `Serve a store over HTTP, so that gateways elsewhere can use it: start them with
--store semel://HOST:PORT and the token in SEMEL_STORE_TOKEN. Who has the token can
read and write every record, so it travels over TLS; without a certificate only
this machine's own addresses are served, and gateways write semel+http://127.0.0.1.`,
		Example: `  openssl rand -hex 32 > token
  semel share --store sqlite:semel.db --listen :7443 --token-file token \
    --tls-cert cert.pem --tls-key key.pem
  SEMEL_STORE_TOKEN=$(cat token) semel gateway --upstream http://127.0.0.1:3000 \
    --store semel://store.example:7443`,
		Args: checked(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error { return o.run(c) },
	}
	flags := c.Flags()
	addStore(flags, &o.store)
	flags.StringVar(&o.listen, "listen", "127.0.0.1:7443", "`ADDRESS` to serve at")
	flags.StringVar(&o.tokenFile, "token-file", "", "`FILE` with the tokens that are accepted, one per line")
	flags.StringVar(&o.cert, "tls-cert", "", "`FILE` with the certificate, in PEM")
	flags.StringVar(&o.key, "tls-key", "", "`FILE` with its private key, in PEM")
	flags.StringVar(&o.clientCA, "tls-client-ca", "", "`FILE` with the authority that must have signed the clients' certificates")
	flags.BoolP("help", "h", false, "show this")
	c.DisableFlagsInUseLine = true
	return c
}

// check refuses what would give the store away.
func (o *shareOptions) check() error {
	host, _, err := net.SplitHostPort(o.listen)
	ip := net.ParseIP(host)
	switch {
	case err != nil:
		return fmt.Errorf("--listen %s is no address to listen at; write HOST:PORT", quote(o.listen))
	case (o.cert == "") != (o.key == ""):
		return errors.New("--tls-cert and --tls-key belong together")
	case o.cert == "" && host != "localhost" && (ip == nil || !ip.IsLoopback()):
		return fmt.Errorf("--listen %s can be reached from elsewhere, and a token must not travel in the clear: add --tls-cert and --tls-key, or listen at 127.0.0.1", o.listen)
	case o.clientCA != "" && o.cert == "":
		return errors.New("--tls-client-ca needs --tls-cert and --tls-key")
	case o.tokenFile == "" && o.clientCA == "":
		return errors.New("who may use the store? give --token-file, made with `openssl rand -hex 32`, or --tls-client-ca")
	}
	return nil
}

// tokens reads the file of tokens.
func (o *shareOptions) tokens() ([]string, error) {
	if o.tokenFile == "" {
		return nil, nil
	}
	text, err := os.ReadFile(o.tokenFile)
	if err != nil {
		return nil, fmt.Errorf("the token file cannot be read: %w", err)
	}
	tokens := strings.Fields(string(text))
	if len(tokens) == 0 {
		return nil, fmt.Errorf("the token file %s holds no token; make one with `openssl rand -hex 32 > %[1]s`", o.tokenFile)
	}
	return tokens, nil
}

// tls gives the listener's settings, nil for none.
func (o *shareOptions) tls() (*tls.Config, error) {
	if o.cert == "" {
		return nil, nil
	}
	pair, err := tls.LoadX509KeyPair(o.cert, o.key)
	if err != nil {
		return nil, fmt.Errorf("the certificate cannot be used: %w", err)
	}
	config := &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}
	if o.clientCA == "" {
		return config, nil
	}
	pem, err := os.ReadFile(o.clientCA)
	if err != nil {
		return nil, err
	}
	config.ClientCAs, config.ClientAuth = x509.NewCertPool(), tls.RequireAndVerifyClientCert
	if !config.ClientCAs.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s has no certificate in PEM", o.clientCA)
	}
	return config, nil
}

func (o *shareOptions) run(c *cobra.Command) error {
	if err := errors.Join(o.check(), stores.Check(o.store, stores.Options{Cache: "none"})); err != nil {
		return usageError{err}
	}
	tokens, err := o.tokens()
	if err != nil {
		return err
	}
	secure, err := o.tls()
	if err != nil {
		return err
	}
	listener, err := serving.Listen(o.listen, "--listen")
	if err != nil {
		return err
	}
	defer listener.Close()
	store, err := openStore(c.Context(), o.store, "none")
	if err != nil {
		return err
	}
	defer store.Close()
	handler, err := remote.NewHandler(store.Store, remote.HandlerOptions{Tokens: tokens, MutualTLS: o.clientCA != ""})
	if err != nil {
		return err
	}
	stderr := c.ErrOrStderr()
	log, _ := serving.Logger(stderr, "info", "auto")
	scheme := "semel"
	if secure == nil {
		scheme = "semel+http"
	} else {
		listener = tls.NewListener(listener, secure)
	}
	fmt.Fprintf(stderr, "semel share: for gateways with --store %s://%s\n", scheme, listener.Addr())
	describeStore(func(name, format string, args ...any) {
		fmt.Fprintf(stderr, "  %-9s %s\n", name, fmt.Sprintf(format, args...))
	}, store)
	ctx, stop := serving.UntilSignal(log, shareDrain)
	defer stop()
	return errors.Join(serveStore(ctx, listener, handler), store.Close())
}

// shareDrain is how long calls under way may take after the stop.
const shareDrain = 10 * time.Second

// serveStore serves until ctx ends, and lets calls under way end.
func serveStore(ctx context.Context, listener net.Listener, handler *remote.Handler) error {
	server := &http.Server{Handler: handler, ReadHeaderTimeout: shareDrain, IdleTimeout: 2 * time.Minute}
	server.RegisterOnShutdown(handler.Close)
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(listener) }()
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), shareDrain)
	defer cancel()
	return server.Shutdown(limit)
}
