package server

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// Clock is the whole clock of servers that are started with its Environment, by
// libfaketime. What they measure durations with goes on as usual. It is safe for
// concurrent use.
type Clock struct {
	library, dir string
}

// NewClock gives a clock that shows this machine's time. End it with Remove.
func NewClock() (*Clock, error) {
	found, err := filepath.Glob("/usr/lib/*/faketime/libfaketime.so.1")
	if err != nil {
		return nil, err
	}
	if len(found) == 0 {
		return nil, errors.New("libfaketime is not installed: make servers installs it (Debian: apt-get install libfaketime)")
	}
	// Servers run as other users and have to reach the file.
	dir, err := os.MkdirTemp("", "semel-clock")
	if err != nil {
		return nil, err
	}
	c := &Clock{found[0], dir}
	if err := errors.Join(os.Chmod(dir, 0o755), c.Set(0)); err != nil {
		return nil, errors.Join(err, c.Remove())
	}
	return c, nil
}

func (c *Clock) file() string { return filepath.Join(c.dir, "clock") }

// Environment is for the options of a server.
func (c *Clock) Environment() []string {
	return []string{
		"LD_PRELOAD=" + c.library, "FAKETIME_TIMESTAMP_FILE=" + c.file(), "FAKETIME_NO_CACHE=1", "FAKETIME_DONT_FAKE_MONOTONIC=1",
	}
}

// Set sets how far the clock is ahead of this machine's, in whole seconds.
func (c *Clock) Set(ahead time.Duration) error {
	next, err := os.CreateTemp(c.dir, "next")
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(next, "%+d\n", int(ahead.Seconds()))
	return errors.Join(err, next.Chmod(0o644), next.Close(), os.Rename(next.Name(), c.file()))
}

// Remove removes what the clock needs. Stop its servers before.
func (c *Clock) Remove() error { return os.RemoveAll(c.dir) }
