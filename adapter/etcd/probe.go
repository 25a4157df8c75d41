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
)

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
