package storetest

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"math"
	"strings"
	"time"

	"github.com/semelhq/semel"
)

// fieldChecks: every field comes back exactly as it was given.
func fieldChecks() []check {
	var checks []check
	add := func(name string, set func(r *semel.Record)) {
		checks = append(checks, check{name, 0, func(e *env) { fieldKept(e, set) }})
	}
	for _, r := range results() {
		add("result: "+r.name, func(rec *semel.Record) { rec.Result = r.value })
	}
	for _, d := range durations() {
		add("TTL: "+d.name, func(r *semel.Record) { r.State, r.TTL = semel.Pending, d.value })
		add("replay: "+d.name, func(r *semel.Record) { r.Replay = d.value })
	}
	for _, s := range texts() {
		add("text: "+s.name, func(r *semel.Record) { r.Key, r.Owner = semel.Key{Scope: s.value, ID: s.value}, s.value })
	}
	for c := semel.AtMostOnce; c <= semel.Transactional; c++ {
		add("class: "+c.String(), func(r *semel.Record) { r.Class = c })
	}
	for name, b := range map[string]byte{"zeros": 0, "ones": 0xFF, "spaces": ' ', "quotes": '\''} {
		add("nonce and fingerprint: all "+name, func(r *semel.Record) {
			copy(r.Nonce[:], bytes.Repeat([]byte{b}, 16))
			copy(r.Fingerprint[:], bytes.Repeat([]byte{b}, 32))
		})
	}
	add("attempt: 0", func(r *semel.Record) { r.Attempt = 0 })
	add("attempt: 2147483647", func(r *semel.Record) { r.Attempt = math.MaxInt32 })
	add("code: 0", func(r *semel.Record) { r.Code = 0 })
	add("code: 599", func(r *semel.Record) { r.Code = 599 })
	add("code: 2147483647", func(r *semel.Record) { r.Code = math.MaxInt32 })
	add("code: -1", func(r *semel.Record) { r.Code = -1 })
	add("scope and ID are not exchanged", func(r *semel.Record) { r.Key = semel.Key{Scope: "only a scope"} })
	add("ID and owner are not exchanged", func(r *semel.Record) { r.Key, r.Owner = semel.Key{ID: "only an id"}, "" })
	add("a bare record", func(r *semel.Record) { *r = semel.Record{Digest: r.Digest, State: semel.Pending} })
	return append(checks, check{"result of a pending record, over its renewals", 0, memoKept})
}

// memoKept: what a pending record has for whoever must find out later how its
// operation ended stays with it, and gives way to the answer.
func memoKept(e *env) {
	next := e.pending("k")
	next.Result = []byte("\x06chargeGET /charges/7\x00")
	held := e.insert(next)
	e.holds(held)
	for range 2 {
		held = e.over(e.renewed(held))
		e.holds(held)
		e.refuse(semel.Version{}, e.pending("k"), held)
	}
	held = e.over(expired(held))
	e.holds(held)
	e.holds(e.over(e.done(held, "receipt")))
}

// fieldKept inserts a record, reads it, meets it in a conflict, and writes it
// over another.
func fieldKept(e *env, set func(r *semel.Record)) {
	e.Helper()
	next := e.done(e.pending("k"), "receipt")
	next.Class = semel.Fenced
	set(&next)
	held := e.insert(next)
	e.holds(held)
	e.refuse(semel.Version{}, e.pending("k"), held)

	other := e.insert(e.pending("other"))
	next.Digest = other.Digest
	held = e.swap(other.Version, next)
	e.holds(held)
	e.refuse(other.Version, e.renewed(other), held)
}

type named[T any] struct {
	name  string
	value T
}

func results() []named[[]byte] {
	all := make([]byte, 256)
	for i := range all {
		all[i] = byte(i)
	}
	return []named[[]byte]{
		{"none", nil},
		{"empty", []byte{}},
		{"one zero byte", []byte{0}},
		{"every byte", all},
		{"ends in zeros", []byte("receipt\x00\x00\x00")},
		{"ends in spaces", []byte("receipt   ")},
		{"invalid UTF-8", []byte("\xff\xfe\xc0\x80\xed\xa0\x80")},
		{"JSON", []byte(`{"a":1,"a":2, "b":"\u0000'"}` + "\r\n")},
		{"hexadecimal escape", []byte(`\x00\\x41`)},
		{"64 KiB", noise(64 << 10)},
		{"1 MiB", noise(1 << 20)},
		{"1 MiB of zeros", make([]byte, 1<<20)},
	}
}

// noise gives n bytes that do not compress.
func noise(n int) []byte {
	out := make([]byte, 0, n+sha256.Size)
	for i := uint64(0); len(out) < n; i++ {
		block := sha256.Sum256(binary.BigEndian.AppendUint64(nil, i))
		out = append(out, block[:]...)
	}
	return out[:n]
}

func durations() []named[time.Duration] {
	return []named[time.Duration]{
		{"0", 0},
		{"1ns", 1},
		{"999ns", 999},
		{"1ms and 1ns", time.Millisecond + 1},
		{"a day less 1ns", 24*time.Hour - 1},
		{"a second above 32 bits of milliseconds", (1<<32)*time.Millisecond + time.Second},
		{"292 years", math.MaxInt64},
	}
}

func texts() []named[string] {
	return []named[string]{
		{"empty", ""},
		{"a zero byte", "\x00"},
		{"a zero byte in the middle", "abc\x00def"},
		{"a zero byte at the end", "abc\x00"},
		{"spaces around", "  abc  "},
		{"single quotes", `it's '' ' OR '1'='1`},
		{"double quotes and a backslash", `"\"\\`},
		{"wildcards", `%_*?[a-z]`},
		{"a statement", `'; DROP TABLE records; --`},
		{"line breaks", "a\r\nb\nc\rd\te"},
		{"accents, composed", "\u00e1bc"},
		{"accents, decomposed", "a\u0301bc"},
		{"outside the basic plane", "\U0001F600 \U00020000"},
		{"direction marks and joiners", "a\u202e\u200d\ufeffb"},
		{"0xFF bytes", "\xff\xff\xff"},
		{"invalid UTF-8", "a\xc3\x28\xed\xa0\x80\xf8b"},
		{"every byte", everyByte()},
		{"255 bytes", strings.Repeat("k", 255)},
		{"4 KiB", strings.Repeat("scope|", 683)},
		{"JSON", `{"a":null}`},
		{"looks like a number", "007"},
		{"looks like null", "NULL"},
	}
}

func everyByte() string {
	var b strings.Builder
	for i := range 256 {
		b.WriteByte(byte(i))
	}
	return b.String()
}

// digestChecks: two records are one only if all 32 bytes are equal.
func digestChecks() []check {
	const text = "charge 4711 of the tenant 'acme'"
	base := semel.Digest([]byte(text))
	with := func(i int, b byte) semel.Digest { d := base; d[i] = b; return d }
	var checks []check
	add := func(name string, a, b semel.Digest) {
		checks = append(checks, check{name, 0, func(e *env) { digestsApart(e, a, b) }})
	}
	var zeros, ones semel.Digest
	for i := range ones {
		ones[i] = 0xFF
	}
	add("all zeros and all ones", zeros, ones)
	add("all zeros and a last bit", zeros, semel.Digest{31: 1})
	add("all ones but the last bit", ones, func() semel.Digest { d := ones; d[31] = 0xFE; return d }())
	add("the last bit differs", base, with(31, base[31]^1))
	add("the first bit differs", base, with(0, base[0]^0x80))
	add("the last byte is a space or a zero", with(31, ' '), with(31, 0))
	add("a zero in the middle, then different", func() semel.Digest { d := with(15, 0); d[31] = 1; return d }(), with(15, 0))
	add("the first byte is a zero", with(0, 0), with(0, 1))
	add("upper and lower case letters", base, semel.Digest([]byte(strings.ToUpper(text))))
	add("bytes that are no UTF-8", with(3, 0xFF), with(3, 0xFE))
	add("only the last 16 bytes differ", base, semel.Digest([]byte(text[:16]+"another 16 bytes")))
	add("only the first 16 bytes differ", base, semel.Digest([]byte("another 16 bytes"+text[16:])))
	return append(checks,
		check{"abc, ABC, 'abc ', ábc and others are keys of their own", 0, digestsOfIDs},
		check{"scope and ID are told apart", 0, digestsOfScopes},
		check{"one bit at each place", 0, func(e *env) { digestsOneBit(e, base) }})
}

func digestsApart(e *env, digests ...semel.Digest) {
	e.Helper()
	held := make([]semel.Record, len(digests))
	for i, d := range digests {
		next := e.pending("k")
		next.Digest, next.Attempt = d, i+1
		held[i] = e.insert(next)
	}
	for i, r := range held {
		e.refuse(semel.Version{}, r, held[i])
		held[i] = e.over(e.done(r, r.Digest.String()))
	}
	for _, r := range held {
		e.holds(r)
	}
}

func digestsOfIDs(e *env) {
	var digests []semel.Digest
	for _, id := range []string{"abc", "ABC", "abc ", "\u00e1bc", "a\u0301bc", "abc\x00", " abc", "abc\n", "ab", "\uff41bc"} {
		digests = append(digests, semel.Key{Scope: scope, ID: id}.Digest(nil))
	}
	digestsApart(e, digests...)
}

func digestsOfScopes(e *env) {
	var digests []semel.Digest
	for _, k := range []semel.Key{{Scope: "ab", ID: "c"}, {Scope: "a", ID: "bc"}, {Scope: "abc"}, {ID: "abc"}, {Scope: "Ab", ID: "c"}} {
		digests = append(digests, k.Digest(nil))
	}
	digestsApart(e, digests...)
}

func digestsOneBit(e *env, base semel.Digest) {
	digests := []semel.Digest{base}
	for i := range base {
		d := base
		d[i] ^= 1 << (i % 8)
		digests = append(digests, d)
	}
	digestsApart(e, digests...)
}
