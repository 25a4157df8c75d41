package redis

import "context"

// PretendOld makes a store treat its server as one before Redis 7.
func PretendOld(s *Store) {
	s.client.major = 6
	for _, slot := range s.client.slots {
		slot.looking <- struct{}{}
		_, err := s.client.look(context.Background(), slot, true)
		<-slot.looking
		if err != nil {
			panic(err)
		}
	}
}

// Patrol has the store look at its servers now.
func Patrol(s *Store) { s.client.round(context.Background()) }

// Bury has the store take away results that are spent, now.
func Bury(s *Store) (int, error) { return s.client.bury(context.Background(), 0) }
