package stores

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/store/tiered"
)

func TestMistakesInURLs(t *testing.T) {
	for _, c := range []struct{ url, cache, says string }{
		{"semel.db", "", "write sqlite:PATH"},
		{"mongodb://x", "", `the store "mongodb:" is unknown; there are`},
		{"sqlite:", "", "needs the path of a file"},
		{"memory:x", "", "takes no path"},
		{"semel://", "", "names no host; write semel://HOST"},
		{"semel:7443", "", "names no host"},
		{"memory:", "disk:x", `the cache "disk:x" is unknown; there are memory:SIZE`},
		{"memory:", "memory:", "needs a size, as in memory:64MiB"},
		{"memory:", "memory:64MiB,x", "needs a size"},
		{"memory:", "none,memory:1MiB", "unknown"},
	} {
		err := Check(c.url, Options{Cache: c.cache})
		var usage UsageError
		if !errors.As(err, &usage) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s with cache %q: got %v, want a mistake of usage that says %q", c.url, c.cache, err, c.says)
		}
	}
}

// A message that quotes a URL goes to terminals and logs.
func TestPasswordsAreNotShown(t *testing.T) {
	for url, want := range map[string]string{
		"postgres://me:hunter2@db/x?a=b":                          "postgres://me:xxxxx@db/x?a=b",
		"redis+sentinel://me:hunter2@a:1,b:2/0":                   "redis+sentinel://me:xxxxx@a:1,b:2/0",
		"mysql://me:hu%zz@db/x":                                   "mysql://me:xxxxx@db/x",
		"etcd://a:1,b:2/prefix":                                   "etcd://a:1,b:2/prefix",
		"sqlite:/var/lib/me:you@somewhere/semel":                  "sqlite:/var/lib/me:you@somewhere/semel",
		"semel://tok:hunter2@store.example:7443/":                 "semel://tok:xxxxx@store.example:7443/",
		"postgres://db/x?user=me&password=hunter2":                "postgres://db/x?user=me&password=xxxxx",
		"postgres://me@db/x?password=hunter2&a=b":                 "postgres://me@db/x?password=xxxxx&a=b",
		"redis+sentinel://a/0?master=x&sentinel-password=hunter2": "redis+sentinel://a/0?master=x&sentinel-password=xxxxx",
		"host=db password=hunter2 user=me":                        "host=db password=xxxxx user=me",
		"host=db password='hunter 2' user=me":                     "host=db password=xxxxx user=me",
	} {
		if got := Redacted(url); got != want {
			t.Errorf("%s is shown as %s, want %s", url, got, want)
		}
	}
}

func TestListsOfCaches(t *testing.T) {
	for text, want := range map[string]string{
		"memory:1MiB":                              "memory:1MiB",
		"memory:1MiB, redis://a:1":                 "memory:1MiB + redis://a:1",
		"redis+cluster://a:1,b:2,memory:1MiB":      "redis+cluster://a:1,b:2 + memory:1MiB",
		"redis+sentinel://a:1,b:2/0,redis://c/0":   "redis+sentinel://a:1,b:2/0 + redis://c/0",
		"memory:1MiB,redis+cluster://a:1,b:2,c:33": "memory:1MiB + redis+cluster://a:1,b:2,c:33",
	} {
		if got := strings.Join(split(text), " + "); got != want {
			t.Errorf("%s is split into %s, want %s", text, got, want)
		}
	}
}

func TestOpenKnowsWhatItOpened(t *testing.T) {
	url := "sqlite:" + filepath.Join(t.TempDir(), "semel.db")
	plain, err := Open(t.Context(), url, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if _, cached := plain.Store.(*tiered.Store); cached || !plain.Journal || plain.Survives != semel.SurvivesCrash || plain.Durability == "" {
		t.Errorf("opened: %+v", plain)
	}
	if err := plain.Close(); err != nil {
		t.Error(err)
	}
	cached, err := Open(t.Context(), url, Options{Cache: "memory:1MiB"})
	if err != nil {
		t.Fatal(err)
	}
	if _, is := cached.Store.(*tiered.Store); !is || len(cached.Caches) != 1 || !cached.Journal {
		t.Errorf("opened with a cache: %+v", cached)
	}
	if _, sweeps := semel.As[semel.Sweeper](cached); !sweeps { // a gateway would never forget anything
		t.Error("what is opened hides that the store can sweep")
	}
	if err := cached.Close(); err != nil {
		t.Error(err)
	}
	read, err := Read(t.Context(), url, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := read.Close(); err != nil {
		t.Error(err)
	}
	if _, err := Read(t.Context(), url+".none", Options{}); err == nil || !strings.Contains(err.Error(), "there is no store at") {
		t.Errorf("a file that is not there: %v", err)
	}
}

func TestStoresWithoutASchema(t *testing.T) {
	var usage UsageError
	if err := Migrate(t.Context(), "sqlite:x"); !errors.As(err, &usage) {
		t.Errorf("migrate: %v", err)
	}
	if _, err := Migrations("memory:"); !errors.As(err, &usage) {
		t.Errorf("migrations: %v", err)
	}
}

// No error repeats a password, either.
func TestPasswordsAreNotInErrors(t *testing.T) {
	for _, url := range []string{
		"host=db password=hunter2", "semel://me:hunter2@127.0.0.1:1", "semel://hunter2@127.0.0.1:1", "semel://me:hu%zznter2@h:1", "semel://me:hunter2@h:port",
		"semel://h:1?token=hunter2", "postgres://me:hunter2@127.0.0.1:1/x?sslmode=odd", "mysql://me:hunter2@h:port/x",
		"redis://me:hunter2@h:port/x", "etcd://me:hunter2@h/x?a=b", "mongodb://me:hunter2@h",
	} {
		_, err := Open(t.Context(), url, Options{})
		if err == nil || strings.Contains(err.Error(), "nter2") {
			t.Errorf("%s: got error %v, want one without the password", url, err)
		}
	}
}
