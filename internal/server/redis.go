package server

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// RedisOptions are the options of StartRedis, StartRedisCluster and StartSentinel.
type RedisOptions struct {
	// Settings are lines for redis.conf, name to value, over the defaults here:
	// Redis' own, but every write is in the append-only file, on disk, before it is
	// answered (appendonly yes, appendfsync always), and there are no snapshots.
	Settings map[string]string
}

// Redis is a Redis server. It is safe for concurrent use.
type Redis struct {
	program
	port     int
	settings map[string]string
}

// StartRedis starts a Redis server of its own in dir, without a password unless
// Settings has requirepass.
func StartRedis(dir string, o RedisOptions) (*Redis, error) {
	r, err := newRedis(dir, o.Settings)
	if err != nil {
		return nil, err
	}
	if err := onFreePorts(1, func(ports []int) error { return r.startFirst(ports[0]) }); err != nil {
		return nil, err
	}
	return r, nil
}

// newRedis finds the program and makes the directory.
func newRedis(dir string, settings map[string]string) (*Redis, error) {
	binary, err := redisProduct().find()
	if err != nil {
		return nil, err
	}
	if dir, err = makePlace(dir); err != nil {
		return nil, err
	}
	r := &Redis{settings: maps.Clone(settings)}
	r.program = program{
		name: "Redis", version: version(binary), dir: dir, orderly: syscall.SIGTERM,
		command: func() *exec.Cmd { return exec.Command(binary, r.file()) },
		ready:   r.answers,
	}
	return r, nil
}

// startFirst writes the configuration and starts, at a port.
func (r *Redis) startFirst(port int) error {
	r.port = port
	if err := r.configure(); err != nil {
		return err
	}
	return r.Start()
}

func (r *Redis) configure() error {
	settings := map[string]string{
		"appendonly":  "yes",
		"appendfsync": "always",
		"save":        "",
		// Seconds that a master waits for further replicas before it sends its data.
		"repl-diskless-sync-delay": "0",
		"bind":                     "127.0.0.1",
		"port":                     strconv.Itoa(r.port),
		"dir":                      r.dir,
	}
	maps.Copy(settings, r.settings)
	return r.account.write(r.file(), redisLines(settings))
}

func redisLines(settings map[string]string) string {
	var text strings.Builder
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		value := settings[name]
		if value == "" {
			value = `""`
		}
		fmt.Fprintln(&text, name, value)
	}
	return text.String()
}

func (r *Redis) file() string { return filepath.Join(r.dir, "redis.conf") }

// answers is one attempt to see the server ready: it tells its process id, and
// is not loading its data any more.
func (r *Redis) answers(pid int) error {
	info, err := r.call("INFO")
	if err != nil {
		return err
	}
	if got := field(info, "process_id"); got != strconv.Itoa(pid) {
		return fmt.Errorf("process %s has the port", got)
	}
	if field(info, "loading") == "1" {
		return errors.New("it is loading its data")
	}
	return nil
}

// field returns the value of a line name:value.
func field(info, name string) string {
	for line := range strings.Lines(info) {
		if value, ok := strings.CutPrefix(line, name+":"); ok {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// URL is the server's address, with the password if Settings has one.
func (r *Redis) URL() string {
	if password := r.settings["requirepass"]; password != "" {
		return "redis://:" + password + "@" + r.Address()
	}
	return "redis://" + r.Address()
}

// Address is host and port.
func (r *Redis) Address() string { return address(r.port) }

// Replica makes a replica of the server in dir, with the same settings, and
// returns when it has the server's data and receives what is written.
func (r *Redis) Replica(dir string) (*Redis, error) {
	settings := map[string]string{"replicaof": "127.0.0.1 " + strconv.Itoa(r.port)}
	maps.Copy(settings, r.settings)
	if password := r.settings["requirepass"]; password != "" {
		settings["masterauth"] = password
	}
	replica, err := StartRedis(dir, RedisOptions{Settings: settings})
	if err != nil {
		return nil, err
	}
	if err := until(replica.name, func() error { return replica.expect("INFO", "master_link_status", "up") }); err != nil {
		return nil, errors.Join(err, replica.Kill())
	}
	return replica, nil
}

// expect is one attempt to find a field of an answer at a value.
func (r *Redis) expect(command, name, want string) error {
	text, err := r.call(strings.Fields(command)...)
	if err != nil {
		return err
	}
	if got := field(text, name); got != want {
		return fmt.Errorf("%s at %s: %s is %q, want %q", command, r.Address(), name, got, want)
	}
	return nil
}

// until repeats an attempt until it succeeds.
func until(what string, attempt func() error) error {
	deadline := time.Now().Add(waitTimeout)
	for {
		err := attempt()
		if err == nil {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%s: after %v: %w", what, waitTimeout, err)
		}
		time.Sleep(pollEvery)
	}
}

// call sends one command on a connection of its own and returns the answer,
// the items of a list one a line.
func (r *Redis) call(args ...string) (answer string, err error) {
	conn, err := net.DialTimeout("tcp", r.Address(), time.Second)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return "", err
	}
	in := bufio.NewReader(conn)
	commands := [][]string{args}
	if password := r.settings["requirepass"]; password != "" {
		commands = [][]string{{"AUTH", password}, args}
	}
	for _, command := range commands {
		text := fmt.Sprintf("*%d\r\n", len(command))
		for _, arg := range command {
			text += fmt.Sprintf("$%d\r\n%s\r\n", len(arg), arg)
		}
		if _, err := io.WriteString(conn, text); err != nil {
			return "", err
		}
		if answer, err = readAnswer(in); err != nil {
			return "", fmt.Errorf("%s at %s: %w", command[0], r.Address(), err)
		}
	}
	return answer, nil
}

// readAnswer reads an answer in Redis' protocol, version 2.
func readAnswer(in *bufio.Reader) (string, error) {
	line, err := in.ReadString('\n')
	if err != nil {
		return "", err
	}
	kind, line := line[0], strings.TrimRight(line[1:], "\r\n")
	if kind == '-' {
		return "", errors.New(line)
	}
	if kind == '+' || kind == ':' {
		return line, nil
	}
	n, err := strconv.Atoi(line)
	if err != nil || kind != '$' && kind != '*' {
		return "", fmt.Errorf("no answer of Redis: %c%s", kind, line)
	}
	if kind == '$' {
		if n < 0 {
			return "", nil
		}
		text := make([]byte, n+len("\r\n"))
		_, err := io.ReadFull(in, text)
		return string(text[:n]), err
	}
	var items strings.Builder
	for range n {
		item, err := readAnswer(in)
		if err != nil {
			return "", err
		}
		items.WriteString(item + "\n")
	}
	return items.String(), nil
}
