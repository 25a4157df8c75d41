package redis

import (
	"context"
	"fmt"
	"strconv"
	"sync"

	"github.com/redis/rueidis"
)

// doMany sends the commands of one round at once; errs has what kept an answer
// from being durable enough.
func (c *client) doMany(ctx context.Context, commands []rueidis.Completed) (answers []rueidis.RedisResult, errs []error) {
	errs = make([]error, len(commands))
	switch {
	case c.options.Replicas == 0 && len(commands) == 1:
		return []rueidis.RedisResult{c.rueidis.Do(ctx, commands[0])}, errs
	case c.options.Replicas == 0:
		return c.rueidis.DoMulti(ctx, commands...), errs
	}
	answers = make([]rueidis.RedisResult, len(commands))
	var all sync.WaitGroup
	for i := range commands {
		all.Go(func() { answers[i], errs[i] = c.doAndWait(ctx, commands[i]) })
	}
	all.Wait()
	return answers, errs
}

// doAndWait sends a command, and WAIT behind it on the same connection: it waits
// for all that was written before, also if the command wrote nothing. It gives up while
// there is time to hear of it.
func (c *client) doAndWait(ctx context.Context, command rueidis.Completed) (answer rueidis.RedisResult, err error) {
	n := c.options.Replicas
	err = c.rueidis.Dedicated(func(one rueidis.DedicatedClient) error {
		wait := one.B().Arbitrary("WAIT", strconv.Itoa(n), strconv.FormatInt(max(c.options.Timeout.Milliseconds()*3/4, 1), 10)).Build()
		both := one.DoMulti(ctx, command, wait)
		answer = both[0]
		if answer.Error() != nil {
			return nil // the answer tells
		}
		have, err := both[1].AsInt64()
		if err != nil {
			return fmt.Errorf("the master has the write, and nobody knows how many replicas have: %w", err)
		}
		if have < int64(n) {
			return fmt.Errorf("the master has the write, and %d of %d replicas acknowledged it in time", have, n)
		}
		return nil
	})
	return answer, err
}
