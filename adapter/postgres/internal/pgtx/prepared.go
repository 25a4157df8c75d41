package pgtx

import (
	"crypto/sha256"
	"encoding/hex"

	"github.com/jackc/pgx/v5/pgconn"
)

// Statement is one that connections which are not ours may keep.
type Statement struct{ name, sql string }

// NewStatement names a statement after its text: other stores may use the same
// connection, and so may other versions of them, where somebody puts one
// connection under another.
func NewStatement(sql string) Statement {
	sum := sha256.Sum256([]byte(sql))
	return Statement{"semel_" + hex.EncodeToString(sum[:8]), sql}
}

// Prepared is which statements a connection keeps, as the server described them.
// It is kept with the connection.
type Prepared map[string]*pgconn.StatementDescription

// preparedAt is where, in its CustomData.
const preparedAt = "semel.prepared"

// PreparedOf gives what is noted of a connection.
func PreparedOf(c *pgconn.PgConn) Prepared {
	known, _ := c.CustomData()[preparedAt].(Prepared)
	if known == nil {
		known = Prepared{}
		c.CustomData()[preparedAt] = known
	}
	return known
}

// Send queues a statement that is prepared, if need be in the same packet.
// It gives the number of replies that there will be.
func (k Prepared) Send(p *pgconn.Pipeline, s Statement, params [][]byte, binary []int16) int {
	if known := k[s.name]; known != nil {
		p.SendQueryStatement(known, params, binary, binary)
		return 1
	}
	p.SendPrepare(s.name, s.sql, nil)
	p.SendQueryPrepared(s.name, params, binary, binary)
	return 2
}

// Note keeps what the server told of a statement that it has prepared: for good,
// whatever becomes of the transaction.
func (k Prepared) Note(s Statement, d *pgconn.StatementDescription) {
	d.Name = s.name // a pipeline leaves it out
	k[s.name] = d
}

// Met notes that a statement turned out to be there, because somebody has put
// another connection under this one. Its columns are asked for each time.
func (k Prepared) Met(s Statement) { k[s.name] = &pgconn.StatementDescription{Name: s.name} }

// SendUnnamed queues a statement that no connection is to keep.
func (s Statement) SendUnnamed(p *pgconn.Pipeline, params [][]byte, binary []int16) {
	p.SendQueryParams(s.sql, params, nil, binary, binary)
}
