package postgres

import (
	"time"

	"github.com/semelhq/semel"
)

// URL is where a store is connected to.
func URL(s *Store) string { return s.engine.pool.Config().ConnString() }

// Cautions is what a store says of settings and clocks like these.
func Cautions(pages, commit, standbys string, streaming int, away time.Duration) []string {
	e := &engine{options: Options{}.filled()}
	e.server.commit, e.server.standbys, e.server.streaming = commit, standbys, streaming
	e.weigh(pages, away)
	return e.server.cautions
}

// Wanted tells whether a store knows that another waits for a key.
func Wanted(s *Store, d semel.Digest) bool {
	s.watch.mu.Lock()
	defer s.watch.mu.Unlock()
	_, ok := s.watch.wanted[word("", d)]
	return ok
}
