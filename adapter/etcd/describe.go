package etcd

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
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

// answer is an answer of a server's HTTP side, which listens on the same port
// as its gRPC side.
type answer struct {
	body string
	date string
}

// newHTTP gives a client for the questions to servers: few, small and often the
// same.
func newHTTP(config *tls.Config) *http.Client {
	return &http.Client{
		Timeout: 3 * time.Second,
		Transport: &http.Transport{
			TLSClientConfig: config, TLSHandshakeTimeout: 3 * time.Second,
			MaxIdleConnsPerHost: 1, IdleConnTimeout: time.Minute,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// get asks a server for its version.
func get(ctx context.Context, client *http.Client, url string) (answer, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url+"/version", nil)
	if err != nil {
		return answer{}, err
	}
	response, err := client.Do(request)
	if err != nil {
		return answer{}, err
	}
	body, err := io.ReadAll(io.LimitReader(response.Body, 4<<10))
	err = errors.Join(err, response.Body.Close())
	switch {
	case err != nil:
		return answer{}, fmt.Errorf("%s/version: %w", url, err)
	case response.StatusCode != http.StatusOK:
		return answer{}, fmt.Errorf("%s/version answers %s: this is no etcd, or its HTTP side listens elsewhere (--listen-client-http-urls); name that in Options.Times",
			url, response.Status)
	}
	return answer{string(body), response.Header.Get("Date")}, nil
}

// version tells which etcd a server is.
func version(ctx context.Context, client *http.Client, url string) (string, error) {
	a, err := get(ctx, client, url)
	if err != nil {
		return "", err
	}
	var v struct{ EtcdServer string }
	if err := json.Unmarshal([]byte(a.body), &v); err != nil || v.EtcdServer == "" {
		return "", fmt.Errorf("%s answers, but not as an etcd does: %.60q", url, a.body)
	}
	return v.EtcdServer, nil
}

// tooOld refuses what cannot do what a swap needs, and warns of what loses data.
func tooOld(version string) (caution string, err error) {
	var n [3]int
	for i, part := range strings.SplitN(version, ".", 3) {
		digits, _, _ := strings.Cut(part, "-")
		if n[i], err = strconv.Atoi(digits); err != nil {
			return "", fmt.Errorf("the version %q cannot be read", version)
		}
	}
	switch {
	case n[0] < 3 || n[0] == 3 && n[1] < 4:
		return "", fmt.Errorf("etcd %s is too old; 3.4 is the oldest that serves, and a supported one is better", version)
	case n[0] == 3 && n[1] == 5 && n[2] < 3:
		return "etcd " + version + " can lose writes when it is killed (fixed in 3.5.3): upgrade it", nil
	case n[0] == 3 && n[1] == 4:
		return "etcd " + version + " is of a line that gets no more corrections: upgrade it", nil
	}
	return "", nil
}
