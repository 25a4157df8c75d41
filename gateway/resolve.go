package gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/resolve"
	"github.com/semelhq/semel/semelhttp"
)

// asker asks the upstream what became of the requests of one route.
type asker struct {
	*resolver
	upstream *url.URL
	host     string
	client   *http.Client
	guard    *semel.Guard
	keep     []string // headers
	policy   semel.Policy
}

// asks gives a route's resolver its work: what has to be kept of requests, whom to
// ask, and who is told of keys in doubt.
func (g *Gateway) asks(r *Route) (*asker, error) {
	x, err := r.Resolve.compose(r.Match, r.Options.Methods)
	if err != nil {
		return nil, fmt.Errorf("resolve: %w", err)
	}
	if r.Options.Policy.Class != semel.AtMostOnce {
		return nil, fmt.Errorf("resolve: the class %v leaves nothing in doubt; take the resolver away, or the class at-most-once", r.Options.Policy.Class)
	}
	if r.Options.Policy.WithholdKey && slices.Contains(x.names, keyField) {
		return nil, errors.New("resolve: {key} is not known where keys are withheld; take {derived-key}")
	}
	keyHeader := r.Options.KeyHeader
	if keyHeader == "" {
		keyHeader = "Idempotency-Key"
	}
	a := &asker{
		resolver: x, upstream: g.config.Upstream, host: g.config.UpstreamHost, client: g.client, guard: r.Guard, keep: r.Options.KeepHeaders,
	}
	r.Options.Policy.Resolve = a.ask
	r.Options.Memo = x.memo(http.CanonicalHeaderKey(keyHeader))
	r.Options.Suspect = func(d semel.Digest) { g.completing[a.guard].Suspect(d) }
	a.policy, err = r.Options.Policy.Filled()
	return a, err
}

// passKey sends the upstream the derived key of a guarded request.
func (x *resolver) passKey(p *httputil.ProxyRequest) {
	p.Out.Header.Del(x.KeyHeader)
	if claim, ok := semel.ClaimFrom(p.In.Context()); ok {
		u := semel.Unresolved{Record: semel.Record{Digest: claim.Digest()}}
		p.Out.Header.Set(x.KeyHeader, u.DerivedKey(derivedStep))
	}
}

// newClient gives a client for questions. It follows no redirect: the answer of
// another place is not the upstream's word.
func newClient() *http.Client {
	return &http.Client{
		Transport: &http.Transport{
			DialContext:           (&net.Dialer{Timeout: dialTimeout}).DialContext,
			TLSHandshakeTimeout:   dialTimeout,
			ForceAttemptHTTP2:     true,
			IdleConnTimeout:       30 * time.Second,
			ResponseHeaderTimeout: maxAsked,
			DisableCompression:    true, // what the upstream sends is what is stored
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// ask is the route's semel.Resolver. Its errors name no URL: a field's value may
// be a person's.
func (a *asker) ask(ctx context.Context, u semel.Unresolved) (semel.Settlement, error) {
	ctx, cancel := context.WithTimeout(ctx, a.Timeout)
	defer cancel()
	r, err := a.question(ctx, &u)
	if err != nil {
		return semel.Settlement{}, err
	}
	resp, err := a.client.Do(r)
	if err != nil {
		return semel.Settlement{}, bare(err)
	}
	defer resp.Body.Close()
	s := semel.Settlement{Why: fmt.Sprintf("%s %s answered %d", a.Method, shortened(a.Path), resp.StatusCode)}
	switch {
	case slices.Contains(a.Done, resp.StatusCode):
		s.State = semel.Done
		if s.Result, err = a.answer(resp); err != nil {
			return semel.Settlement{}, bare(err)
		}
		return s, nil
	case !slices.Contains(a.NotDone, resp.StatusCode):
		return semel.Settlement{}, fmt.Errorf("the upstream answered %d, which is neither listed as done nor as not-done", resp.StatusCode)
	}
	if early, err := a.early(ctx, &u); err != nil || early {
		return semel.Settlement{}, err
	}
	s.State = semel.Released
	return s, nil
}

// question is the request to send.
func (a *asker) question(ctx context.Context, u *semel.Unresolved) (*http.Request, error) {
	kept, err := url.ParseQuery(string(u.Memo))
	if err != nil {
		return nil, errors.New("what was kept of the request cannot be read; a person has to settle the key")
	}
	values := map[string]string{derivedKeyField: u.DerivedKey(derivedStep)}
	if u.Record.Key.ID != "" {
		values[keyField] = u.Record.Key.ID
	}
	for name := range kept {
		values[name] = kept.Get(name)
	}
	path, header, err := a.request(values)
	if err != nil {
		return nil, fmt.Errorf("%w: it ran under other settings; a person has to settle the key", err)
	}
	base := a.upstream.Scheme + "://" + a.upstream.Host + strings.TrimSuffix(a.upstream.EscapedPath(), "/")
	r, err := http.NewRequestWithContext(ctx, a.Method, base+path, http.NoBody)
	if err != nil {
		return nil, bare(err)
	}
	r.Header = header
	if host := header.Get("Host"); host != "" {
		r.Host = host
	} else if a.host != "" {
		r.Host = a.host
	}
	return r, nil
}

// answer makes the upstream's answer the operation's. Of one that is too long to be
// kept the status is.
func (a *asker) answer(resp *http.Response) (semel.Result, error) {
	body, err := io.ReadAll(io.LimitReader(resp.Body, int64(a.policy.MaxResult)+1))
	if err != nil {
		return semel.Result{}, err
	}
	told := semelhttp.Answer{Status: resp.StatusCode, Header: resp.Header, Body: body}
	if a.Status != 0 {
		told.Status = a.Status
	}
	if told.Status == http.StatusNoContent || told.Status == http.StatusNotModified {
		told.Body = nil
	}
	return told.Result(a.keep...)
}

// early tells whether the upstream may still be at work at the request: that it
// knows nothing of it then means nothing. The store's clock judges.
func (a *asker) early(ctx context.Context, u *semel.Unresolved) (bool, error) {
	if a.NotDoneAfter < 0 {
		return false, nil
	}
	held, err := a.guard.Store().Get(ctx, u.Record.Digest)
	if err != nil {
		return false, err
	}
	return held.Now.Before(u.Record.Expires().Add(a.NotDoneAfter)), nil
}

// bare takes the URL out of an error.
func bare(err error) error {
	var at *url.Error
	if errors.As(err, &at) {
		err = at.Err
	}
	return fmt.Errorf("the upstream could not be asked: %w", err)
}

// shortened keeps what goes into a journal short.
func shortened(text string) string {
	const most = 200
	if len(text) > most {
		return text[:most] + "…"
	}
	return text
}

// completers gives each guard that has routes with a resolver its completer.
func (g *Gateway) completers(asked []*asker) error {
	for _, guard := range g.guards() {
		o := resolve.Options{Observe: observeResolve(g.log)}
		for _, a := range asked {
			if a.guard != guard {
				continue
			}
			o.Policies = append(o.Policies, &a.policy)
			o.Timeout = max(o.Timeout, a.Timeout+time.Second)
			if o.Every == 0 || a.Every < o.Every {
				o.Every = a.Every
			}
		}
		if len(o.Policies) == 0 {
			continue
		}
		c, err := resolve.New(guard, o)
		if err != nil {
			return err
		}
		g.completing[guard] = c
	}
	return nil
}

// observeResolve logs what became of keys in doubt.
func observeResolve(log *slog.Logger) func(resolve.Event) {
	return func(e resolve.Event) {
		args := []any{"route", e.Policy, "key_digest", e.Digest.String(), "looks", e.Looks}
		switch e.Kind {
		case resolve.Settled:
			log.Info("the outcome of an operation was found out", append(args, "settled", e.State.String(), "by", "the resolver", "why", e.Why)...)
		case resolve.Failed:
			log.Warn("the outcome of an operation could not be asked for", append(args, "again_in", e.Next.String(), "error", e.Err)...)
		case resolve.Unknown:
			log.Debug("the outcome of an operation is still unknown", append(args, "again_in", e.Next.String())...)
		case resolve.Orphan:
			log.Warn("the outcome of an operation is unknown, and no route here has a resolver for it: a person has to settle it", args...)
		case resolve.Unlisted:
			log.Warn("the store could not be searched for unknown outcomes; it is tried again", "error", e.Err)
		}
	}
}
