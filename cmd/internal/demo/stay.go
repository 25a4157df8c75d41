package demo

import (
	"context"
	"fmt"

	"github.com/semelhq/semel/cmd/internal/storm"
)

// stay keeps everything up, for people to try, until ctx ends. Each charge is
// shown as it is made.
func (b *bench) stay(ctx context.Context) error {
	s := b.screen
	curl := func(amount int) string {
		return fmt.Sprintf("curl -i http://%s/payments -H 'Authorization: me' \\\n     -H 'Idempotency-Key: order-1' -d amount=%d", b.gateway.address, amount)
	}
	s.println(
		" "+strong("It is still up. Try, in another terminal:"), "",
		"   "+curl(1250), faint("     charges: 201, and a line appears below"), "",
		"   "+curl(1250), faint("     the same again: the same answer, Idempotent-Replayed: true, no charge"), "",
		"   "+curl(9900), faint("     the key for another amount: 422, no charge"), "",
		"   "+faint("ledger  ")+b.ledgerPath(),
		"   "+faint("records ")+"semel list --store "+b.gateway.store(),
		"", " Ctrl-C ends it and removes everything.", "",
	)
	b.ledger.Follow(func(c storm.Charge) {
		s.println(fmt.Sprintf("   %s %s  %s paid %d.%02d", good("charged"), c.ID, c.Account, c.Amount/100, c.Amount%100))
	})
	defer b.ledger.Follow(nil)
	select {
	case <-ctx.Done():
		return nil // Ctrl-C is how it is meant to end
	case <-b.gateway.process.Ended():
		return fmt.Errorf("the gateway ended by itself: %v\n%s", b.gateway.process.Err(), tail(b.gateway.log(), 0))
	}
}
