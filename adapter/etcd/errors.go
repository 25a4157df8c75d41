package etcd

import (
	"context"
	"errors"
	"fmt"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/semelhq/semel"
)

// explain says in an error's words what it means for this store and what to do.
// It gives nil for nil.
func (c *cluster) explain(verb string, err error) error {
	if err == nil {
		return nil
	}
	fail := func(advice string) error {
		return fmt.Errorf("etcd: cannot %s under %s: %s: %w", verb, c.prefix, advice, err)
	}
	is := func(targets ...error) bool {
		for _, t := range targets {
			if errors.Is(err, t) {
				return true
			}
		}
		return false
	}
	switch {
	case is(rpctypes.ErrNoSpace):
		return fail("the database has used up its quota, and a NOSPACE alarm forbids writing; what is stored is safe; compact and defragment it or raise --quota-backend-bytes, then `etcdctl alarm disarm`")
	case is(rpctypes.ErrRequestTooLarge):
		return errors.Join(semel.ErrRejected, fail("the record is larger than --max-request-bytes (default 1.5 MiB); nothing was written"))
	case status.Code(err) == codes.ResourceExhausted && !is(rpctypes.ErrTooManyRequests):
		return errors.Join(semel.ErrRejected, fail("the record is larger than a message may be (2 MiB); nothing was written"))
	case is(rpctypes.ErrTooManyOps):
		return fail("--max-txn-ops is too small: a swap takes 3 operations, and the default of 128 lets 120 swaps share a transaction")
	case is(rpctypes.ErrAuthFailed):
		return fail("the server does not accept this user and password; check both in the store's URL")
	case is(rpctypes.ErrUserEmpty):
		return fail("the server wants a user; put user:password@ into the store's URL")
	case is(rpctypes.ErrPermissionDenied):
		return fail(fmt.Sprintf("this user may not; grant it with `etcdctl role grant-permission ROLE --prefix=true readwrite %s`", c.prefix))
	case is(rpctypes.ErrCorrupt):
		return fail("the members disagree about what is stored, and a CORRUPT alarm forbids all use; replace the corrupt member")
	case is(rpctypes.ErrNoLeader, rpctypes.ErrLeaderChanged, rpctypes.ErrTimeout, rpctypes.ErrTimeoutDueToLeaderFail, rpctypes.ErrTimeoutDueToConnectionLost):
		return fail("the members have no leader, or cannot reach it: without a majority of them nothing is granted")
	case is(rpctypes.ErrGRPCNotSupportedForLearner) || status.Code(err) == codes.Unavailable && isLearner(err):
		return fail("a learner answers neither reads nor writes; name voting members in the store's URL")
	case is(context.Canceled, context.DeadlineExceeded):
		return fail("there was no answer in time")
	case status.Code(err) == codes.Unavailable:
		return fail("no server can be reached, or it went away")
	}
	return fail("etcd reports an error")
}

func isLearner(err error) bool {
	return rpctypes.ErrorDesc(err) == rpctypes.ErrorDesc(rpctypes.ErrGRPCNotSupportedForLearner)
}

// ended gives an error if ctx has ended before anything was done.
func ended(ctx context.Context) error {
	if ctx.Err() == nil {
		return nil
	}
	return fmt.Errorf("etcd: nothing was done: %w", context.Cause(ctx))
}
