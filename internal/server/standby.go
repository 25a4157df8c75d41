package server

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// waitTimeout bounds the waits for replication.
const waitTimeout = 60 * time.Second

// Standby makes a hot standby of the server in dir and returns when it receives
// what the primary writes. A commit on the primary waits for each standby that
// is sync (as long as that takes, if one is gone) and for no other. A standby may have
// standbys of its own, but not sync ones.
func (p *Postgres) Standby(dir string, sync bool) (*Postgres, error) {
	s, err := newPostgres(dir, p.settings)
	if err != nil {
		return nil, err
	}
	name := p.newStandbyName()
	source := fmt.Sprintf("host=127.0.0.1 port=%d user=%s application_name=%s", p.port, postgresSuperuser, name)
	if _, err := s.run(nil, s.tool("pg_basebackup"), "--pgdata="+s.data(), "--dbname="+source, "--write-recovery-conf",
		"--wal-method=stream", "--checkpoint=fast", "--no-sync"); err != nil {
		return nil, err
	}
	if err := s.startFirst(); err != nil {
		return nil, err
	}
	if err := p.waitFor("t", "SELECT state = 'streaming' FROM pg_stat_replication WHERE application_name = '"+name+"'"); err != nil {
		return nil, errors.Join(err, s.Kill())
	}
	if sync {
		if err := p.waitAtCommit(name); err != nil {
			return nil, errors.Join(err, s.Kill())
		}
	}
	return s, nil
}

func (p *Postgres) newStandbyName() string {
	p.standbys.Lock()
	defer p.standbys.Unlock()
	p.standbys.count++
	return fmt.Sprintf("standby%d", p.standbys.count)
}

// waitAtCommit adds a standby to those that a commit waits for.
func (p *Postgres) waitAtCommit(name string) error {
	p.standbys.Lock()
	defer p.standbys.Unlock()
	p.standbys.sync = append(p.standbys.sync, name)
	all := fmt.Sprintf("FIRST %d (%s)", len(p.standbys.sync), strings.Join(p.standbys.sync, ", "))
	for _, statement := range []string{
		"ALTER SYSTEM SET synchronous_standby_names = '" + all + "'",
		"SELECT pg_reload_conf()",
	} {
		if _, err := p.psql(statement); err != nil {
			return err
		}
	}
	return p.waitFor("t", "SELECT sync_state = 'sync' FROM pg_stat_replication WHERE application_name = '"+name+"'")
}

// Promote makes a standby a primary, and returns when it takes writes. What was
// its primary is not told: a test that has not killed it now has two.
func (p *Postgres) Promote() error {
	if answer, err := p.psql("SELECT pg_is_in_recovery()"); err != nil || answer != "t" {
		return errors.Join(fmt.Errorf("promote %s: it is no standby (in recovery: %q)", p.dir, answer), err)
	}
	// A standby's standbys are not asked: it comes up without waiting for any.
	if _, err := p.psql("ALTER SYSTEM RESET synchronous_standby_names"); err != nil && !strings.Contains(err.Error(), "recovery") {
		return err
	}
	if _, err := p.psql("SELECT pg_promote()"); err != nil {
		return err
	}
	return p.waitFor("f", "SELECT pg_is_in_recovery()")
}

// waitFor repeats a query until it gives the answer.
func (p *Postgres) waitFor(want, query string) error {
	deadline := time.Now().Add(waitTimeout)
	for {
		got, err := p.psql(query)
		if err == nil && got == want {
			return nil
		}
		if time.Now().After(deadline) {
			return errors.Join(fmt.Errorf("%s: %s is %q after %v, want %q", p.dir, query, got, waitTimeout, want), err)
		}
		time.Sleep(pollEvery)
	}
}
