// Package serving is what the commands that serve have in common: where they listen,
// whom they tell, what they measure, and how they end.
//
// The commands import it. Settings are package config's, and what is served is the
// gateway's or the store's own.
package serving
