package server

import (
	"errors"
	"fmt"
	"maps"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
)

// RedisCluster is a Redis Cluster of three masters without replicas: it goes on
// without one of them for the keys of the other two.
type RedisCluster struct {
	Nodes []*Redis
}

// redisSlots is how many slots the keys of a cluster fall into.
const redisSlots = 16384

// StartRedisCluster starts a cluster of its own in dir. The options hold for
// each node. It returns when every node says that the cluster is complete.
func StartRedisCluster(dir string, o RedisOptions) (*RedisCluster, error) {
	settings := map[string]string{
		"cluster-enabled":               "yes",
		"cluster-node-timeout":          "1000", // milliseconds
		"cluster-require-full-coverage": "no",
	}
	maps.Copy(settings, o.Settings)
	nodes, err := together(3, func(n int) (*Redis, error) {
		return StartRedis(filepath.Join(dir, fmt.Sprintf("node%d", n)), RedisOptions{Settings: settings})
	})
	c := &RedisCluster{Nodes: nodes}
	if err == nil {
		err = c.join()
	}
	if err != nil {
		return nil, errors.Join(err, c.Kill())
	}
	return c, nil
}

// join gives each node its slots and makes the nodes known to each other.
func (c *RedisCluster) join() error {
	for n, node := range c.Nodes {
		slots := []string{"CLUSTER", "ADDSLOTS"}
		for slot := n * redisSlots / len(c.Nodes); slot < (n+1)*redisSlots/len(c.Nodes); slot++ {
			slots = append(slots, strconv.Itoa(slot))
		}
		for _, command := range [][]string{slots, {"CLUSTER", "SET-CONFIG-EPOCH", strconv.Itoa(n + 1)}} {
			if _, err := node.call(command...); err != nil {
				return err
			}
		}
	}
	for _, other := range c.Nodes[1:] {
		if _, err := c.Nodes[0].call("CLUSTER", "MEET", "127.0.0.1", strconv.Itoa(other.port)); err != nil {
			return err
		}
	}
	return c.whole()
}

// whole waits until every node knows the owner of every slot.
func (c *RedisCluster) whole() error {
	for _, node := range c.Nodes {
		for name, want := range map[string]string{
			"cluster_known_nodes": strconv.Itoa(len(c.Nodes)),
			"cluster_slots_ok":    strconv.Itoa(redisSlots),
			"cluster_state":       "ok",
		} {
			if err := until("Redis Cluster", func() error { return node.expect("CLUSTER INFO", name, want) }); err != nil {
				return err
			}
		}
	}
	return nil
}

// URL names all nodes: redis://host:port,host:port,host:port.
func (c *RedisCluster) URL() string { return "redis://" + strings.Join(addresses(c.Nodes), ",") }

// Kill kills every node.
func (c *RedisCluster) Kill() error { return each(c.Nodes, (*Redis).Kill) }

// Stop ends every node in good order.
func (c *RedisCluster) Stop() error { return each(c.Nodes, (*Redis).Stop) }

// Start starts every node again and returns when the cluster is complete.
func (c *RedisCluster) Start() error {
	if err := each(c.Nodes, (*Redis).Start); err != nil {
		return err
	}
	return c.whole()
}

// Sentinel is a Redis server with a replica, and three sentinels that promote
// the replica about two seconds after the server is gone.
type Sentinel struct {
	Master   *Redis // at the start; Promoted tells who it is by now
	Replica  *Redis
	Watchers []*Redis // the sentinels
}

// sentinelName is what the sentinels call the server.
const sentinelName = "semel"

// StartSentinel starts all five in dir. The options hold for the two servers. It
// returns when the sentinels know each other and the replica, so that a failover
// can begin.
func StartSentinel(dir string, o RedisOptions) (*Sentinel, error) {
	s := &Sentinel{}
	err := s.start(dir, o)
	if err != nil {
		return nil, errors.Join(err, s.Kill())
	}
	return s, nil
}

func (s *Sentinel) start(dir string, o RedisOptions) (err error) {
	if s.Master, err = StartRedis(filepath.Join(dir, "master"), o); err != nil {
		return err
	}
	if s.Replica, err = s.Master.Replica(filepath.Join(dir, "replica")); err != nil {
		return err
	}
	if s.Watchers, err = together(3, func(n int) (*Redis, error) {
		return s.startWatcher(filepath.Join(dir, fmt.Sprintf("sentinel%d", n)), o.Settings["requirepass"])
	}); err != nil {
		return err
	}
	for _, w := range s.Watchers {
		for _, want := range []string{"slaves=1", "sentinels=3", "status=ok"} {
			if err := until("Sentinel", func() error {
				if info, err := w.call("INFO", "sentinel"); err != nil || !strings.Contains(info, want) {
					return errors.Join(fmt.Errorf("no %s in %q", want, field(info, "master0")), err)
				}
				return nil
			}); err != nil {
				return err
			}
		}
	}
	return nil
}

// startWatcher starts a sentinel: the same program, which writes into its configuration what it learns.
func (s *Sentinel) startWatcher(dir, password string) (*Redis, error) {
	w, err := newRedis(dir, nil)
	if err != nil {
		return nil, err
	}
	binary, err := redisProduct().find()
	if err != nil {
		return nil, err
	}
	w.name = "Redis Sentinel"
	w.command = func() *exec.Cmd { return exec.Command(binary, w.file(), "--sentinel") }
	return w, onFreePorts(1, func(ports []int) error {
		w.port = ports[0]
		text := redisLines(map[string]string{"bind": "127.0.0.1", "port": strconv.Itoa(w.port), "dir": w.dir}) +
			fmt.Sprintf("sentinel monitor %s 127.0.0.1 %d 2\n", sentinelName, s.Master.port) +
			fmt.Sprintf("sentinel down-after-milliseconds %s 500\n", sentinelName) +
			fmt.Sprintf("sentinel failover-timeout %s 3000\n", sentinelName)
		if password != "" {
			text += fmt.Sprintf("sentinel auth-pass %s %s\n", sentinelName, password)
		}
		if err := w.account.write(w.file(), text); err != nil {
			return err
		}
		return w.Start()
	})
}

// Name is what a client asks the sentinels for.
func (s *Sentinel) Name() string { return sentinelName }

// Addresses are host and port of each sentinel.
func (s *Sentinel) Addresses() []string { return addresses(s.Watchers) }

// Promoted returns the server that the first sentinel that runs takes for the
// master; an error if none says so.
func (s *Sentinel) Promoted() (*Redis, error) {
	var errs []error
	for _, w := range s.Watchers {
		answer, err := w.call("SENTINEL", "get-master-addr-by-name", sentinelName)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		for _, r := range []*Redis{s.Master, s.Replica} {
			if answer == "127.0.0.1\n"+strconv.Itoa(r.port)+"\n" {
				return r, nil
			}
		}
		errs = append(errs, fmt.Errorf("the sentinel at %s names a stranger: %q", w.Address(), answer))
	}
	return nil, errors.Join(errs...)
}

// Kill kills all five, the sentinels first.
func (s *Sentinel) Kill() error { return each(s.all(), (*Redis).Kill) }

// Stop ends all five in good order, the sentinels first.
func (s *Sentinel) Stop() error { return each(s.all(), (*Redis).Stop) }

func (s *Sentinel) all() []*Redis {
	return append(append([]*Redis{}, s.Watchers...), s.Master, s.Replica)
}

// together starts n servers side by side. Those that started are returned, in order, also when others did not.
func together(n int, start func(n int) (*Redis, error)) ([]*Redis, error) {
	started, errs := make([]*Redis, n), make([]error, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { started[i], errs[i] = start(i) })
	}
	wg.Wait()
	return started, errors.Join(errs...)
}

// each calls a method of all servers that there are.
func each(servers []*Redis, do func(*Redis) error) error {
	var errs []error
	for _, r := range servers {
		if r != nil {
			errs = append(errs, do(r))
		}
	}
	return errors.Join(errs...)
}

func addresses(servers []*Redis) []string {
	var all []string
	for _, r := range servers {
		all = append(all, r.Address())
	}
	return all
}
