package demo

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

// ledger is an append-only file with one line per charge. It has no unique
// constraint: whoever charges twice writes two lines.
type ledger struct {
	mu   sync.Mutex
	file *os.File
	n    int
	tell func(Charge) // called with each line; may be nil
}

func openLedger(path string) (*ledger, error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("the ledger: %w", err)
	}
	return &ledger{file: file}, nil
}

func (l *ledger) append(c Charge) error {
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

// follow has fn told of each line from now on.
func (l *ledger) follow(fn func(Charge)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.tell = fn
}

func (l *ledger) lines() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.n
}

func (l *ledger) close() error { return l.file.Close() }

// readLedger reads the file as an auditor would: every line counts.
func readLedger(path string) ([]Charge, error) {
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
