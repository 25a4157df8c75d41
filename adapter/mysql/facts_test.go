package mysql

import (
	"strings"
	"testing"
	"time"
)

// TestFacts: servers that are not here to be tested with, told by their settings.
func TestFacts(t *testing.T) {
	good := func(changes ...string) facts {
		f := facts{
			"version": "10.11.19-MariaDB-1", "max_allowed_packet": "16777216", "innodb_flush_log_at_trx_commit": "1",
			"innodb_doublewrite": "ON", "log_bin": "OFF", "wsrep_on": "OFF",
		}
		for i := 0; i < len(changes); i += 2 {
			f[changes[i]] = changes[i+1]
		}
		return f
	}
	for _, c := range []struct {
		f       facts
		o       Options
		refused string // a word of the reason, "" if it is accepted
		caution string // a word of one
		skew    time.Duration
	}{
		{f: good()},
		{f: good("version", "5.5.5-10.6.1-MariaDB")},
		{f: good("version", "10.4.30-MariaDB"), refused: "10.5"},
		{f: good("version", "5.7.44-log"), refused: "8.0"},
		{f: good("version", "8.0.36"), caution: "tested with MariaDB only"},
		{f: good("version", "9.1.0"), caution: "tested with MariaDB only"},
		{f: good("version", "what"), refused: "oldest"},
		{f: good("wsrep_on", "ON"), refused: "AllowGalera"},
		{f: good("wsrep_on", "ON"), o: Options{AllowGalera: true}, caution: "transactional"},
		{f: good("innodb_read_only", "ON"), refused: "innodb_read_only"},
		{f: good(), skew: time.Hour, caution: "1h0m0s off"},
		{f: good(), skew: -time.Hour, caution: "-1h0m0s off"},
		{f: good(), skew: time.Second},
	} {
		err := c.f.check(c.o)
		if (err == nil) != (c.refused == "") || err != nil && !strings.Contains(err.Error(), c.refused) {
			t.Errorf("%v: got %v; want a reason with %q", c.f, err, c.refused)
		}
		told := strings.Join(c.f.describe(c.skew).Cautions, "\n")
		if c.refused == "" && ((told == "") != (c.caution == "") || !strings.Contains(told, c.caution)) {
			t.Errorf("%v: cautions %q; want %q", c.f, told, c.caution)
		}
	}
}

// TestSkips: which servers can pass by what others have locked.
func TestSkips(t *testing.T) {
	for version, want := range map[string]bool{
		"10.5.29-MariaDB": false, "10.6.0-MariaDB": true, "10.11.19-MariaDB-1": true, "11.4.2-MariaDB": true, "8.0.36": true, "9.1.0": true,
	} {
		if got := (facts{"version": version}).skips(); got != want {
			t.Errorf("%s: %t", version, got)
		}
	}
}

// TestIdentity: a restart, and another server, are another run.
func TestIdentity(t *testing.T) {
	base := facts{"hostname": "a", "port": "3306", "started": "1", "wsrep_cluster_state_uuid": "u", "max_allowed_packet": "1"}
	with := func(name, value string) facts {
		f := facts{}
		for k, v := range base {
			f[k] = v
		}
		f[name] = value
		return f
	}
	for _, name := range []string{"hostname", "port", "started", "server_uuid", "server_uid", "server_id", "datadir"} {
		if with(name, "other").identity() == base.identity() {
			t.Errorf("another %s is the same run", name)
		}
	}
	if with("max_allowed_packet", "2").identity() != base.identity() {
		t.Error("a setting makes another run")
	}
	node := with("wsrep_on", "ON")
	other := with("hostname", "b")
	other["wsrep_on"] = "ON"
	if node.identity() != other.identity() {
		t.Error("two nodes of one Galera cluster are two runs")
	}
}
