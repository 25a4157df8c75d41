// Package etcd_test runs the etcd store against the servers of the newest
// release, in process: one member, and three that lose their leader and their
// majority. It is apart from the adapter so that whoever uses that does not get
// the server's dependencies. Nothing imports it.
package etcd_test

import (
	"fmt"
	"net"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.etcd.io/etcd/server/v3/embed"

	"github.com/semelhq/semel/adapter/etcd"
)

// cluster is some members in this process.
type cluster struct {
	t       testing.TB
	configs []*embed.Config
	members []*embed.Etcd // nil while stopped
}

// ports gives n free ports of the loopback interface.
func ports(t testing.TB, n int) []string {
	t.Helper()
	var out []string
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		out = append(out, l.Addr().String())
	}
	return out
}

func start(t testing.TB, n int) *cluster {
	t.Helper()
	c := &cluster{t: t, members: make([]*embed.Etcd, n)}
	dir, all := t.TempDir(), ports(t, 2*n)
	var initial []string
	for i := range n {
		initial = append(initial, fmt.Sprintf("m%d=http://%s", i, all[2*i+1]))
	}
	for i := range n {
		o := embed.NewConfig()
		o.Name, o.Dir, o.InitialCluster = fmt.Sprintf("m%d", i), filepath.Join(dir, fmt.Sprint(i)), strings.Join(initial, ",")
		client, peer := url.URL{Scheme: "http", Host: all[2*i]}, url.URL{Scheme: "http", Host: all[2*i+1]}
		o.ListenClientUrls, o.AdvertiseClientUrls = []url.URL{client}, []url.URL{client}
		o.ListenPeerUrls, o.AdvertisePeerUrls = []url.URL{peer}, []url.URL{peer}
		o.LogLevel, o.LogOutputs = "fatal", []string{filepath.Join(dir, fmt.Sprint(i, ".log"))}
		c.configs = append(c.configs, o)
	}
	for i := range n {
		c.start(i)
	}
	t.Cleanup(func() {
		for i := range c.members {
			c.stop(i)
		}
	})
	for i := range n {
		c.ready(i)
	}
	return c
}

func (c *cluster) start(i int) {
	c.t.Helper()
	m, err := embed.StartEtcd(c.configs[i])
	if err != nil {
		c.t.Fatal(err)
	}
	c.members[i] = m
}

func (c *cluster) ready(i int) {
	c.t.Helper()
	select {
	case <-c.members[i].Server.ReadyNotify():
	case <-time.After(time.Minute):
		c.t.Fatal("a member was not ready within a minute")
	}
}

// stop ends a member without handing its leadership over.
func (c *cluster) stop(i int) {
	m := c.members[i]
	if m == nil {
		return
	}
	c.members[i] = nil
	m.Server.HardStop()
	m.Close()
}

// leader is the member that leads, as most of them see it.
func (c *cluster) leader() int {
	c.t.Helper()
	end := time.Now().Add(time.Minute)
	for time.Now().Before(end) {
		for i, m := range c.members {
			if m != nil && m.Server.Leader() == m.Server.MemberID() {
				return i
			}
		}
		time.Sleep(10 * time.Millisecond)
	}
	c.t.Fatal("there was no leader within a minute")
	return -1
}

// url names the members given, or all.
func (c *cluster) url(prefix string, members ...int) string {
	if len(members) == 0 {
		for i := range c.configs {
			members = append(members, i)
		}
	}
	var hosts []string
	for _, i := range members {
		hosts = append(hosts, c.configs[i].ListenClientUrls[0].Host)
	}
	return "etcd://" + strings.Join(hosts, ",") + "/" + prefix
}

func open(t testing.TB, url string) *etcd.Store {
	t.Helper()
	s, err := etcd.Open(t.Context(), url, etcd.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}
