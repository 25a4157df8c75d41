package badinput

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/semelhq/semel/cmd/e2e/internal/program"
	"github.com/semelhq/semel/semelhttp"
)

// The token of shared stores, and one that is wrong.
const (
	token      = "a-token-of-password7-0123456789abcdef"
	wrongToken = "another-one-password7-0123456789abcdef"
)

// share is a running `semel share`.
type share struct {
	address string
	args    []string
	process *program.Process
}

// startShare starts it for a new file, at a free address.
func startShare(t *testing.T, more ...string) *share {
	t.Helper()
	address, err := program.Address()
	must(t, err)
	dir := t.TempDir()
	s := &share{address: address}
	s.args = append([]string{"share", "--listen", address, "--store", "sqlite:" + filepath.Join(dir, "semel.db"), "--token-file", written(t, dir, "token", token+"\n")}, more...)
	s.start(t)
	t.Cleanup(func() {
		s.process.Kill()
		for _, word := range [...]string{"panic", "goroutine ", "password7", canary} {
			if strings.Contains(s.process.Output(), word) {
				t.Errorf("semel share wrote %q:\n%s", word, s.process.Output())
			}
		}
	})
	return s
}

func written(t *testing.T, dir, name, text string) (path string) {
	t.Helper()
	path = filepath.Join(dir, name)
	must(t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

func (s *share) start(t *testing.T) {
	t.Helper()
	var err error
	s.process, err = program.Start(exec.Command(built(t), s.args...))
	must(t, err)
	for deadline := time.Now().Add(patience); ; time.Sleep(2 * time.Millisecond) {
		c, err := net.Dial("tcp", s.address)
		if err == nil {
			_ = c.Close() // it was only to see that somebody listens
			return
		}
		select {
		case <-s.process.Ended():
			t.Fatalf("semel share has ended; it wrote:\n%s", s.process.Output())
		default:
		}
		if time.Now().After(deadline) {
			t.Fatalf("semel share does not listen: %v; it wrote:\n%s", err, s.process.Output())
		}
	}
}

// TestShareRefuses: settings under which strangers could use the store, or
// nobody.
func TestShareRefuses(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	store := "--store=sqlite:" + filepath.Join(dir, "semel.db")
	ca, cert, key := certificates(t, dir)
	good := "--token-file=" + written(t, dir, "token", token)
	start := func(args ...string) *exec.Cmd {
		return exec.Command(built(t), append([]string{"share", "--listen=127.0.0.1:0"}, args...)...)
	}
	for _, c := range []struct {
		name  string
		code  int
		args  []string
		texts []string
	}{
		{"no token", 2, []string{store}, []string{"who may use the store", "--token-file", "openssl"}},
		{"in the clear to everybody", 2, []string{store, good, "--listen=:0"}, []string{"--tls-cert", "127.0.0.1"}},
		{"in the clear to another machine", 2, []string{store, good, "--listen=192.0.2.1:0"}, []string{"--tls-cert"}},
		{"no port", 2, []string{store, good, "--listen=127.0.0.1"}, []string{"HOST:PORT"}},
		{"a certificate without key", 2, []string{store, good, "--tls-cert=x"}, []string{"belong together"}},
		{"clients' certificates without TLS", 2, []string{store, "--tls-client-ca=x"}, []string{"--tls-client-ca needs"}},
		{"an unknown store", 2, []string{"--store=mongodb://me:password7@h", good}, []string{"is unknown"}},
		{"an argument", 2, []string{store, good, "now"}, []string{"now"}},
		{"no such token file", 1, []string{store, "--token-file=" + filepath.Join(dir, "none")}, []string{"no such file"}},
		{"an empty token file", 1, []string{store, "--token-file=" + written(t, dir, "empty", "\n")}, []string{"holds no token", "openssl"}},
		{"an empty token file beside certificates", 1, []string{store, "--token-file=" + filepath.Join(dir, "empty"), "--tls-client-ca=" + ca, "--tls-cert=" + cert, "--tls-key=" + key}, []string{"holds no token"}},
		{"a short token", 1, []string{store, "--token-file=" + written(t, dir, "short", "password7")}, []string{"22"}},
		{"no such certificate", 1, []string{store, good, "--tls-cert=" + filepath.Join(dir, "none"), "--tls-key=x"}, []string{"certificate", "no such file"}},
		{"a certificate that is none", 1, []string{store, good, "--tls-cert=" + filepath.Join(dir, "token"), "--tls-key=" + filepath.Join(dir, "token")}, []string{"certificate"}},
		{"a store that cannot be opened", 1, []string{"--store=sqlite:" + dir, good}, []string{"it is a directory"}},
	} {
		refusal(t, c.name, start(c.args...), c.code, c.texts...)
	}
}

// sharing gives the environment variable with a token.
func sharing(t *testing.T, token string) {
	t.Helper()
	t.Setenv("SEMEL_STORE_TOKEN", token)
}

// TestShare is not parallel: the gateways get their token from the environment.
func TestShare(t *testing.T) {
	s := startShare(t)
	url := "semel+http://" + s.address
	sharing(t, wrongToken)
	refused(t, "a wrong token", url, "token")
	sharing(t, "")
	refused(t, "no token", url, "token")
	sharing(t, token)
	refused(t, "another scheme", "semel://"+s.address, s.address)
	refused(t, "another machine in the clear", "semel+http://192.0.2.1:1", "192.0.2.1")
	refused(t, "nobody there", "semel+http://127.0.0.1:1", "127.0.0.1:1")
	refusal(t, "an unknown setting", onURL(t, url+"?tls=no", "127.0.0.1:1", "--listen=127.0.0.1:0"), 2, "there are ca, cert and key")
	refusal(t, "a password in the URL", onURL(t, "semel+http://me:password7@"+s.address, "127.0.0.1:1", "--listen=127.0.0.1:0"), 2, "SEMEL_STORE_TOKEN")

	one := startFar(t, url)
	two := startFarOf(t, one.upstream, url, "--cache=none")
	one.runs(t, "/shared")
	two.replays(t, "/shared")
	listed(t, url, "key-of-shared", "done")
	killedShare(t, s, two)
}

// killedShare kills the share again and again while requests run. Afterwards
// each of them ran once, or nobody knows.
func killedShare(t *testing.T, s *share, f *far) {
	t.Helper()
	const workers, rounds = 8, 10
	var asking sync.WaitGroup
	stop := make(chan struct{})
	asked := make([][]string, workers)
	for w := range workers {
		asking.Go(func() {
			for _, path := range names("/killed-"+string(rune('a'+w))+"-%d", 2000) {
				select {
				case <-stop:
					return
				default:
				}
				asked[w] = append(asked[w], path)
				a, err := exchange(f.address, pathRequest(path), false)
				if err != nil || a.status != 201 && a.kind != semelhttp.StoreUnavailable && a.kind != semelhttp.OutcomeUnknownKind {
					t.Errorf("%s: got %v, %v", path, a, err)
				}
			}
		})
	}
	for range rounds {
		before, _ := f.upstream.count("")
		for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
			if now, _ := f.upstream.count(""); now >= before+20 || time.Now().After(deadline) {
				break
			}
		}
		s.process.Kill()
		s.start(t)
	}
	close(stop)
	asking.Wait()
	var all []string
	for _, paths := range asked {
		all = append(all, paths[max(0, len(paths)-100):]...)
		for _, path := range paths {
			if ran := f.upstream.ran(path); ran > 1 {
				t.Errorf("%s ran %d times", path, ran)
			}
		}
	}
	f.settles(t, "killed and started again", all...)
}

// certificates writes a private authority and a certificate that it signed for
// 127.0.0.1, in PEM.
func certificates(t *testing.T, dir string) (ca, cert, key string) {
	t.Helper()
	make509 := func(template, parent *x509.Certificate, signer *ecdsa.PrivateKey) (*x509.Certificate, *ecdsa.PrivateKey) {
		own, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		must(t, err)
		if parent == nil {
			parent, signer = template, own
		}
		template.SerialNumber = big.NewInt(time.Now().UnixNano())
		template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
		der, err := x509.CreateCertificate(rand.Reader, template, parent, &own.PublicKey, signer)
		must(t, err)
		made, err := x509.ParseCertificate(der)
		must(t, err)
		return made, own
	}
	authority, authorityKey := make509(&x509.Certificate{
		Subject: pkix.Name{CommonName: "authority"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}, nil, nil)
	leaf, leafKey := make509(&x509.Certificate{
		Subject: pkix.Name{CommonName: "store"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, authority, authorityKey)
	der, err := x509.MarshalECPrivateKey(leafKey)
	must(t, err)
	block := func(kind string, der []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
	}
	return written(t, dir, "ca.pem", block("CERTIFICATE", authority.Raw)), written(t, dir, "cert.pem", block("CERTIFICATE", leaf.Raw)),
		written(t, dir, "key.pem", block("EC PRIVATE KEY", der))
}

// TestShareTLS is not parallel, as TestShare.
func TestShareTLS(t *testing.T) {
	sharing(t, token)
	dir, other := t.TempDir(), t.TempDir()
	ca, cert, key := certificates(t, dir)
	otherCA, _, _ := certificates(t, other)
	s := startShare(t, "--tls-cert", cert, "--tls-key", key)
	url := "semel://" + s.address
	refused(t, "an authority that is not known", url, "certificate")
	refused(t, "another authority", url+"?ca="+otherCA, "certificate")
	refused(t, "in the clear", "semel+http://"+s.address, s.address)
	for name, query := range map[string]string{
		"no such authority":         "?ca=" + filepath.Join(dir, "none"),
		"a file without any":        "?ca=" + key,
		"a certificate without key": "?ca=" + ca + "&cert=" + cert,
	} {
		refusal(t, name, onURL(t, url+query, "127.0.0.1:1", "--listen=127.0.0.1:0"), 2)
	}
	startFar(t, url+"?ca="+ca).runs(t, "/over-tls")

	mutual := startShare(t, "--tls-cert", cert, "--tls-key", key, "--tls-client-ca", ca)
	refused(t, "no certificate of its own", "semel://"+mutual.address+"?ca="+ca, "certificate")
	startFar(t, "semel://"+mutual.address+"?ca="+ca+"&cert="+cert+"&key="+key).runs(t, "/over-mutual-tls")
}
