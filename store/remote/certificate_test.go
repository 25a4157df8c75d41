package remote_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/store/remote"
)

// authority is a CA of one test.
type authority struct {
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
}

// span is when a certificate is valid, seen from now.
type span struct{ from, to time.Duration }

var (
	valid   = span{-time.Hour, time.Hour}
	expired = span{-2 * time.Hour, -time.Hour}
)

func newAuthority(t testing.TB) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "CA"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &authority{key, cert}
}

// certificate gives one for 127.0.0.1, good for clients and servers.
func (a *authority) certificate(t testing.TB, name string, when span) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(when.from), NotAfter: time.Now().Add(when.to), KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func (a *authority) pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	return pool
}

// client is the TLS of a client that trusts a, and has certificates.
func (a *authority) client(_ testing.TB, certificates ...tls.Certificate) *tls.Config {
	return &tls.Config{RootCAs: a.pool(), Certificates: certificates}
}

// serve serves a store over TLS.
func (a *authority) serve(t testing.TB, store semel.Store, o remote.HandlerOptions, auth tls.ClientAuthType) *httptest.Server {
	t.Helper()
	return a.serveAs(t, store, o, auth, a.certificate(t, "server", valid))
}

func (a *authority) serveAs(t testing.TB, store semel.Store, o remote.HandlerOptions, auth tls.ClientAuthType, as tls.Certificate) *httptest.Server {
	t.Helper()
	h, err := remote.NewHandler(store, o)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(h)
	server.EnableHTTP2 = true
	server.TLS = &tls.Config{Certificates: []tls.Certificate{as}, ClientAuth: auth, ClientCAs: a.pool()}
	server.Config.ErrorLog = quiet()
	server.StartTLS()
	t.Cleanup(func() {
		h.Close()
		server.Close()
	})
	return server
}
