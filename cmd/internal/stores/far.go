package stores

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"os"
	"slices"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/adapter/etcd"
	"github.com/semelhq/semel/adapter/mysql"
	"github.com/semelhq/semel/adapter/postgres"
	"github.com/semelhq/semel/adapter/redis"
	"github.com/semelhq/semel/store/remote"
)

// farKinds are the stores that are over a network.
func farKinds() map[string]kind {
	return map[string]kind{
		"semel": {
			form: "semel://HOST", gives: "another process' store, as `semel share` gives it", far: true,
			open: openRemote,
		},
		"postgres": {
			form: "postgres://USER@HOST/DATABASE", gives: "durable, shared by many gateways", far: true,
			open: func(ctx context.Context, url string, _ Options) (semel.Store, error) {
				return postgres.Open(ctx, url, postgres.Options{})
			},
			migrate:    func(ctx context.Context, url string) error { return postgres.Migrate(ctx, url, postgres.Options{}) },
			migrations: postgres.Migrations,
		},
		"mysql": {
			form: "mysql://USER@HOST/DATABASE", gives: "durable, shared by many gateways; MariaDB, too", far: true,
			open: func(ctx context.Context, url string, _ Options) (semel.Store, error) {
				return mysql.Open(ctx, url, mysql.Options{})
			},
			migrate:    mysql.Migrate,
			migrations: mysql.Migrations,
		},
		"etcd": {
			form: "etcd://HOST,HOST,HOST", gives: "consensus: survives the loss of a member", far: true,
			open: func(ctx context.Context, url string, _ Options) (semel.Store, error) {
				return etcd.Open(ctx, url, etcd.Options{})
			},
			read: func(ctx context.Context, url string, _ Options) (semel.Store, error) {
				return etcd.Open(ctx, url, etcd.Options{ReadOnly: true})
			},
		},
		"redis": {
			form: "redis://HOST", gives: "fast; what Redis was told to keep", far: true,
			open: func(ctx context.Context, url string, _ Options) (semel.Store, error) {
				return redis.Open(ctx, url, redis.Options{})
			},
		},
	}
}

// openRemote opens a store of another process. With ca=, cert= and key= in its
// query the URL names files in PEM: who signs for the server, and what this
// process answers for itself with.
func openRemote(ctx context.Context, text string, o Options) (semel.Store, error) {
	u, err := url.Parse(text)
	if err != nil {
		var reason *url.Error // which repeats the text, whatever is in it
		if errors.As(err, &reason) {
			err = reason.Err
		}
		return nil, UsageError{fmt.Errorf("the store %q is no URL: %w", Redacted(text), err)}
	}
	if u.User != nil {
		return nil, UsageError{fmt.Errorf("the URL of the store at %s has a user or a password in it; the token goes into the variable SEMEL_STORE_TOKEN", u.Host)}
	}
	secure, err := remoteTLS(u.Query())
	if err != nil {
		return nil, UsageError{err}
	}
	u.Scheme, u.RawQuery = map[bool]string{true: "http", false: "https"}[u.Scheme == "semel+http"], ""
	return remote.Dial(ctx, u.String(), remote.Options{Token: o.Token, TLS: secure})
}

func remoteTLS(query url.Values) (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	for name := range query {
		if !slices.Contains([]string{"ca", "cert", "key"}, name) {
			return nil, fmt.Errorf("a store semel:// has no setting %q; there are ca, cert and key", name)
		}
	}
	if file := query.Get("ca"); file != "" {
		pem, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		if config.RootCAs = x509.NewCertPool(); !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s has no certificate in PEM", file)
		}
	}
	if query.Get("cert") == "" && query.Get("key") == "" {
		return config, nil
	}
	pair, err := tls.LoadX509KeyPair(query.Get("cert"), query.Get("key"))
	config.Certificates = []tls.Certificate{pair}
	return config, err
}
