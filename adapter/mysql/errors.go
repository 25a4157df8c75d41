package mysql

import (
	"context"
	"errors"
	"fmt"

	client "github.com/go-sql-driver/mysql"

	"github.com/semelhq/semel"
)

// The server's numbers for errors that mean something to the store.
const (
	codeDuplicate   = 1062 // another has inserted the row
	codeLockWait    = 1205 // undoes the statement, not the transaction
	codeDeadlock    = 1213 // has undone the transaction
	codeOverflow    = 1690 // what the statements use to stop themselves: EXP(999)
	codeChanged     = 1020 // MariaDB's innodb_snapshot_isolation: as a deadlock
	codeNoWait      = 3572 // NOWAIT in MySQL; MariaDB gives codeLockWait
	codeNoSavepoint = 1305
	codeNoTable     = 1146
	codeTimeout     = 1969 // MariaDB's max_statement_time
	codeTooLong     = 1406
	codeRowTooBig   = 1118
	codeOutOfRange  = 1264
	codePacketLarge = 1153
)

// code is the number of a server's error, 0 if the server gave none: then nobody
// knows how far it got.
func code(err error) uint16 {
	var coded *client.MySQLError
	if errors.As(err, &coded) {
		return coded.Number
	}
	return 0
}

// rejected tells whether a row can never be written.
func rejected(err error) bool {
	switch code(err) {
	case codeTooLong, codeRowTooBig, codeOutOfRange, codePacketLarge:
		return true
	}
	return false
}

// refused is why a server is not used at all; it needs no explanation.
type refused string

func (r refused) Error() string { return "mysql: " + string(r) }

func refusedf(format string, args ...any) error { return refused(fmt.Sprintf(format, args...)) }

// explain says in an error's words what the server's number means, and what to
// do. It gives nil for nil.
func (a address) explain(verb string, err error) error {
	var plain refused
	if err == nil || errors.As(err, &plain) || errors.Is(err, semel.ErrDamaged) || errors.Is(err, semel.ErrRejected) ||
		errors.Is(err, semel.ErrUnavailable) {
		return err
	}
	return fmt.Errorf("mysql: %s: cannot %s: %s: %w", a.shown, verb, a.advice(err), err)
}

func (a address) advice(err error) string {
	switch code(err) {
	case 0:
		if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
			return "the call's time was over before the server answered; it is down, slow or unreachable, or all connections are in use"
		}
		return "the connection failed; see that the server runs and can be reached at " + a.config.Addr
	case 1044, 1142, 1143, 1227, 1370:
		return "the user " + a.config.User + " lacks a right; it needs SELECT, INSERT, UPDATE and DELETE on the tables semel_*, and to make and keep them CREATE, ALTER, DROP and LOCK TABLES"
	case 1045, 1698, 1251:
		return "the server refuses the user or the password"
	case 1049:
		return "there is no database of this name; CREATE DATABASE makes it"
	case 1040, 1203, 1226:
		return "the server has no connection left; raise max_connections, or lower Options.Connections"
	case 1021, 1030, 1114, 1598, 1026, 3:
		return "the disk or the tablespace is full; what is stored is safe; make room, and swaps go on by themselves"
	case 1290, 1836, 1792:
		return "the server has become read-only, as after a failover; connect to the primary"
	case codeNoTable, 1054:
		return "the tables are not those of this version; run `semel migrate`"
	case codeLockWait:
		return "another transaction holds the row for longer than Options.LockWait; nothing was written; if it goes on, look at SHOW ENGINE INNODB STATUS"
	case codeDeadlock:
		return "deadlocks went on for five attempts; nothing was written; repeat it"
	case 1047:
		return "the Galera node is not ready; connect to one that is"
	case 1053, 1927, 1317:
		return "the server is stopping, or an operator ended the connection or the statement"
	case 1180:
		return "the commit failed; whether anything was written is not known"
	case 1969, 3024:
		return "the server's own limit for statements was reached; raise max_statement_time or max_execution_time"
	}
	return "the server reports an error"
}
