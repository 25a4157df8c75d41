// Package batch is group commit for any store that can take many swaps at
// once: a store in front of a store.
//
// A swap that finds nothing under way goes out at once, alone; there is no
// timer to wait for. What arrives while a commit is under way is collected and
// goes out together with the next one. So a lone caller pays what the store
// costs, and five hundred callers share one commit.
//
//	file, err := open(…)            // a semel.Store that is a semel.Batcher
//	…
//	store := batch.New(file, batch.Options{})
//	defer store.Close()             // before file is closed
//
// Do not use it where a commit is cheap, as in memory: there it only adds a
// change of goroutines. Do not put it in front of a store that has it already:
// the stores of this project say so where they do.
//
// It may be imported by everyone; it imports the root only.
package batch
