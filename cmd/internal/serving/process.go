package serving

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// Reachable gives an address as a URL that works from this machine.
func Reachable(address string) string {
	host, port, err := net.SplitHostPort(address)
	if ip := net.ParseIP(host); err == nil && ip != nil && ip.IsUnspecified() {
		return "http://localhost:" + port + " (all addresses of this machine)"
	}
	return "http://" + address
}

// Logger gives a logger that writes to w, and whether it does so for people. level is
// debug, info, warn or error; format is text, json, or auto: text on a terminal.
func Logger(w io.Writer, level, format string) (log *slog.Logger, text bool) {
	var l slog.Level
	_ = l.UnmarshalText([]byte(level)) // checked when it was read
	options := &slog.HandlerOptions{Level: l}
	if text = format == "text" || format == "auto" && IsTerminal(w); text {
		return slog.New(slog.NewTextHandler(w, options)), true
	}
	return slog.New(slog.NewJSONHandler(w, options)), false
}

// IsTerminal tells whether people read w.
func IsTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// leastSecret is how many bytes of a secret cannot be guessed.
const leastSecret = 16

// Secret reads the secret of a file, nil if path is empty. It logs if strangers can.
func Secret(path string, log *slog.Logger) ([]byte, error) {
	if path == "" {
		return nil, nil
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("the secret file cannot be read, and without it every key would be a new one: %w", err)
	}
	if data = bytes.TrimRight(data, "\r\n"); len(data) < leastSecret {
		return nil, fmt.Errorf("the secret in %s has %d bytes; at least %d are needed: make one with `head -c 32 /dev/urandom | base64 > %[1]s`", path, len(data), leastSecret)
	}
	if info, err := os.Stat(path); err == nil && info.Mode().Perm()&0o004 != 0 {
		log.Warn("every user of this machine can read the secret file; restrict it, as with chmod 600", "file", path)
	}
	return data, nil
}

// Listen opens a listener. Its errors say what to do, with the flag's name.
func Listen(address, flag string) (net.Listener, error) {
	l, err := net.Listen("tcp", address)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("cannot listen on %s: another program does already, perhaps another gateway: stop it, or take another port with %s", address, flag)
	case errors.Is(err, syscall.EACCES):
		return nil, fmt.Errorf("cannot listen on %s: this user may not; ports below 1024 need privileges, so take a higher one with %s", address, flag)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return nil, fmt.Errorf("cannot listen on %s: this machine does not have that address; take another with %s, or :PORT for all", address, flag)
	case err != nil:
		return nil, fmt.Errorf("cannot listen on %s (%s): %w", address, flag, err)
	}
	return l, nil
}

// UntilSignal gives a context that ends at the first SIGINT or SIGTERM. The second
// ends the process at once, with the exit code 1. drain is told to people.
func UntilSignal(log *slog.Logger, drain time.Duration) (context.Context, func()) {
	ctx, cancel := context.WithCancel(context.Background())
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		select {
		case <-signals:
		case <-ctx.Done():
			return
		}
		log.Info("stopping: running requests are finished first; a second signal stops at once", "at_most", drain.String())
		cancel()
		<-signals
		log.Error("stopped at once; the keys of requests that were running are in doubt when their leases end")
		os.Exit(1)
	}()
	return ctx, func() {
		signal.Stop(signals)
		cancel()
	}
}
