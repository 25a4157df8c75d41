package redis

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"

	"github.com/redis/rueidis"
)

// target is what a URL says.
type target struct {
	name     string // without secrets, for people
	client   rueidis.ClientOption
	cluster  bool
	sentinel bool
	// What the URL may say in place of Options.
	prefix, acceptLoss string
}

// parseURL reads a URL. Open's comment has its forms.
func parseURL(raw string) (*target, error) {
	u, err := url.Parse(raw)
	if err != nil {
		// The error of package url repeats the URL, and the password in it.
		return nil, errors.New("redis: the URL does not parse: redis://user:password@host:6379/0 is wanted, with special characters of the password as %XX")
	}
	fail := func(format string, args ...any) (*target, error) {
		return nil, fmt.Errorf("redis: the URL %s: %s", u.Redacted(), fmt.Sprintf(format, args...))
	}
	t := &target{}
	secure := false
	port := "6379"
	switch u.Scheme {
	case "redis":
	case "rediss":
		secure = true
	case "redis+sentinel", "rediss+sentinel":
		t.sentinel, secure, port = true, u.Scheme == "rediss+sentinel", "26379"
	case "redis+cluster", "rediss+cluster":
		t.cluster, secure = true, u.Scheme == "rediss+cluster"
	default:
		return fail("the scheme %q is not known; there are redis, rediss (TLS), redis+sentinel, redis+cluster, rediss+sentinel and rediss+cluster", u.Scheme)
	}
	o := &t.client
	for _, host := range strings.Split(u.Host, ",") {
		address, err := address(host, port)
		if err != nil {
			return fail("%v", err)
		}
		o.InitAddress = append(o.InitAddress, address)
	}
	if len(o.InitAddress) > 1 && !t.cluster && !t.sentinel {
		return fail("it names %d servers: take redis+sentinel:// or redis+cluster://", len(o.InitAddress))
	}
	if secure {
		o.TLSConfig = &tls.Config{MinVersion: tls.VersionTLS12}
		if !t.cluster && !t.sentinel {
			o.TLSConfig.ServerName, _, _ = net.SplitHostPort(o.InitAddress[0])
		}
	}
	if u.User != nil {
		o.Username = u.User.Username()
		o.Password, _ = u.User.Password()
	}
	if db := strings.Trim(u.Path, "/"); db != "" {
		if o.SelectDB, err = strconv.Atoi(db); err != nil || o.SelectDB < 0 {
			return fail("%q is no database: a number such as /0 is wanted", db)
		}
	}
	if t.cluster && o.SelectDB != 0 {
		return fail("a Cluster has database 0 only")
	}
	if problem := t.query(u); problem != "" {
		return fail("%s", problem)
	}
	t.name = u.Scheme + "://" + u.Host
	return t, nil
}

// address gives host:port of what stands in a URL.
func address(host, port string) (string, error) {
	u := url.URL{Host: host}
	if u.Hostname() == "" {
		return "", errors.New("it names no server: redis://host:6379 is wanted")
	}
	if u.Port() != "" {
		port = u.Port()
	}
	if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 {
		return "", fmt.Errorf("%q is no port", port)
	}
	return net.JoinHostPort(u.Hostname(), port), nil
}

// query reads what follows the question mark, and tells what is wrong with it.
func (t *target) query(u *url.URL) string {
	values, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return "what follows the question mark does not parse"
	}
	sentinel := &t.client.Sentinel
	for name, all := range values {
		value := all[len(all)-1]
		switch {
		case len(all) > 1:
			return fmt.Sprintf("%s= is there %d times", name, len(all))
		case name == "prefix":
			t.prefix = value
		case name == "accept-loss":
			t.acceptLoss = value
		case name == "master" && t.sentinel:
			sentinel.MasterSet = value
		case name == "sentinel-user" && t.sentinel:
			sentinel.Username = value
		case name == "sentinel-password" && t.sentinel:
			sentinel.Password = value
		default:
			return fmt.Sprintf("%s= is not known here; there are prefix=, accept-loss=, and with Sentinel master=, sentinel-user= and sentinel-password=", name)
		}
	}
	if t.sentinel && sentinel.MasterSet == "" {
		return "with Sentinel, master= has to name the group, as in redis+sentinel://host1,host2/0?master=mymaster"
	}
	return ""
}
