package stores

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/adapter/sqlite"
	"github.com/semelhq/semel/store/memory"
)

// A kind is what a scheme stands for.
type kind struct {
	// form is how such a URL is written.
	form string
	// gives is what the store gives, in a few words.
	gives string
	// check tells what is wrong with a URL before anything is opened; nil: a host
	// is needed.
	check func(url string) error
	open  func(ctx context.Context, url string, o Options) (semel.Store, error)
	// read opens it to look at; nil: as open does.
	read func(ctx context.Context, url string, o Options) (semel.Store, error)
	// migrate brings the schema up to date; nil: there is none.
	migrate func(ctx context.Context, url string) error
	// migrations are the files of the schema; nil: there are none.
	migrations func() fs.FS
	// far: it is over a network, so a cache in this process is worth its memory.
	far bool
}

func kinds() map[string]kind {
	all := map[string]kind{
		"memory": {form: "memory:", gives: "forgotten when the process ends", check: checkMemory, open: openMemory, read: readMemory},
		"sqlite": {form: "sqlite:PATH", gives: "durable, a file", check: checkSQLite, open: openSQLite, read: readSQLite},
	}
	maps.Copy(all, farKinds())
	return all
}

// alias gives the scheme of the table for one that a URL may have.
func alias(scheme string) string {
	switch {
	case scheme == "postgresql":
		return "postgres"
	case scheme == "mariadb":
		return "mysql"
	case scheme == "rediss", strings.HasPrefix(scheme, "redis+"):
		return "redis"
	case scheme == "semel+http":
		return "semel"
	}
	return scheme
}

// find takes a URL apart. Its errors are mistakes of whoever wrote it.
func find(url string) (kind, error) {
	scheme, rest, ok := strings.Cut(url, ":")
	if !ok {
		return kind{}, fmt.Errorf("%q is no store; write sqlite:PATH for a file, or memory: for one that is forgotten when the process ends", Redacted(url))
	}
	k, known := kinds()[alias(scheme)]
	if !known {
		return kind{}, fmt.Errorf("the store %q is unknown; there are %s", scheme+":", list())
	}
	if k.check != nil {
		return k, k.check(rest)
	}
	if host := strings.TrimPrefix(rest, "//"); host == rest || host == "" || host[0] == '/' && alias(scheme) != "postgres" {
		return kind{}, fmt.Errorf("the store %q names no host; write %s", Redacted(url), k.form)
	}
	return k, nil
}

// list names all kinds in a sentence.
func list() string {
	all := kinds()
	var out []string
	for _, scheme := range slices.Sorted(maps.Keys(all)) {
		out = append(out, fmt.Sprintf("%s (%s)", all[scheme].form, all[scheme].gives))
	}
	return strings.Join(out, ", ")
}

// Redacted gives a URL without its password, for people and logs.
func Redacted(text string) string {
	text = passwordSetting().ReplaceAllString(text, "${1}xxxxx")
	scheme, rest, ok := strings.Cut(text, "://")
	at := strings.LastIndex(rest, "@")
	if !ok || at < 0 {
		return text
	}
	user, _, _ := strings.Cut(rest[:at], ":")
	if u, err := url.Parse(text); err == nil {
		return u.Redacted()
	}
	return scheme + "://" + user + ":xxxxx" + rest[at:]
}

// passwordSetting finds a password that is a setting after the question mark, or
// in PostgreSQL's list of key=value.
func passwordSetting() *regexp.Regexp {
	return regexp.MustCompile(`(?i)([a-z-]*(?:password|passwd|token)\s*=\s*)('[^']*'|[^&\s]*)`)
}

func checkMemory(rest string) error {
	if strings.Trim(rest, "/") != "" {
		return errors.New("the store memory: takes no path; for a file write sqlite:PATH")
	}
	return nil
}

func checkSQLite(rest string) error {
	if strings.TrimPrefix(rest, "//") == "" {
		return errors.New("the store sqlite: needs the path of a file, as in sqlite:semel.db")
	}
	return nil
}

func openMemory(context.Context, string, Options) (semel.Store, error) {
	return memory.New(memory.Options{}), nil
}

func readMemory(context.Context, string, Options) (semel.Store, error) {
	return nil, UsageError{errors.New("the store memory: is inside the gateway's process and cannot be looked at from here; a gateway with --store sqlite:PATH can")}
}

func sqlitePath(url string) string {
	return strings.TrimPrefix(strings.TrimPrefix(url, "sqlite:"), "//")
}

func openSQLite(_ context.Context, url string, _ Options) (semel.Store, error) {
	return sqlite.Open(sqlitePath(url), sqlite.Options{})
}

// readSQLite never makes a file.
func readSQLite(_ context.Context, url string, _ Options) (semel.Store, error) {
	path := sqlitePath(url)
	if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
		whole, _ := filepath.Abs(path) // only for the message
		return nil, missing{fmt.Errorf("there is no store at %s; name the one that the gateway was started with: --store sqlite:PATH, or SEMEL_STORE", whole)}
	}
	return sqlite.Open(path, sqlite.Options{ReadOnly: true})
}

// missing is an error about a store that nobody has made; it is os.ErrNotExist.
type missing struct{ error }

func (missing) Is(target error) bool { return target == os.ErrNotExist }
