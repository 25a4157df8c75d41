package sqltx

import (
	"strings"
	"unicode/utf8"
)

// Syntax is how a database writes strings and comments.
type Syntax uint8

// The kinds of syntax.
const (
	SQLite Syntax = iota
	MySQL
	PostgreSQL
)

// verb is what a statement does to the transaction that it is in.
type verb uint8

const (
	plain verb = iota
	ends
	savepoint
	rollbackTo
	release
)

// controlled is a text of SQL, as far as it concerns transactions.
type controlled struct {
	verb  verb
	name  string // of a savepoint; of what ends a transaction, its first words
	alone bool   // the text has one statement
}

// maxWords is how many words at a statement's beginning are looked at.
const maxWords = 6

// control reads a text, which may be of several statements. What ends the
// transaction anywhere in it counts most; else the first that is not plain.
func (r *Rules) control(text string) controlled {
	var out controlled
	l := lexer{text: text, syntax: r.Syntax}
	n := 0
	for more := true; more; {
		var words [maxWords]string
		count := 0
		more = l.statement(&words, &count)
		if count == 0 {
			continue
		}
		n++
		c := r.judge(words[:count])
		if c.verb == ends {
			return c
		}
		if out.verb == plain {
			out = c
		}
		if defines(words[:count]) {
			break // its body has statements that run later
		}
	}
	out.alone = n == 1
	return out
}

func (r *Rules) judge(words []string) controlled {
	is := func(i int, any ...string) bool {
		for _, w := range any {
			if i < len(words) && strings.EqualFold(words[i], w) {
				return true
			}
		}
		return false
	}
	name := func(i int, skip string) string {
		if is(i, skip) {
			i++
		}
		if i < len(words) {
			return strings.Trim(words[i], "\"`[]'")
		}
		return ""
	}
	switch {
	case is(0, "SAVEPOINT"):
		return controlled{verb: savepoint, name: name(1, "")}
	case is(0, "RELEASE"):
		return controlled{verb: release, name: name(1, "SAVEPOINT")}
	case is(0, "ROLLBACK") && is(1, "TO"):
		return controlled{verb: rollbackTo, name: name(2, "SAVEPOINT")}
	case is(0, "ROLLBACK") && is(1, "WORK", "TRANSACTION") && is(2, "TO"):
		return controlled{verb: rollbackTo, name: name(3, "SAVEPOINT")}
	case is(0, "COMMIT", "END", "ROLLBACK", "ABORT", "BEGIN", "START", "XA"),
		is(0, "PREPARE") && is(1, "TRANSACTION"), r.Ends(words):
		return controlled{verb: ends, name: strings.Join(words[:min(len(words), 2)], " ")}
	}
	return controlled{}
}

// defines tells whether a statement defines a trigger or a routine.
func defines(words []string) bool {
	if !strings.EqualFold(words[0], "CREATE") {
		return false
	}
	for _, w := range words[1:] {
		for _, kind := range [...]string{"TRIGGER", "FUNCTION", "PROCEDURE", "EVENT"} {
			if strings.EqualFold(w, kind) {
				return true
			}
		}
	}
	return false
}

// lexer goes through a text of SQL, over strings and comments.
type lexer struct {
	text   string
	at     int
	syntax Syntax
}

// statement takes the next statement's first words, and tells whether another
// may follow.
func (l *lexer) statement(words *[maxWords]string, count *int) (more bool) {
	for l.at < len(l.text) {
		start := l.at
		c := l.text[l.at]
		switch {
		case c == ';':
			l.at++
			return true
		case l.comment():
			continue
		case c == '\'', c == '"', c == '`', c == '[' && l.syntax == SQLite:
			l.quoted(c)
		case c == '$' && l.syntax == PostgreSQL && l.dollars():
		case isWord(c):
			for l.at < len(l.text) && (isWord(l.text[l.at]) || l.text[l.at] == '$') {
				l.at++
			}
			if l.syntax == PostgreSQL && strings.EqualFold(l.text[start:l.at], "e") && l.at < len(l.text) && l.text[l.at] == '\'' {
				l.escaped('\'')
			}
		default:
			l.at++
			continue
		}
		if *count < maxWords {
			words[*count] = l.text[start:l.at]
			*count++
		}
	}
	return false
}

func isWord(c byte) bool {
	return c == '_' || c == '@' || c >= '0' && c <= '9' || c|0x20 >= 'a' && c|0x20 <= 'z' || c >= utf8.RuneSelf
}

// comment skips a comment, and tells whether there was one.
func (l *lexer) comment() bool {
	rest := l.text[l.at:]
	switch {
	case strings.HasPrefix(rest, "--") && (l.syntax != MySQL || len(rest) == 2 || rest[2] <= ' '),
		strings.HasPrefix(rest, "#") && l.syntax == MySQL:
		if end := strings.IndexByte(rest, '\n'); end >= 0 {
			l.at += end + 1
		} else {
			l.at = len(l.text)
		}
		return true
	case l.syntax == MySQL && (strings.HasPrefix(rest, "/*!") || strings.HasPrefix(rest, "/*M!")):
		// MySQL and MariaDB execute what is in it.
		l.at += strings.IndexByte(rest, '!') + 1
		for l.at < len(l.text) && l.text[l.at] >= '0' && l.text[l.at] <= '9' {
			l.at++
		}
		return true
	case strings.HasPrefix(rest, "/*"):
		l.block()
		return true
	}
	return false
}

// block skips a comment in slashes. PostgreSQL's nest.
func (l *lexer) block() {
	l.at += 2
	for depth := 1; l.at < len(l.text); {
		rest := l.text[l.at:]
		switch {
		case strings.HasPrefix(rest, "*/"):
			l.at += 2
			if depth--; depth == 0 {
				return
			}
		case strings.HasPrefix(rest, "/*") && l.syntax == PostgreSQL:
			l.at += 2
			depth++
		default:
			l.at++
		}
	}
}

// quoted skips what stands between quotes; a doubled quote is none.
func (l *lexer) quoted(quote byte) {
	if l.syntax == MySQL && quote != '`' {
		l.escaped(quote)
		return
	}
	if quote == '[' {
		quote = ']'
	}
	for l.at++; l.at < len(l.text); l.at++ {
		if l.text[l.at] == quote {
			l.at++
			return // of a doubled quote the second half begins another
		}
	}
}

// escaped skips what stands between quotes, where a backslash takes a quote's
// meaning away.
func (l *lexer) escaped(quote byte) {
	for l.at++; l.at < len(l.text); l.at++ {
		switch l.text[l.at] {
		case '\\':
			l.at++
		case quote:
			l.at++
			return
		}
	}
	l.at = len(l.text)
}

// dollars skips PostgreSQL's $tag$…$tag$, and tells whether there was one.
func (l *lexer) dollars() bool {
	end := 1
	for l.at+end < len(l.text) && isWord(l.text[l.at+end]) {
		end++
	}
	if l.at+end >= len(l.text) || l.text[l.at+end] != '$' || end > 1 && l.text[l.at+1] >= '0' && l.text[l.at+1] <= '9' {
		return false
	}
	tag := l.text[l.at : l.at+end+1]
	body := l.at + len(tag)
	close := strings.Index(l.text[body:], tag)
	if close < 0 {
		l.at = len(l.text)
		return true
	}
	l.at = body + close + len(tag)
	return true
}

// EndsTransaction tells whether a text of SQL has a statement that would end the
// transaction it is in, or begin another, and which: its first words.
func EndsTransaction(text string, syntax Syntax) (words string, is bool) {
	r := Rules{Syntax: syntax, Ends: func([]string) bool { return false }}
	c := r.control(text)
	return c.name, c.verb == ends
}
