package postgres

import (
	"context"
	"errors"
	"fmt"
	"syscall"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/semelhq/semel"
)

// explain says in an error's words what the server's code means for a store,
// and what to do. It gives nil for nil. What can never succeed is
// semel.ErrRejected; the server has undone it.
func (e *engine) explain(verb string, err error) error {
	if err == nil || errors.Is(err, semel.ErrDamaged) || errors.Is(err, semel.ErrUnavailable) {
		return err
	}
	fail := func(advice string) error {
		if advice == "" {
			return fmt.Errorf("postgres: cannot %s: %w", verb, err)
		}
		return fmt.Errorf("postgres: cannot %s: %s: %w", verb, advice, err)
	}
	var said *pgconn.PgError
	if !errors.As(err, &said) {
		switch {
		case errors.Is(err, syscall.ECONNREFUSED):
			return fail("nobody listens there: is the server running, and are host and port right?")
		case errors.Is(err, context.DeadlineExceeded):
			return fail("the server did not answer in time: it is down, unreachable or overloaded")
		}
		return fail("")
	}
	if rejects(said.Code) {
		return fmt.Errorf("%w: %w", semel.ErrRejected, fail("the server can never store this"))
	}
	return fail(e.advice(said))
}

// rejects tells whether a code says that a value cannot be stored, whatever
// the server's state.
func rejects(code string) bool {
	switch code {
	case "54000", // program_limit_exceeded: a value, or a row, is too large
		"22001", "22003", "22008", "22021": // too long, out of range, time out of range, not in the encoding
		return true
	}
	return false
}

// advice says what to do about an error of the server.
func (e *engine) advice(said *pgconn.PgError) string {
	switch said.Code {
	case "28P01", "28000":
		return "the server does not let this user in: check the user, the password and pg_hba.conf"
	case "3D000":
		return "there is no such database on the server: create it, or name another in the URL"
	case "53300":
		return "the server has no connection left: lower Options.MaxConns or raise its max_connections"
	case "57P03", "57P01", "57P02":
		return "the server is starting or stopping; what is stored is safe; try again"
	case "53100":
		return "the server's disk is full; what is stored is safe; make room, and swaps go on by themselves"
	case "25006":
		return "the server takes no writes: it is a standby, or default_transaction_read_only is on; name the primary"
	case "55000":
		return "the server is recovering, or a standby; name the primary"
	case "42501":
		return "the user lacks a right on the schema " + e.schema + ": as its owner, GRANT it"
	case "42P01", "3F000":
		return "the tables of the schema " + e.schema + " are gone; run `semel migrate`, and put a backup back if they held records"
	case "57014":
		return "the server gave up after Options.Timeout: it is overloaded, or another transaction holds a lock; nothing was written"
	case "XX001", "XX002":
		return "the server finds its files corrupt; keep a copy of them, then restore a backup"
	case "42883":
		return "the server lacks a function that the store needs; it must be PostgreSQL 14 or newer itself, not something that resembles it"
	}
	return ""
}

// damaged is the error for one key whose row does not decode.
func damaged(digest semel.Digest, why error) error {
	return fmt.Errorf("%w: digest %v: %w", semel.ErrDamaged, digest, why)
}

// isRetriable tells whether err says that the server has undone the statement
// for another's sake: a deadlock, or a serialization failure.
func isRetriable(err error) bool {
	var said *pgconn.PgError
	return errors.As(err, &said) && (said.Code == "40001" || said.Code == "40P01")
}
