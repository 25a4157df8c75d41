package gateway

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"os"
	"time"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/lifecycle"
	"github.com/semelhq/semel/semelhttp"
)

// failed answers a request that the upstream did not answer. What the answer
// means for the key is in OutcomeHeader, which package semelhttp takes out of
// guarded answers. It stays in others: it is true there as well.
func (g *Gateway) failed(w http.ResponseWriter, r *http.Request, err error) {
	var send *sendError
	started := !errors.As(err, &send) || send.started
	if r.Context().Err() != nil && errors.Is(err, context.Canceled) {
		g.log.Debug("the client left before the upstream answered", request(r)...)
	} else {
		told := append(request(r), "started", started, "error", err)
		g.log.Warn("no answer from the upstream", told...)
	}
	var p *semelhttp.Problem
	switch {
	case !started:
		w.Header().Set(semelhttp.OutcomeHeader, semelhttp.OutcomeNotDone)
		p = semelhttp.NewProblem(semelhttp.UpstreamUnreachable, "the gateway could not reach the service behind it; nothing was sent to it, so the same request may be sent again")
	case errors.Is(err, os.ErrDeadlineExceeded):
		w.Header().Set(semelhttp.OutcomeHeader, semelhttp.OutcomeUnknown)
		p = &semelhttp.Problem{Type: "about:blank", Title: "Gateway Timeout", Status: http.StatusGatewayTimeout, Detail: "the service behind the gateway was sent the request and said nothing for too long; whether it acted is unknown"}
	default:
		w.Header().Set(semelhttp.OutcomeHeader, semelhttp.OutcomeUnknown)
		p = &semelhttp.Problem{Type: "about:blank", Title: "Bad Gateway", Status: http.StatusBadGateway, Detail: "the service behind the gateway was sent the request and gave no answer that can be read; whether it acted is unknown"}
	}
	_ = p.Write(w, r) // a client that cannot be reached asks again
}

// request is what logs say of a request: no query, which may hold secrets.
func request(r *http.Request) []any {
	return []any{"method", r.Method, "path", r.URL.EscapedPath()}
}

func (g *Gateway) panicked(r *http.Request, value any, stack []byte) {
	g.log.Error("the gateway panicked", append(request(r), "panic", value, "stack", string(stack))...)
}

// Observe gives a function for semel.Options.Observe that logs what a guard
// tells: unknown outcomes, refusals and an unreachable store as warnings, and at
// the level debug one line for each request. Lines name digests, never keys.
func Observe(log *slog.Logger) func(semel.Event) {
	debug := log.Enabled(context.Background(), slog.LevelDebug)
	return func(e semel.Event) {
		level, text := slog.LevelDebug, "request"
		switch e.Kind {
		case semel.Lost, semel.Doubted:
			level, text = slog.LevelWarn, "the outcome of an operation is unknown"
		case semel.Unavailable:
			level, text = slog.LevelWarn, "the store did not answer, so nothing was started"
		case semel.Refused:
			switch e.Reason {
			case semel.InDoubt, semel.Damaged, semel.Mismatch:
				level, text = slog.LevelWarn, "a request was refused"
			}
		case semel.Claimed:
			if !e.Unconfirmed {
				return
			}
			level, text = slog.LevelWarn, "the store cannot be reached, and the route goes on without it: this run is known to this process alone"
		case semel.Renewed:
			return
		}
		if level == slog.LevelDebug && !debug {
			return
		}
		args := []any{"event", e.Kind.String(), "reason", e.Reason.String(), "route", e.Policy, "key_digest", e.Digest.String(), "attempt", e.Attempt, "took", e.Took.String()}
		if e.Unconfirmed {
			args = append(args, "unconfirmed", true)
		}
		if e.Err != nil {
			args = append(args, "error", e.Err)
		}
		log.Log(context.Background(), level, text, args...)
	}
}

// observeSweeper logs what was forgotten, archived and dropped, and what failed.
func observeSweeper(log *slog.Logger, e lifecycle.Event) {
	day := e.Day.Format(time.DateOnly)
	switch e.Kind {
	case lifecycle.Swept:
		log.Debug("swept", "records", e.Pass.Swept, "batches", e.Pass.Batches, "drained", e.Pass.Drained, "took", e.Pass.Took.String(), "busy", e.Pass.Busy.String())
	case lifecycle.Measured:
		log.Debug("measured", "records", e.Growth.Records, "bytes", e.Growth.Bytes, "behind", e.Growth.Lag.String())
	case lifecycle.Archived:
		log.Info("a day of the journal is in the archive", "day", day, "name", e.Name, "lines", e.Lines)
	case lifecycle.Dropped:
		log.Info("a day of the journal was dropped from the store", "day", day)
	case lifecycle.Lost:
		log.Warn("sweeping was cut off; another gateway goes on", "error", e.Err)
	case lifecycle.Failed:
		args := []any{"error", e.Err}
		if !e.Day.IsZero() {
			args = append(args, "day", day)
		}
		log.Warn("the store could not be kept small; it is tried again", args...)
	}
}
