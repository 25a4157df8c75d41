package storm

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"sync"
	"time"
)

// A Charge is one line of the ledger: one execution of a payment.
type Charge struct {
	At        time.Time `json:"at"`
	ID        string    `json:"id"`
	Account   string    `json:"account"`
	Reference string    `json:"reference"`
	Amount    int       `json:"amount"`
}

// Ledger is an append-only file with one line per charge. It has no unique
// constraint: whoever charges twice writes two lines. It is safe for concurrent
// use.
type Ledger struct {
	mu   sync.Mutex
	file *os.File
	n    int
	tell func(Charge) // called with each line; may be nil
}

// OpenLedger opens the file, or makes it.
func OpenLedger(path string) (*Ledger, error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("the ledger: %w", err)
	}
	return &Ledger{file: file}, nil
}

func (l *Ledger) append(c Charge) error {
	line, err := json.Marshal(c)
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, err := l.file.Write(append(line, '\n')); err != nil {
		return fmt.Errorf("the ledger: %w", err)
	}
	l.n++
	if l.tell != nil {
		l.tell(c)
	}
	return nil
}

// Follow has fn told of each line from now on.
func (l *Ledger) Follow(fn func(Charge)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.tell = fn
}

// Lines is how many charges were written since it was opened.
func (l *Ledger) Lines() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.n
}

// Close closes the file.
func (l *Ledger) Close() error { return l.file.Close() }

// ReadLedger reads the file as an auditor would: every line counts.
func ReadLedger(path string) ([]Charge, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("the ledger: %w", err)
	}
	defer file.Close()
	var charges []Charge
	scanner := bufio.NewScanner(file)
	for scanner.Scan() {
		var c Charge
		if err := json.Unmarshal(scanner.Bytes(), &c); err != nil {
			return nil, fmt.Errorf("the ledger, line %d: %w", len(charges)+1, err)
		}
		charges = append(charges, c)
	}
	return charges, scanner.Err()
}
