package main

import (
	"fmt"
	"log"
	"net/http"
	"sync"
)

// warehouse stands in for a service of somebody else's that takes a key once.
type warehouse struct {
	mu    sync.Mutex
	known map[string]string // the shipment of each key
}

// ServeHTTP is POST /shipments.
func (h *warehouse) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	key := r.Header.Get("Idempotency-Key")
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.known == nil {
		h.known = map[string]string{}
	}
	if h.known[key] == "" {
		h.known[key] = fmt.Sprint("parcel-", len(h.known)+1)
		log.Printf("warehouse: %s leaves, for key %s", h.known[key], key)
	}
	w.WriteHeader(http.StatusCreated)
	fmt.Fprint(w, h.known[key])
}
