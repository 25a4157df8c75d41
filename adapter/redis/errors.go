package redis

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"

	"github.com/redis/rueidis"

	"github.com/semelhq/semel"
)

// hasCode tells whether the server's error begins with the word code.
func hasCode(err *rueidis.RedisError, code string) bool {
	first, _, _ := strings.Cut(err.Error(), " ")
	return first == code
}

// advice says for the first word of a server's error what it means here and
// what to do. Each of them came before anything was written.
func advice(code string) string {
	switch code {
	case "NOAUTH":
		return "the server wants a password: put user and password into the URL"
	case "WRONGPASS":
		return "the user name or the password is wrong, or the user is disabled"
	case "NOPERM":
		return "this user may not run a command, or reach a key or channel, that the store needs: README.md has the ACL line"
	case "READONLY":
		return "this server is a replica; after a failover connect to the new master, or use a redis+sentinel:// URL, which follows it"
	case "OOM":
		return "the server's memory is full and nothing was written: raise maxmemory, or keep results for a shorter time; do not let it evict"
	case "MISCONF":
		return "the server cannot write its snapshot or append-only file and takes no writes: look at its log and its disk"
	case "NOREPLICAS":
		return "fewer replicas are connected than min-replicas-to-write asks for, so the server takes no writes"
	case "WRONGTYPE":
		return "another program has a key of that name: take another prefix, as prefix= in the URL"
	case "LOADING":
		return "the server is still reading its data set; try again soon"
	case "BUSY":
		return "a script of somebody's keeps the server busy"
	case "CLUSTERDOWN":
		return "the Cluster is down or misses slots; nothing was written there: look at CLUSTER INFO"
	case "MASTERDOWN":
		return "this replica has lost its master"
	case "CROSSSLOT", "MOVED", "ASK":
		return "the server is part of a Cluster: use a redis+cluster:// URL"
	}
	return ""
}

// explain says in an error's words what went wrong with which server.
func explain(name, verb string, err error) error {
	var told *rueidis.RedisError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &told):
		code, _, _ := strings.Cut(told.Error(), " ")
		if strings.Contains(told.Error(), "can't run this command") {
			code = "NOPERM" // as it is told of a script
		}
		if text := advice(code); text != "" {
			return fmt.Errorf("redis %s: cannot %s: %s: %w", name, verb, text, err)
		}
		return fmt.Errorf("redis %s: cannot %s: the server reports an error: %w", name, verb, err)
	case errors.Is(err, rueidis.ErrClosing):
		return errClosed
	case errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("redis %s: cannot %s: nobody listens there: is the server running, and are host and port right?: %w", name, verb, err)
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("redis %s: cannot %s: no answer in time; what was sent may or may not be done: %w", name, verb, err)
	}
	return fmt.Errorf("redis %s: cannot %s: %w", name, verb, err)
}

func (c *client) explain(verb string, err error) error { return explain(c.name, verb, err) }

func errReplica(name string) error {
	return fmt.Errorf("redis %s: this server is a replica, which takes no writes: connect to its master, or use a redis+sentinel:// URL, which finds it", name)
}

// lost is the error for a data set that has lost writes.
func (c *client) lost(name string) error {
	return fmt.Errorf("%w: redis %s: the data set under %q has lost writes that were acknowledged, by a FLUSHALL, a restart without its append-only file, "+
		"a failover or an old backup: operations that it has forgotten would run again, so nothing runs; find out which they are, then "+
		"accept the loss with AcceptLoss %q (accept-loss= in the URL)", semel.ErrUnavailable, c.name, c.options.Prefix, name)
}
