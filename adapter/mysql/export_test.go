package mysql

import (
	"context"
	"fmt"
	"time"
)

// OpenAt is Open with a clock that the test sets.
func OpenAt(ctx context.Context, url string, o Options, now func() time.Time) (*Store, error) {
	return open(ctx, url, o, func() string { return fmt.Sprint(now().UnixMicro()) })
}
