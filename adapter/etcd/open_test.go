package etcd_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/adapter/etcd"
)

// refused checks that opening fails soon and says what.
func refused(t *testing.T, url, says string, o etcd.Options) {
	t.Helper()
	begin := time.Now()
	s, err := etcd.Open(t.Context(), url, o)
	if err == nil {
		_ = s.Close()
		t.Fatalf("%s was opened, want an error that says %q", url, says)
	}
	if !strings.Contains(err.Error(), says) {
		t.Errorf("%s: got %q, want an error that says %q", url, err, says)
	}
	if strings.Contains(err.Error(), "hunter2") {
		t.Errorf("the error tells the password: %v", err)
	}
	if took := time.Since(begin); took > 30*time.Second {
		t.Errorf("%s: the refusal took %v", url, took)
	}
}

func TestURLs(t *testing.T) {
	empty := filepath.Join(t.TempDir(), "empty.pem")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range [][2]string{
		{"", "etcd://"},
		{"redis://127.0.0.1:1/x", "etcd://"},
		{"http://127.0.0.1:2379", "etcd://"},
		{"etcd://", "host:port"},
		{"etcd:///prefix", "host:port"},
		{"etcd://127.0.0.1/prefix", "host:port"},
		{"etcd://127.0.0.1:/prefix", "host:port"},
		{"etcd://:2379/prefix", "host:port"},
		{"etcd://a:1,,b:2/prefix", "host:port"},
		{"etcd://a:1;b:2/prefix", "host:port"},
		{"etcd://root@a:1/prefix", "user:password"},
		{"etcd://:hunter2@a:1/prefix", "user:password"},
		{"etcd://a:1/%zz", "prefix"},
		{"etcd://a:1/p?timeout=5s", "not known"},
		{"etcd://a:1/p?tls=maybe", "neither true nor false"},
		{"etcd://a:1/p?tls=", "one value"},
		{"etcd://a:1/p?tls=true&tls=true", "one value"},
		{"etcd://a:1/p?tls=false&ca=x", "no other parameter"},
		{"etcd://root:hunter2@a:1/p?ca=/nowhere/ca.pem", "no such file"},
		{"etcd://a:1/p?ca=" + empty, "no certificate"},
		{"etcd://a:1/p?cert=x", "go together"},
		{"etcd://a:1/p?cert=" + empty + "&key=" + empty, "cert and key"},
	} {
		refused(t, c[0], c[1], etcd.Options{})
	}
}

// pretend answers as a server's HTTP side would.
func pretend(t *testing.T, version, date string, status int) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if date != "" {
			w.Header()["Date"] = []string{date}
		}
		w.WriteHeader(status)
		fmt.Fprint(w, version)
	}))
	t.Cleanup(s.Close)
	return strings.TrimPrefix(s.URL, "http://")
}

func TestServersThatWillNotDo(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	silent := l.Addr().String() // takes connections, and says nothing
	defer l.Close()
	e := servers.Etcd(t)
	const ok = `{"etcdserver":"3.5.9","etcdcluster":"3.5.0"}`
	ahead := time.Now().Add(time.Hour).UTC().Format(http.TimeFormat)
	for name, c := range map[string][2]string{
		"nobody":          {"etcd://127.0.0.1:1/p", "connection refused"},
		"silent":          {"etcd://" + silent + "/p", "no server answers"},
		"not etcd":        {"etcd://" + pretend(t, "hello", "", 200) + "/p", "not as an etcd does"},
		"not found":       {"etcd://" + pretend(t, "hello", "", 404) + "/p", "--listen-client-http-urls"},
		"too old":         {"etcd://" + pretend(t, `{"etcdserver":"3.3.27"}`, "", 200) + "/p", "too old"},
		"no version":      {"etcd://" + pretend(t, `{"etcdserver":"x"}`, "", 200) + "/p", "cannot be read"},
		"no date":         {"etcd://" + pretend(t, ok, "yesterday", 200) + "/p", "no Date"},
		"tls to plain":    {at(e, "p") + "?tls=true", "tls and ca"},
		"clocks apart":    {"etcd://" + e.Address() + "," + pretend(t, ok, ahead, 200) + "/p", "apart"},
		"nothing to read": {at(e, "nothing"), "no store"},
	} {
		t.Run(name, func(t *testing.T) {
			refused(t, c[0], c[1], etcd.Options{Timeout: 2 * time.Second, ReadOnly: name == "nothing to read"})
		})
	}
}

func TestPrefixesThatWillNotDo(t *testing.T) {
	e := servers.Etcd(t)
	c := plain(t, e, "", "")
	put := func(key, value string) {
		if _, err := c.Put(t.Context(), key, value); err != nil {
			t.Fatal(err)
		}
	}
	put("/others/config", "x")
	refused(t, at(e, "others"), "another program", etcd.Options{})
	put("/newer/floor", strings.Repeat("\x00", 15)+"\x01\x02")
	refused(t, at(e, "newer"), "layout 2", etcd.Options{})
	put("/odd/floor", "x")
	refused(t, at(e, "odd"), "not a store's", etcd.Options{})

	s := open(t, at(e, "wiped"), etcd.Options{})
	swap(t, s, semel.Version{}, pending("k", 1))
	if _, err := c.Delete(t.Context(), "/wiped/", clientv3.WithPrefix()); err != nil {
		t.Fatal(err)
	}
	if _, err := s.CompareAndSwap(t.Context(), semel.Version{}, pending("k", 2)); err == nil || !strings.Contains(err.Error(), "wiped") {
		t.Errorf("a claim under a prefix that was wiped: %v", err)
	}
	swap(t, open(t, at(e, "wiped"), etcd.Options{}), semel.Version{}, pending("k", 3))
}

func TestUsers(t *testing.T) {
	e := own(t, nil)
	c := plain(t, e, "", "")
	for _, step := range []func(context.Context) error{
		func(ctx context.Context) error { _, err := c.UserAdd(ctx, "root", "r"); return err },
		func(ctx context.Context) error { _, err := c.UserGrantRole(ctx, "root", "root"); return err },
		func(ctx context.Context) error { _, err := c.UserAdd(ctx, "app", "a b@c"); return err },
		func(ctx context.Context) error { _, err := c.UserAdd(ctx, "reader", "r"); return err },
		func(ctx context.Context) error { _, err := c.RoleAdd(ctx, "app"); return err },
		func(ctx context.Context) error { _, err := c.RoleAdd(ctx, "reader"); return err },
		func(ctx context.Context) error {
			_, err := c.RoleGrantPermission(ctx, "app", "/pay/", clientv3.GetPrefixRangeEnd("/pay/"), clientv3.PermissionType(clientv3.PermReadWrite))
			return err
		},
		func(ctx context.Context) error {
			_, err := c.RoleGrantPermission(ctx, "reader", "/pay/", clientv3.GetPrefixRangeEnd("/pay/"), clientv3.PermissionType(clientv3.PermRead))
			return err
		},
		func(ctx context.Context) error { _, err := c.UserGrantRole(ctx, "app", "app"); return err },
		func(ctx context.Context) error { _, err := c.UserGrantRole(ctx, "reader", "reader"); return err },
		func(ctx context.Context) error { _, err := c.AuthEnable(ctx); return err },
	} {
		if err := step(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	as := func(user, prefix string) string { return "etcd://" + user + "@" + e.Address() + "/" + prefix }
	refused(t, at(e, "pay"), "wants a user", etcd.Options{})
	refused(t, as("app:hunter2", "pay"), "does not accept", etcd.Options{})
	refused(t, as("nobody:hunter2", "pay"), "does not accept", etcd.Options{})
	refused(t, as("app:a%20b%40c", "other"), "grant-permission", etcd.Options{})
	refused(t, as("reader:r", "pay"), "grant-permission", etcd.Options{})

	s := open(t, as("app:a%20b%40c", "pay"), etcd.Options{})
	claim := swap(t, s, semel.Version{}, pending("k", 1))
	reader := open(t, as("reader:r", "pay"), etcd.Options{ReadOnly: true})
	if r, err := reader.Get(t.Context(), claim.Digest); err != nil || r.Record.Nonce != claim.Nonce {
		t.Errorf("the reader got %+v, %v", r.Record, err)
	}
	if _, err := reader.CompareAndSwap(t.Context(), claim.Version, done(claim, 1, "x")); !errors.Is(err, semel.ErrRejected) {
		t.Errorf("the reader may write: %v", err)
	}
}

func TestRecordsThatAreTooLarge(t *testing.T) {
	e := servers.Etcd(t)
	s := open(t, at(e, "large"), etcd.Options{})
	for _, size := range []int{1600 << 10, 3 << 20} {
		claim := swap(t, s, semel.Version{}, pending(fmt.Sprint(size), 1))
		large := done(claim, 1, strings.Repeat("x", size))
		if _, err := s.CompareAndSwap(t.Context(), claim.Version, large); !errors.Is(err, semel.ErrRejected) {
			t.Errorf("%d bytes: got %v, want ErrRejected", size, err)
		}
		small := pending(fmt.Sprint(size, " beside"), 1)
		for i, o := range s.SwapMany(t.Context(), []semel.Swap{{Next: small}, {Old: claim.Version, Next: large}}) {
			if want := i == 1; errors.Is(o.Err, semel.ErrRejected) != want {
				t.Errorf("%d bytes in a batch, swap %d: %v", size, i, o.Err)
			}
		}
		swap(t, s, claim.Version, done(claim, 1, "small"))
	}
	if _, err := s.CompareAndSwap(t.Context(), semel.Version{}, semel.Record{}); !errors.Is(err, semel.ErrRejected) {
		t.Errorf("a record without a state: %v", err)
	}
}

// A server with less room for operations gets smaller transactions.
func TestFewOperations(t *testing.T) {
	e := own(t, map[string]string{"max-txn-ops": "16"})
	s := open(t, at(e, "few"), etcd.Options{})
	swaps := make([]semel.Swap, 200)
	for i := range swaps {
		swaps[i].Next = pending(fmt.Sprint(i), 1)
	}
	for i, o := range s.SwapMany(t.Context(), swaps) {
		if o.Err != nil {
			t.Fatalf("swap %d: %v", i, o.Err)
		}
	}
}

func TestFullServer(t *testing.T) {
	e := own(t, map[string]string{"quota-backend-bytes": "1000000"})
	s := open(t, at(e, "full"), etcd.Options{})
	for i := range 100 {
		next := pending(fmt.Sprint(i), 1)
		_, err := s.CompareAndSwap(t.Context(), semel.Version{}, done(next, 1, strings.Repeat("x", 100_000)))
		if err == nil {
			continue
		}
		if !strings.Contains(err.Error(), "alarm disarm") || errors.Is(err, semel.ErrRejected) {
			t.Errorf("got %v, want an error that tells of the quota and may be tried again", err)
		}
		if r, err := s.Get(t.Context(), pending("0", 1).Digest); err != nil || !r.Record.Held() {
			t.Errorf("a full server does not read: %v", err)
		}
		refused(t, at(e, "full"), "alarm disarm", etcd.Options{})
		return
	}
	t.Error("the quota was never reached")
}

// A server that stops answering is waited for no longer than the caller wants.
func TestServerThatHangs(t *testing.T) {
	e := own(t, nil)
	s := open(t, at(e, "hang"), etcd.Options{})
	claim := swap(t, s, semel.Version{}, pending("k", 1))
	if err := e.Pause(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, err := s.CompareAndSwap(ctx, claim.Version, done(claim, 1, "x")); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want DeadlineExceeded", err)
	}
	if err := e.Resume(); err != nil {
		t.Fatal(err)
	}
	r, err := s.CompareAndSwap(t.Context(), claim.Version, done(claim, 1, "x"))
	if err != nil && (!errors.Is(err, semel.ErrConflict) || r.Record.Nonce != (semel.Nonce{1, 2})) {
		t.Errorf("repeated: %v, %v", r.Record, err)
	}
}
