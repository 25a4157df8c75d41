package redis

import (
	"crypto/sha1"
	_ "embed"
	"encoding/hex"
	"fmt"
)

//go:embed swap.lua
var swapText string

//go:embed term.lua
var termText string

// script is a Lua text and the name under which a server caches it.
type script struct{ text, sha string }

func newScript(text string) script {
	sum := sha1.Sum([]byte(text))
	return script{text, hex.EncodeToString(sum[:])}
}

// swapFor gives the script that swaps on the server process run, and on no
// other: a server's cache of scripts ends with its process and is not replicated,
// so another process answers NOSCRIPT to this script's name. Before Redis 7 the
// cache went to replicas and into snapshots; there the script looks for itself.
func swapFor(run string, major int) script {
	first := "-- " + run + "\n"
	if major < 7 {
		first = fmt.Sprintf("if not string.find(redis.call('INFO', 'server'), '%s', 1, true) then return redis.error_reply('SEMELTERM another process') end\n", run)
	}
	return newScript(first + swapText)
}
