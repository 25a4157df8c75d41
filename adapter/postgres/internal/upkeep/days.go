package upkeep

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// layout is the end of a partition's name.
const layout = "20060102"

// Days gives the days that have lines, oldest first. Each is a partition; those of
// the default partition are found by reading it.
func (db *DB) Days(ctx context.Context) ([]time.Time, error) {
	var days []time.Time
	err := db.read(ctx, throughAll, func(tx pgx.Tx) error {
		parts, err := db.partitions(ctx, tx)
		if err != nil {
			return err
		}
		for _, day := range parts { // through the parent, which leads to one and asks for no right on it
			var has bool
			const any = `SELECT EXISTS (SELECT FROM @.journal WHERE written >= $1 AND written < $2)`
			if err := tx.QueryRow(ctx, db.in(any), day, day.AddDate(0, 0, 1)).Scan(&has); err != nil {
				return err
			}
			if has {
				days = append(days, day)
			}
		}
		return Each(ctx, tx, db.in(`SELECT DISTINCT date_trunc('day', written AT TIME ZONE 'UTC') FROM @.journal_default`), func(row pgx.Rows) error {
			var day time.Time
			err := row.Scan(&day)
			days = append(days, from(day))
			return err
		})
	})
	slices.SortFunc(days, time.Time.Compare)
	return slices.CompactFunc(days, time.Time.Equal), err
}

// partitions gives the days that have a partition.
func (db *DB) partitions(ctx context.Context, tx pgx.Tx) ([]time.Time, error) {
	var days []time.Time
	name := regexp.MustCompile(`^journal_([0-9]{8})$`)
	err := Each(ctx, tx, db.in(`SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
		WHERE i.inhparent = '@.journal'::regclass AND c.relnamespace = (SELECT relnamespace FROM pg_class WHERE oid = i.inhparent)`), func(row pgx.Rows) error {
		var relation string
		if err := row.Scan(&relation); err != nil {
			return err
		}
		if match := name.FindStringSubmatch(relation); match != nil {
			if day, err := time.Parse(layout, match[1]); err == nil {
				days = append(days, day)
			}
		}
		return nil
	})
	return days, err
}

var (
	// ErrToday: the day is not over.
	ErrToday = errors.New("the day is not over by the server's clock: only days that are over are dropped")
	// ErrHeld: a transaction holds the journal. The same may succeed later.
	ErrHeld = errors.New("a transaction that stays open holds the journal, and requests shall not wait behind this; try again later")
	// ErrOpen: lines may come to the day.
	ErrOpen = errors.New("a transaction that is still open has written lines of that day, which would be missed; end it, or try again later")
	// ErrNotOwner: dropping is for the owner.
	ErrNotOwner = errors.New("dropping a day is for the owner of the journal, and deleting from journal_default for who has DELETE on it")
)

// How a day's partition is dropped: whoever wants it alone has to wait for those
// who write, and all who come later wait behind. So it waits for less than anybody
// notices, rests, and tries again.
const (
	dropLockFor = "30ms"
	dropTries   = 12
	dropRest    = 250 * time.Millisecond
)

// Drop drops a day's lines: its partition, however large it is, and what went to
// the default partition.
func (db *DB) Drop(ctx context.Context, day time.Time) error {
	day = from(day)
	name := "journal_" + day.Format(layout)
	there := false
	err := db.read(ctx, throughAll, func(tx pgx.Tx) error {
		var today time.Time
		var stray bool
		err := tx.QueryRow(ctx, db.in(`SELECT date_trunc('day', clock_timestamp() AT TIME ZONE 'UTC'), to_regclass($1) IS NOT NULL,
			EXISTS (SELECT FROM @.journal_default WHERE written >= $2 AND written < $3)`), db.in("@."+name), day, day.AddDate(0, 0, 1)).Scan(&today, &there, &stray)
		switch {
		case err != nil:
			return err
		case !day.Before(from(today)):
			return ErrToday
		case stray:
			_, err = tx.Exec(ctx, db.in(`DELETE FROM @.journal_default WHERE written >= $1 AND written < $2`), day, day.AddDate(0, 0, 1))
		}
		return err
	})
	for try := 0; err == nil && there; try++ {
		if err = db.dropPartition(ctx, name); err == nil || !is(err, "55P03") {
			break
		}
		if try == dropTries {
			return fmt.Errorf("%w: %w", ErrHeld, err)
		}
		select {
		case <-time.After(dropRest):
			err = nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	if is(err, "42501") {
		return fmt.Errorf("%w: %w", ErrNotOwner, err)
	}
	return err
}

func (db *DB) dropPartition(ctx context.Context, name string) error {
	return db.Transact(ctx, func(tx pgx.Tx) error {
		// From the parent down, as everybody locks them.
		_, err := tx.Exec(ctx, db.in("SET LOCAL lock_timeout = '"+dropLockFor+`'; LOCK TABLE ONLY @.journal IN ACCESS EXCLUSIVE MODE;
			DROP TABLE IF EXISTS @.`+name), pgx.QueryExecModeSimpleProtocol)
		return err
	})
}

func is(err error, code string) bool {
	var said *pgconn.PgError
	return errors.As(err, &said) && said.Code == code
}
