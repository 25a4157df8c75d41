package mysql

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"
	"time"

	client "github.com/go-sql-driver/mysql"
)

// urlForm is how a URL is written, for errors.
const urlForm = "mysql://user:password@host:3306/database"

// address is where the database is, and what may be shown of it.
type address struct {
	config *client.Config
	shown  string // without the password
}

// parseURL reads a mysql:// or mariadb:// URL. The errors do not show the
// password.
func parseURL(text string) (address, error) {
	fail := func(format string, args ...any) (address, error) {
		return address{}, fmt.Errorf("mysql: "+format+"; write "+urlForm, args...)
	}
	u, err := url.Parse(text)
	switch {
	case err != nil:
		var reason *url.Error
		if errors.As(err, &reason) {
			err = reason.Err
		}
		return fail("the URL cannot be read: %w", err)
	case u.Scheme != "mysql" && u.Scheme != "mariadb":
		return fail("the URL begins with %q, not with mysql://", u.Scheme)
	case u.User.Username() == "":
		return fail("the URL %s names no user", u.Redacted())
	case strings.Trim(u.Path, "/") == "" || strings.Contains(u.Path[1:], "/"):
		return fail("the URL %s does not name one database", u.Redacted())
	case u.Fragment != "" || u.Opaque != "":
		return fail("the URL %s has parts that mean nothing here", u.Redacted())
	}
	c := client.NewConfig()
	c.User, c.DBName = u.User.Username(), u.Path[1:]
	c.Passwd, _ = u.User.Password()
	c.Net, c.Addr = "tcp", u.Host
	if u.Hostname() != "" && u.Port() == "" {
		c.Addr = net.JoinHostPort(u.Hostname(), "3306")
	}
	if err := setParameters(c, u.Query()); err != nil {
		return fail("the URL %s: %w", u.Redacted(), err)
	}
	if u.Hostname() == "" && c.Net == "tcp" {
		return fail("the URL %s names no host", u.Redacted())
	}
	c.Timeout = 5 * time.Second
	c.MultiStatements = true // a swap is one packet of several statements
	c.MaxAllowedPacket = 1 << 30
	c.Logger = &client.NopLogger{} // what goes wrong is in the errors
	return address{config: c, shown: u.Redacted()}, nil
}

func setParameters(c *client.Config, parameters url.Values) error {
	for name, values := range parameters {
		value := values[0]
		switch {
		case len(values) > 1:
			return fmt.Errorf("the parameter %s is there %d times", name, len(values))
		case name == "tls" && slices.Contains([]string{"true", "false", "skip-verify", "preferred"}, value):
			c.TLSConfig = value
		case name == "tls":
			return fmt.Errorf("tls=%s is none of true, false, skip-verify and preferred", value)
		case name == "socket" && strings.HasPrefix(value, "/"):
			c.Net, c.Addr = "unix", value
		case name == "socket":
			return fmt.Errorf("socket=%s is no absolute path", value)
		default:
			return fmt.Errorf("the parameter %s is unknown; there are tls and socket", name)
		}
	}
	return nil
}
