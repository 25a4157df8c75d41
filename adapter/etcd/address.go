package etcd

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"strings"
)

// address is a store's URL, read.
type address struct {
	endpoints      []string // http://host:port or https://host:port
	prefix         string   // begins and ends with a slash
	user, password string
	tls            *tls.Config // nil: plain
}

const wanted = "want etcd://[user:password@]host:port[,host:port…]/prefix[?tls=true&ca=FILE&cert=FILE&key=FILE&server-name=NAME]"

// parseAddress reads a URL. It is not net/url that splits it, which knows of one
// host only.
func parseAddress(text string) (address, error) {
	fail := func(format string, args ...any) (address, error) {
		// The text is not repeated: it may hold a password.
		return address{}, fmt.Errorf("etcd: the store's URL: %s; %s", fmt.Sprintf(format, args...), wanted)
	}
	rest, ok := strings.CutPrefix(text, "etcd://")
	if !ok {
		return fail("it does not begin with etcd://")
	}
	rest, query, _ := strings.Cut(rest, "?")
	hosts, prefix, _ := strings.Cut(rest, "/")
	var a address
	if i := strings.LastIndexByte(hosts, '@'); i >= 0 {
		user, password, _ := strings.Cut(hosts[:i], ":")
		var err error
		if a.user, err = url.PathUnescape(user); err == nil {
			a.password, err = url.PathUnescape(password)
		}
		if err != nil || a.user == "" || a.password == "" {
			return fail("before the @ there must be user:password, with odd characters escaped as %%40")
		}
		hosts = hosts[i+1:]
	}
	var err error
	if a.prefix, err = url.PathUnescape(strings.Trim(prefix, "/")); err != nil {
		return fail("the prefix: %v", err)
	}
	if a.prefix == "" {
		a.prefix = "semel"
	}
	a.prefix = "/" + a.prefix + "/"
	if err := a.parseQuery(query); err != nil {
		return fail("%v", err)
	}
	scheme := "http://"
	if a.tls != nil {
		scheme = "https://"
	}
	for host := range strings.SplitSeq(hosts, ",") {
		name, port, err := net.SplitHostPort(host)
		if err != nil || name == "" || port == "" {
			return fail("%q is no host:port", host)
		}
		a.endpoints = append(a.endpoints, scheme+host)
	}
	return a, nil
}

func (a *address) parseQuery(query string) error {
	values, err := url.ParseQuery(query)
	if err != nil {
		return err
	}
	for name, v := range values {
		switch {
		case len(v) != 1 || v[0] == "":
			return fmt.Errorf("the parameter %q must have one value", name)
		case name != "tls" && name != "ca" && name != "cert" && name != "key" && name != "server-name":
			return fmt.Errorf("the parameter %q is not known", name)
		}
	}
	switch on := values.Get("tls"); {
	case on != "" && on != "true" && on != "false":
		return fmt.Errorf("tls=%s is neither true nor false", on)
	case on == "false" && len(values) > 1:
		return errors.New("tls=false goes with no other parameter")
	case len(values) == 0 || on == "false":
		return nil
	}
	a.tls, err = tlsConfig(values.Get("ca"), values.Get("cert"), values.Get("key"), values.Get("server-name"))
	return err
}

// tlsConfig reads the files now, so that a missing one is told at the start.
func tlsConfig(ca, cert, key, serverName string) (*tls.Config, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: serverName}
	if ca != "" {
		pem, err := os.ReadFile(ca)
		if err != nil {
			return nil, fmt.Errorf("ca: %w", err)
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("ca: there is no certificate in %s", ca)
		}
	}
	if (cert == "") != (key == "") {
		return nil, errors.New("cert and key go together")
	}
	if cert != "" {
		pair, err := tls.LoadX509KeyPair(cert, key)
		if err != nil {
			return nil, fmt.Errorf("cert and key: %w", err)
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return c, nil
}
