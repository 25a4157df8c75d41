package remote

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/semelhq/semel"
)

// Options are the settings of a store that is dialled. Beside the Token or a
// client certificate, the zero value suits.
type Options struct {
	// Token is one of the handler's Tokens. Default: none; the handler then wants a
	// client certificate, in TLS.Certificates.
	Token string
	// TLS sets which servers are trusted (RootCAs), under which name (ServerName),
	// and with which certificate this process answers for itself (Certificates). It
	// is copied. Default: the system's roots, no certificate.
	TLS *tls.Config
	// Insecure allows what everybody on the way could read and change: http:// to
	// other machines, and TLS.InsecureSkipVerify.
	Insecure bool
	// Connections is how many connections are kept and used at once; more callers
	// wait for one. It means nothing with HTTP2. Default 256.
	Connections int
	// HTTP2 sends all calls over one connection. It saves connections, and costs
	// throughput. Default: HTTP/1.1.
	HTTP2 bool
	// Timeout bounds each call, beside the caller's own deadline. Default 30 s.
	Timeout time.Duration
	// MaxBytes bounds each message, in bytes; the handler's MaxBytes does, too. A
	// record with its result must fit. Default 16 MiB.
	MaxBytes int
}

const (
	defaultMaxBytes = 16 << 20
	defaultTimeout  = 30 * time.Second
	maxWatching     = 64 // of one client
)

func (o Options) filled() Options {
	if o.Connections <= 0 {
		o.Connections = 256
	}
	if o.Timeout <= 0 {
		o.Timeout = defaultTimeout
	}
	if o.MaxBytes <= 0 {
		o.MaxBytes = defaultMaxBytes
	}
	if o.TLS == nil {
		o.TLS = &tls.Config{}
	}
	o.TLS = o.TLS.Clone()
	return o
}

// Dial asks the handler at address, such as https://store.example:7443, what
// it is, and gives a store that uses it. Handlers that are mounted under a path
// have it in the address. The error says what is wrong with the address, the
// connection, the credentials or the version, and what to do.
//
// http:// is taken for loopback addresses only, where nobody can listen, unless
// Options.Insecure is set. Proxies of the environment are not used.
func Dial(ctx context.Context, address string, o Options) (*Store, error) {
	o = o.filled()
	base, local, err := checkAddress(address, &o)
	if err != nil {
		return nil, fmt.Errorf("remote: %w", err)
	}
	c := &client{base: base, options: o, transport: newTransport(&o, local), maxBytes: o.MaxBytes}
	c.end, c.stop = context.WithCancel(context.Background())
	h, err := c.hello(ctx)
	if err != nil {
		c.close()
		return nil, fmt.Errorf("remote: cannot use the store at %s: %w", base, err)
	}
	c.maxBytes = min(c.maxBytes, h.MaxBytes)
	s := &Store{core: &core{c}, description: h.describe(base, o.Insecure)}
	s.abilities = chain(s.core, h.Abilities)
	return s, nil
}

// checkAddress gives the address without a slash at its end, and tells whether
// it may lead to this machine only.
func checkAddress(address string, o *Options) (base string, local bool, err error) {
	fail := func(format string, args ...any) (string, bool, error) { return "", false, fmt.Errorf(format, args...) }
	u, err := url.Parse(address)
	switch {
	case err != nil:
		return fail("the address is no URL: %w", err)
	case u.User != nil:
		return fail("the address has a user or password in it, which end up in logs; use Options.Token")
	case u.Scheme != "https" && u.Scheme != "http":
		return fail("the address %q must begin with https:// (or http://, to this machine)", address)
	case u.Hostname() == "":
		return fail("the address %q names no host", address)
	case u.RawQuery != "" || u.Fragment != "":
		return fail("the address %q must end after its path", address)
	case o.TLS.InsecureSkipVerify && !o.Insecure:
		return fail("TLS.InsecureSkipVerify lets anybody on the way answer as the store; put the server's CA into TLS.RootCAs, or set Insecure if you mean it")
	case o.HTTP2 && u.Scheme == "http":
		return fail("HTTP2 wants https://")
	case strings.ContainsFunc(o.Token, func(r rune) bool { return r <= ' ' || r > '~' }):
		return fail("the token must be visible ASCII without spaces; is there a line feed at its end?")
	}
	local = u.Scheme == "http" && !o.Insecure
	if local && !isLocalName(u.Hostname()) {
		return fail("http:// to %s would send the token and every record for anybody on the way to read; use https://, or set Insecure if you mean it", u.Hostname())
	}
	u.Path = strings.TrimRight(u.Path, "/")
	return u.String(), local, nil
}

func isLocalName(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.IsLoopback()
}

// newTransport gives connections for one handler. local refuses to talk to
// another machine, whatever a name resolves to.
func newTransport(o *Options, local bool) *http.Transport {
	dialer := &net.Dialer{Timeout: 10 * time.Second, KeepAlive: 15 * time.Second}
	dial := dialer.DialContext
	if local {
		dial = func(ctx context.Context, network, address string) (net.Conn, error) {
			conn, err := dialer.DialContext(ctx, network, address)
			if err != nil {
				return nil, err
			}
			return onlyLocal(conn)
		}
	}
	t := &http.Transport{
		DialContext:         dial,
		TLSClientConfig:     o.TLS,
		TLSHandshakeTimeout: 10 * time.Second,
		DisableCompression:  true,
		MaxIdleConns:        0,
		MaxIdleConnsPerHost: o.Connections,
		MaxConnsPerHost:     o.Connections + maxWatching,
		// Shorter than servers keep them: on a connection that the server is about to
		// close, a call is lost.
		IdleConnTimeout:        20 * time.Second,
		MaxResponseHeaderBytes: 64 << 10,
		Protocols:              new(http.Protocols),
	}
	if o.HTTP2 {
		// Without pings, a connection that went dead in silence would be used on and on.
		t.Protocols.SetHTTP2(true)
		t.HTTP2 = &http.HTTP2Config{SendPingTimeout: 5 * time.Second, PingTimeout: 5 * time.Second}
	} else {
		t.Protocols.SetHTTP1(true)
	}
	return t
}

// onlyLocal closes a connection that leads to another machine.
func onlyLocal(conn net.Conn) (net.Conn, error) {
	peer := conn.RemoteAddr()
	if ip, err := netip.ParseAddrPort(peer.String()); err != nil || !ip.Addr().Unmap().IsLoopback() {
		conn.Close()
		return nil, fmt.Errorf("%s is not this machine, and nothing was sent; use https://", peer)
	}
	return conn, nil
}

// hello is what a handler says of itself, as JSON: this form stays, whatever
// the version of the rest, so that any two versions can tell that they differ.
type hello struct {
	Semel    string `json:"semel"` // "store"
	Versions struct {
		Min int `json:"min"`
		Max int `json:"max"`
	} `json:"versions"`
	MaxBytes  int      `json:"max_bytes"`
	Abilities []string `json:"abilities"`
	// Description is absent if the far store does not describe itself.
	Description *description `json:"description,omitempty"`
}

type description struct {
	Survives   string   `json:"survives"`
	Durability string   `json:"durability"`
	Clock      string   `json:"clock"`
	Cautions   []string `json:"cautions,omitempty"`
	Traits     []string `json:"traits,omitempty"`
}

// hello asks who is there, and refuses whom it does not understand.
func (c *client) hello(ctx context.Context) (*hello, error) {
	ctx, cancel := context.WithTimeout(ctx, c.options.Timeout)
	defer cancel()
	request, err := c.request(ctx, http.MethodGet, helloPath, nil)
	if err != nil {
		return nil, err
	}
	data, err := c.send(request, "application/json", 1<<20)
	if err != nil {
		return nil, err
	}
	var h hello
	switch err := json.Unmarshal(data, &h); {
	case err != nil:
		return nil, fmt.Errorf("its greeting does not decode: %w", err)
	case h.Semel != "store":
		return nil, errors.New("its greeting is not that of a Semel store; is the URL right?")
	case h.Versions.Max < protocol:
		return nil, fmt.Errorf("it speaks the versions %d to %d of the protocol and this process %d: update the far side", h.Versions.Min, h.Versions.Max, protocol)
	case h.Versions.Min > protocol:
		return nil, fmt.Errorf("it speaks the versions %d to %d of the protocol and this process %d: update this side", h.Versions.Min, h.Versions.Max, protocol)
	case h.MaxBytes < minMaxBytes:
		return nil, fmt.Errorf("it takes messages of %d bytes at most, and %d are needed", h.MaxBytes, minMaxBytes)
	}
	return &h, nil
}

// describe is what the far store tells of itself, seen from here.
func (h *hello) describe(base string, insecure bool) semel.Description {
	d := semel.Description{
		Durability: "unknown: the store behind " + base + " does not tell what its records survive",
		Clock:      "that of the store behind " + base,
	}
	if far := h.Description; far != nil {
		d.Durability = printable(far.Durability) + " (at " + base + ")"
		d.Clock = printable(far.Clock) + " (at " + base + ")"
		for s := semel.SurvivesNothing; s <= semel.SurvivesFailover; s++ {
			if s.String() == far.Survives {
				d.Survives = s
			}
		}
		for _, caution := range far.Cautions {
			d.Cautions = append(d.Cautions, printable(caution))
		}
		for _, trait := range far.Traits {
			d.Traits = append(d.Traits, semel.Trait(printable(trait)))
		}
	}
	if insecure {
		d.Cautions = append(d.Cautions, "Insecure is set: whoever is on the way to "+base+" can read and forge records; use https:// with a certificate that is checked")
	}
	return d
}
