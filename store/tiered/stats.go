package tiered

// Stats are counts since the store was made. They grow only; Down is as of now.
type Stats struct {
	// Tiers is one for each of Options.Caches, in that order.
	Tiers []TierStats
	// Misses counts the reads and inserts that no cache could answer.
	Misses uint64
	// Down tells that the last call of the durable store failed.
	Down bool
}

// TierStats are the counts of one cache.
type TierStats struct {
	// Hits counts the answers that came from it.
	Hits uint64
	// Errors counts calls that failed, took too long, or gave what cannot be.
	Errors uint64
	// Skipped counts calls that were not made while the cache rested.
	Skipped uint64
	// Filled counts the records that were put into it.
	Filled uint64
	// Dropped counts the records that were not put into it for want of room in the
	// queue.
	Dropped uint64
}

// Stats gives the counts. It does not wait for anything.
func (s *Store) Stats() Stats {
	out := Stats{Misses: s.misses.Load(), Down: s.down.Load()}
	for _, t := range s.tiers {
		out.Tiers = append(out.Tiers, TierStats{
			Hits: t.hits.Load(), Errors: t.errs.Load(), Skipped: t.skipped.Load(),
			Filled: t.filled.Load(), Dropped: t.dropped.Load(),
		})
	}
	return out
}
