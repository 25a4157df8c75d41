package pgtx

import (
	"strings"
	"sync"
)

// Ear hears whether a server has anything to say while it commits, such as that
// it gave up waiting for its standby. The application's connections have their own
// OnNotice, so this is where a scope learns of it: it is given to pgproto3's
// Frontend.Trace. The zero Ear is ready.
type Ear struct {
	mu     sync.Mutex
	notice bool
}

// Write is part of io.Writer: it is given one message of the protocol as text.
func (e *Ear) Write(line []byte) (int, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.notice = e.notice || strings.Contains(string(line), "\tNoticeResponse\t")
	return len(line), nil
}

// Notice tells whether there was a notice or a warning.
func (e *Ear) Notice() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.notice
}
