package server

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// makePlace makes the directory of a server, or takes an empty one, and returns its absolute path.
func makePlace(dir string) (string, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return "", err
	}
	if len(entries) > 0 {
		return "", fmt.Errorf("the directory %s is not empty, and a server needs one of its own: it holds %s", dir, entries[0].Name())
	}
	return dir, nil
}

// give makes the account the owner of dir and opens the way to it.
func (a account) give(dir string) error {
	if a.self() {
		return nil
	}
	if err := os.Chown(dir, a.uid, a.gid); err != nil {
		return err
	}
	temp, err := filepath.EvalSymlinks(os.TempDir())
	if err != nil {
		return err
	}
	if dir, err = filepath.EvalSymlinks(dir); err != nil {
		return err
	}
	for up := filepath.Dir(dir); up != filepath.Dir(up); up = filepath.Dir(up) {
		info, err := os.Stat(up)
		if err != nil {
			return err
		}
		if info.Mode()&0o001 != 0 {
			continue
		}
		if !strings.HasPrefix(up, temp+string(filepath.Separator)) {
			return fmt.Errorf("the server runs as %s, since it refuses root, and may not pass through %s (%v):"+
				" choose a directory in %s, or chmod +x that one", a.name, up, info.Mode(), temp)
		}
		if err := os.Chmod(up, info.Mode().Perm()|0o011); err != nil {
			return err
		}
	}
	return nil
}

// write writes a file of the account's.
func (a account) write(path, text string) error {
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		return err
	}
	if a.self() {
		return nil
	}
	return os.Chown(path, a.uid, a.gid)
}

// mkdir makes a directory of the account's.
func (a account) mkdir(path string) error {
	if err := os.Mkdir(path, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if a.self() {
		return nil
	}
	return os.Chown(path, a.uid, a.gid)
}

// Ports lie below those that the system takes for outgoing connections, so that
// a port stays free while its server is down; busOffset above, too, where Redis
// Cluster has its bus.
const (
	firstPort = 10000
	lastPort  = 22000
	busOffset = 10000
)

// freePorts returns n ports that could be bound a moment ago, and so could those busOffset above.
func freePorts(n int) ([]int, error) {
	var ports []int
	var held []net.Listener
	defer func() {
		for _, l := range held {
			_ = l.Close() // it never accepted anything
		}
	}()
	for range 1000 {
		port := firstPort + rand.IntN(lastPort-firstPort)
		own, err := net.Listen("tcp", address(port))
		if err != nil {
			continue
		}
		held = append(held, own)
		bus, err := net.Listen("tcp", address(port+busOffset))
		if err != nil {
			continue
		}
		held = append(held, bus)
		if ports = append(ports, port); len(ports) == n {
			return ports, nil
		}
	}
	return nil, fmt.Errorf("no %d free ports on 127.0.0.1 between %d and %d after 1000 attempts", n, firstPort, lastPort)
}

func address(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

// onFreePorts calls start with n free ports, and again with others if it turns
// out that somebody else was quicker.
func onFreePorts(n int, start func(ports []int) error) error {
	for attempt := 0; ; attempt++ {
		ports, err := freePorts(n)
		if err != nil {
			return err
		}
		if err = start(ports); err == nil || !errors.Is(err, errPortTaken) || attempt == 5 {
			return err
		}
	}
}
