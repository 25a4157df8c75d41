package etcd

import (
	"context"
	"fmt"
	"strings"
	"time"

	etcd "go.etcd.io/etcd/client/v3"

	"github.com/semelhq/semel"
)

// Describe is part of semel.Describer. All but the clocks is as it was when the
// store was opened.
func (s *Store) Describe() semel.Description {
	d := s.told
	d.Cautions = append([]string(nil), d.Cautions...)
	if apart := s.cluster.clock.apart(); apart > 100*time.Millisecond {
		d.Cautions = append(d.Cautions, fmt.Sprintf("the clocks of the members are %v apart, by which leases last longer or end early: let NTP set them", apart.Round(time.Millisecond)))
	}
	return d
}

// inspect reads what the servers tell of themselves. What this user may not
// know becomes a caution.
func (c *cluster) inspect(ctx context.Context, d *semel.Description) error {
	caution := func(format string, args ...any) { d.Cautions = append(d.Cautions, fmt.Sprintf(format, args...)) }
	learners, err := 0, error(nil)
	endpoints := c.client.Endpoints()
	for _, endpoint := range endpoints {
		one, cancel := c.limited(ctx)
		var status *etcd.StatusResponse
		status, err = c.client.Status(one, endpoint)
		cancel()
		switch {
		case err != nil:
			caution("%s does not tell its state: %v", endpoint, err)
			continue
		case status.IsLearner:
			learners++
			caution("%s is a learner, which answers nothing: leave it out of the store's URL", endpoint)
		}
		for _, alarm := range status.Errors {
			if strings.Contains(alarm, "NOSPACE") || strings.Contains(alarm, "CORRUPT") {
				caution("%s has an alarm: %s; while it lasts, no key is granted", endpoint, alarm)
			}
		}
		if quota := status.DbSizeQuota; quota > 0 && status.DbSize > quota/10*8 {
			caution("the database of %s has used %d of %d MiB: compact and defragment it, or raise --quota-backend-bytes", endpoint, status.DbSize>>20, quota>>20)
		}
	}
	if learners == len(endpoints) {
		return fmt.Errorf("etcd: the servers in the store's URL are learners, which answer neither reads nor writes: name voting members")
	}
	voters := 0
	one, cancel := c.limited(ctx)
	members, err := c.client.MemberList(one)
	cancel()
	if err != nil {
		caution("the members may not be listed by this user, so durability is a guess from the store's URL: %v", err)
		voters = len(endpoints)
	} else {
		for _, m := range members.Members {
			if !m.IsLearner {
				voters++
			}
		}
	}
	durability(d, voters)
	return nil
}

func durability(d *semel.Description, voters int) {
	d.Survives = semel.SurvivesFailover
	d.Durability = fmt.Sprintf("What is answered is on the disks of %d of %d members, so the loss of %d of them loses nothing; a snapshot that is put back does.",
		voters/2+1, voters, (voters-1)/2)
	if voters < 3 {
		d.Survives = semel.SurvivesCrash
		d.Durability = fmt.Sprintf("What is answered is on the disks of all %d members; it survives kill -9 and loss of power, not the loss of a disk.", voters)
	}
	if voters%2 == 0 {
		d.Cautions = append(d.Cautions, fmt.Sprintf("%d members survive the loss of no more of them than %d would: take an odd number", voters, voters-1))
	}
	d.Clock = "The servers', as the Date of their HTTP answers has it, to some 20 ms; the processes' own clocks decide nothing."
}
