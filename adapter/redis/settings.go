package redis

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/redis/rueidis"

	"github.com/semelhq/semel"
)

// facts are what one server says about itself.
type facts struct {
	address  string
	version  string
	major    int
	minor    int
	run      string
	role     string
	policy   string // maxmemory-policy
	cluster  bool
	replicas int // connected
	evicted  int64
	aof      bool
	fsync    string // appendfsync, "" if the server does not tell
	save     string // when snapshots are made; "" if never, or if the server does not tell
	atLeast  int    // min-replicas-to-write
}

// ask reads the settings of every server that may take writes.
func (c *client) ask(ctx context.Context) ([]facts, error) {
	nodes := map[string]rueidis.Client{c.name: c.rueidis}
	if c.cluster {
		nodes = c.rueidis.Nodes()
	}
	var all []facts
	for address, node := range nodes {
		f, err := c.askOne(ctx, address, node)
		if err != nil {
			return nil, err
		}
		if !c.cluster || f.role == "master" {
			all = append(all, f)
		}
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("redis %s: none of the %d servers of the Cluster is a master", c.name, len(nodes))
	}
	return all, nil
}

func (c *client) askOne(ctx context.Context, address string, node rueidis.Client) (facts, error) {
	ctx, cancel := context.WithTimeout(ctx, c.options.Timeout)
	defer cancel()
	text, err := node.Do(ctx, node.B().Info().Build()).ToString()
	if err != nil {
		return facts{}, c.explain("read the server's settings (INFO)", err)
	}
	f := parseInfo(text)
	f.address = address
	if f.version == "" || f.policy == "" {
		return facts{}, fmt.Errorf("redis %s: INFO tells neither version nor maxmemory_policy: this is no Redis or Valkey that is known here", c.name)
	}
	config, err := node.Do(ctx, node.B().ConfigGet().Parameter("appendfsync").Build()).AsStrMap()
	if err != nil {
		return f, nil // not allowed, as with many managed services
	}
	f.fsync = config["appendfsync"]
	for _, more := range [...]struct {
		name string
		to   func(value string)
	}{
		{"save", func(v string) { f.save = v }},
		{"min-replicas-to-write", func(v string) { f.atLeast, _ = strconv.Atoi(v) }},
	} {
		if config, err := node.Do(ctx, node.B().ConfigGet().Parameter(more.name).Build()).AsStrMap(); err == nil {
			more.to(config[more.name])
		}
	}
	return f, nil
}

// parseInfo reads the answer to INFO.
func parseInfo(text string) facts {
	m := map[string]string{}
	for line := range strings.Lines(text) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), ":"); ok {
			m[name] = value
		}
	}
	number := func(name string) int64 {
		n, _ := strconv.ParseInt(m[name], 10, 64)
		return n
	}
	f := facts{
		version: m["redis_version"], run: m["run_id"], role: m["role"], policy: m["maxmemory_policy"],
		cluster: m["cluster_enabled"] == "1", replicas: int(number("connected_slaves")),
		evicted: number("evicted_keys"), aof: m["aof_enabled"] == "1",
	}
	major, rest, _ := strings.Cut(f.version, ".")
	minor, _, _ := strings.Cut(rest, ".")
	f.major, _ = strconv.Atoi(major)
	f.minor, _ = strconv.Atoi(minor)
	return f
}

// accept refuses servers that must not arbitrate.
func (c *client) accept(all []facts) error {
	c.major = all[0].major
	for i := range all {
		f := &all[i]
		c.major = min(c.major, f.major)
		if err := c.refuse(f); err != nil {
			return err
		}
		switch {
		case f.major < 6 || f.major == 6 && f.minor < 2:
			return fmt.Errorf("redis %s: the server is version %s, and 6.2 or later is needed", c.name, f.version)
		case f.cluster && !c.cluster:
			return fmt.Errorf("redis %s: the server is part of a Cluster: use a redis+cluster:// URL", c.name)
		case !f.cluster && c.cluster:
			return fmt.Errorf("redis %s: the server is not part of a Cluster: use a redis:// URL", c.name)
		case f.replicas < c.options.Replicas:
			return fmt.Errorf("redis %s: %d replicas are to acknowledge each write, and %d are connected to %s", c.name, c.options.Replicas, f.replicas, f.address)
		}
	}
	return nil
}

// refuse tells what may change while the store is open.
func (c *client) refuse(f *facts) error {
	switch {
	case f.role != "master":
		return errReplica(c.name)
	case f.policy != "noeviction":
		return fmt.Errorf("redis %s: maxmemory-policy is %s, so the server deletes records when its memory is full, and what they guarded runs again: "+
			"set it to noeviction (CONFIG SET maxmemory-policy noeviction, and in the configuration file), or use this server as a cache only", c.name, f.policy)
	}
	return nil
}

// worst gives the facts of the server that survives least.
func worst(all []facts) facts {
	least := all[0]
	for _, f := range all[1:] {
		if f.survives(false) < least.survives(false) {
			least = f
		}
	}
	return least
}

func (f *facts) survives(trust bool) semel.Survival {
	if f.aof && (f.fsync == "always" || f.fsync == "" && trust) {
		return semel.SurvivesCrash
	}
	return semel.SurvivesProcess
}

// Describe is part of semel.Describer. It tells the settings as they were when
// the store was opened.
func (s *Store) Describe() semel.Description {
	c := s.client
	f := &c.facts
	d := semel.Description{Survives: f.survives(c.options.TrustFsync), Clock: "the Redis server's (TIME), in microseconds"}
	switch {
	case d.Survives == semel.SurvivesCrash:
		d.Durability = "append-only file, flushed before each answer: a crash loses nothing, a failover may"
	case f.aof && f.fsync == "":
		d.Durability = "append-only file, flushed nobody knows when, since this user may not read appendfsync"
		d.Cautions = append(d.Cautions, "the server does not tell appendfsync: if it is always, say so with TrustFsync; else a crash loses acknowledged records")
	case f.aof:
		d.Durability = "append-only file with appendfsync " + f.fsync + ": a crash loses the last second or more"
		d.Cautions = append(d.Cautions, "appendfsync is "+f.fsync+": a crash of the server's machine loses acknowledged records; set appendfsync always")
	case f.save != "":
		d.Durability = "snapshots (save " + f.save + "): a crash loses everything since the last one"
		d.Cautions = append(d.Cautions, "there is no append-only file: a restart of the server loses acknowledged records; set appendonly yes and appendfsync always")
	default:
		d.Durability = "memory of the server, and snapshots if any: a restart of the server may lose everything"
		d.Cautions = append(d.Cautions, "neither append-only file nor snapshots are known of: a restart of the server loses every record; set appendonly yes and appendfsync always")
	}
	if f.replicas > 0 {
		d.Traits = append(d.Traits, semel.TraitLossyFailover)
	}
	if f.replicas > 0 && c.options.Replicas == 0 {
		d.Cautions = append(d.Cautions, "replication is asynchronous: a failover loses the records of its last moments; Options.Replicas has writes wait for replicas, and min-replicas-to-write stops a master that has lost them")
	}
	if f.evicted > 0 {
		d.Traits = append(d.Traits, semel.TraitEvicts)
		d.Cautions = append(d.Cautions, fmt.Sprintf("the server has evicted %d keys since it started, perhaps records: what they guarded would run again", f.evicted))
	}
	d.Cautions = append(d.Cautions, "no journal is kept: there is no history to audit")
	return d
}
