package orm

import (
	"context"
	"database/sql"
	"testing"

	"gorm.io/gorm"
	"gorm.io/gorm/logger"
)

// Order is a model of GORM's.
type Order struct {
	ID     int64
	Item   string
	Amount int
}

// gormBook is a book in the manner of GORM.
type gormBook struct{ db *gorm.DB }

// openGorm opens GORM once, over the pool that the scope has.
func openGorm(t *testing.T, dialector gorm.Dialector, o gorm.Config) *gorm.DB {
	t.Helper()
	o.Logger = logger.Discard
	db, err := gorm.Open(dialector, &o)
	if err != nil {
		t.Fatal(err)
	}
	return db
}

// in gives a session of GORM's in a transaction that is there already.
func in(ctx context.Context, db *gorm.DB, tx *sql.Tx) *gorm.DB {
	session := db.Session(&gorm.Session{Context: ctx})
	session.Statement.ConnPool = tx
	return session
}

func (b gormBook) add(ctx context.Context, item string) (int64, error) {
	o := Order{Item: item}
	if err := b.db.Create(&o).Error; err != nil {
		return 0, err
	}
	var found []Order
	if err := b.db.Where("item = ?", item).Find(&found).Error; err != nil {
		return 0, err
	}
	var rows []row
	for _, f := range found {
		rows = append(rows, row{f.ID, f.Item})
	}
	return o.ID, same(rows, row{o.ID, item})
}

func (b gormBook) try(_ context.Context, fn func(book) error) error {
	return b.db.Transaction(func(inner *gorm.DB) error { return fn(gormBook{inner}) })
}

func (b gormBook) raise(_ context.Context, item string, by int) error {
	return b.db.Model(&Order{}).Where("item = ?", item).Update("amount", gorm.Expr("amount + ?", by)).Error
}

func (b gormBook) commit() error { return b.db.Commit().Error }
