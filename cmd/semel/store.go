package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/adapter/sqlite"
	"github.com/semelhq/semel/store/memory"
)

// opened is a store and what is to be known about it.
type opened struct {
	semel.Store
	about   string
	journal bool
	close   func() error
}

// storeURL takes a store's URL apart. Its error is one of usage.
func storeURL(url string) (scheme, rest string, err error) {
	scheme, rest, ok := strings.Cut(url, ":")
	switch {
	case ok && scheme == "memory" && strings.Trim(rest, "/") == "":
		return scheme, "", nil
	case ok && scheme == "sqlite" && strings.TrimPrefix(rest, "//") != "":
		return scheme, strings.TrimPrefix(rest, "//"), nil
	case ok && scheme == "sqlite":
		err = errors.New("the store sqlite: needs the path of a file, as in sqlite:semel.db")
	case ok && scheme == "memory":
		err = errors.New("the store memory: takes no path; for a file write sqlite:PATH")
	case !ok:
		err = fmt.Errorf("%s is no store; write sqlite:PATH for a file, or memory: for one that is forgotten when the process ends", quote(url))
	default:
		err = fmt.Errorf("the store %s is unknown; there are sqlite:PATH (durable, a file) and memory: (forgotten when the process ends)", quote(scheme+":"))
	}
	return "", "", usageError{err}
}

// openStore opens the store of a gateway.
func openStore(url string) (*opened, error) {
	scheme, path, err := storeURL(url)
	if err != nil {
		return nil, err
	}
	o := &opened{close: func() error { return nil }}
	switch scheme {
	case "memory":
		o.Store = memory.New(memory.Options{})
		o.about = "forgotten when this process ends: for trying out, not for production"
	case "sqlite":
		s, err := sqlite.Open(path, sqlite.Options{})
		if err != nil {
			return nil, err
		}
		o.Store, o.close = s, s.Close
		o.about = "durable: on disk before a request starts and before its answer goes"
	}
	_, o.journal = semel.As[semel.Journal](o.Store)
	return o, nil
}

// readStore opens a store to look at. It never makes one, and a gateway may use
// it meanwhile.
func readStore(url string) (*opened, error) {
	scheme, path, err := storeURL(url)
	if err != nil {
		return nil, err
	}
	if scheme == "memory" {
		return nil, usageError{errors.New("the store memory: is inside the gateway's process and cannot be looked at from here; a gateway with --store sqlite:PATH can")}
	}
	if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
		whole, _ := filepath.Abs(path) // only for the message
		return nil, fmt.Errorf("there is no store at %s; name the one that the gateway was started with: --store sqlite:PATH, or SEMEL_STORE", whole)
	}
	s, err := sqlite.Open(path, sqlite.Options{ReadOnly: true})
	if err != nil {
		return nil, err
	}
	return &opened{Store: s, journal: true, close: s.Close}, nil
}

// storeDefault is where get and list look if they are not told.
func storeDefault() string {
	if url := os.Getenv("SEMEL_STORE"); url != "" {
		return url
	}
	return "sqlite:semel.db"
}
