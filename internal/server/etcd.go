package server

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// EtcdOptions are the options of StartEtcd.
type EtcdOptions struct {
	// Settings are flags without their dashes, name to value, over the defaults
	// here, which are etcd's own. Of these, election-timeout (1000 ms) is what a
	// start takes, and half again as much is the shortest lease that etcd grants.
	Settings map[string]string
}

// Etcd is an etcd cluster of one member. It is safe for concurrent use.
type Etcd struct {
	program
	port     int
	peerPort int
	settings map[string]string
}

// StartEtcd starts an etcd server of its own in dir, without authentication.
func StartEtcd(dir string, o EtcdOptions) (*Etcd, error) {
	binary, err := etcdProduct().find()
	if err != nil {
		return nil, err
	}
	if dir, err = makePlace(dir); err != nil {
		return nil, err
	}
	e := &Etcd{settings: maps.Clone(o.Settings)}
	e.program = program{
		name: "etcd", version: version(binary), dir: dir, orderly: syscall.SIGTERM,
		command: func() *exec.Cmd { return exec.Command(binary, e.flags()...) },
		ready:   func(int) error { return e.answers() },
	}
	if err := onFreePorts(2, func(ports []int) error {
		e.port, e.peerPort = ports[0], ports[1]
		return e.Start()
	}); err != nil {
		return nil, err
	}
	return e, nil
}

// member is the member's name, which tells it from any other etcd: no two have one directory.
func (e *Etcd) member() string { return e.dir }

func (e *Etcd) flags() []string {
	peer := "http://" + address(e.peerPort)
	settings := map[string]string{
		"name":                        e.member(),
		"data-dir":                    filepath.Join(e.dir, "data"),
		"listen-client-urls":          e.URL(),
		"advertise-client-urls":       e.URL(),
		"listen-peer-urls":            peer,
		"initial-advertise-peer-urls": peer,
		"initial-cluster":             e.member() + "=" + peer,
	}
	maps.Copy(settings, e.settings)
	var flags []string
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		flags = append(flags, "--"+name+"="+settings[name])
	}
	return flags
}

// answers is one attempt to see the server ready: it names itself, and is
// healthy, which includes a read that its leader, itself, has agreed to.
func (e *Etcd) answers() error {
	members, err := e.post("/v3/cluster/member/list", "{}")
	if err != nil {
		return err
	}
	if !strings.Contains(members, fmt.Sprintf("%q", e.member())) {
		return fmt.Errorf("another etcd has the port: %s", members)
	}
	text, err := e.do(http.MethodGet, "/health", "")
	if err != nil {
		return err
	}
	var health struct{ Health string }
	if err := json.Unmarshal([]byte(text), &health); err != nil {
		return fmt.Errorf("%s: %w", text, err)
	}
	if health.Health != "true" {
		return fmt.Errorf("it is not healthy: %s", text)
	}
	return nil
}

// URL is the address for clients.
func (e *Etcd) URL() string { return "http://" + address(e.port) }

// Address is host and port.
func (e *Etcd) Address() string { return address(e.port) }

// post calls etcd's gateway from JSON to gRPC.
func (e *Etcd) post(path, body string) (string, error) { return e.do(http.MethodPost, path, body) }

func (e *Etcd) do(method, path, body string) (answer string, err error) {
	request, err := http.NewRequest(method, e.URL()+path, strings.NewReader(body))
	if err != nil {
		return "", err
	}
	client := http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Do(request)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, response.Body.Close()) }()
	text, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s %s: %s: %s", method, path, response.Status, text)
	}
	return string(text), err
}
