package remote

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/semelhq/semel"
)

// HandlerOptions say who may use a store, and for how much. Tokens or MutualTLS
// must be set; with both, both are wanted of each request.
type HandlerOptions struct {
	// Tokens are the secrets of which a request must carry one. More than one is for
	// rotation: add the new one, change the clients, drop the old one. Each has at
	// least 22 visible ASCII characters, as 128 random bits have in base64.
	Tokens []string
	// MutualTLS wants a client certificate, which the listener must have verified:
	// set tls.Config's ClientAuth to RequireAndVerifyClientCert and ClientCAs to a CA
	// that signs for this purpose only. With ClientCAs nil, every certificate of a
	// public CA would do.
	MutualTLS bool
	// MaxBytes bounds each message, in bytes. A record with its result must fit.
	// Default 16 MiB, at least 4 KiB.
	MaxBytes int
	// Timeout bounds each call, beside the deadline that the client sends along.
	// Default 30 s.
	Timeout time.Duration
	// Watches is how many keys may be watched at once, by all clients. A watch too
	// many is refused, and its client polls. Default 1024.
	Watches int
}

const (
	minToken    = 22
	minMaxBytes = 4 << 10
)

// Handler serves a store over HTTP. It is safe for concurrent use. It answers
// below /semel/: mount it at a server's root, or strip the path before it.
//
// A swap that has begun goes on when its client leaves. A panic of the store
// goes to the server, which cuts the connection: the client then knows nothing.
type Handler struct {
	store   semel.Store
	options HandlerOptions
	tokens  [][sha256.Size]byte
	hello   []byte
	serve   [lastVerb + 1]func(ctx context.Context, in *cursor, out *reply) bool // by verb

	batcher semel.Batcher // each nil if the store is none
	sweeper semel.Sweeper
	lister  semel.Lister
	journal semel.Journal
	watcher semel.Watcher
	measure semel.Measurer

	watching chan struct{} // bounds the watches
	closing  chan struct{}
	once     sync.Once
}

var _ http.Handler = (*Handler)(nil)

// NewHandler gives a handler for store. It is refused without a credential to
// ask for, and with a token that could be guessed.
func NewHandler(store semel.Store, o HandlerOptions) (*Handler, error) {
	if store == nil {
		return nil, errors.New("remote: a handler needs a store")
	}
	if len(o.Tokens) == 0 && !o.MutualTLS {
		return nil, errors.New("remote: anybody who can connect could read and write every record: set Tokens, or set MutualTLS and have the listener verify client certificates")
	}
	if o.MaxBytes == 0 {
		o.MaxBytes = defaultMaxBytes
	}
	if o.MaxBytes < minMaxBytes || o.MaxBytes > 1<<30 {
		return nil, fmt.Errorf("remote: MaxBytes is %d and must be from %d to %d", o.MaxBytes, minMaxBytes, 1<<30)
	}
	if o.Timeout <= 0 {
		o.Timeout = defaultTimeout
	}
	if o.Watches <= 0 {
		o.Watches = 1024
	}
	h := &Handler{store: store, options: o, watching: make(chan struct{}, o.Watches), closing: make(chan struct{})}
	for i, token := range o.Tokens {
		if len(token) < minToken || strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }) {
			return nil, fmt.Errorf("remote: token %d of %d has %d characters; at least %d are wanted, visible ASCII without spaces: try `openssl rand -hex 32`",
				i+1, len(o.Tokens), len(token), minToken)
		}
		h.tokens = append(h.tokens, sha256.Sum256([]byte(token)))
	}
	return h, h.learn()
}

// learn finds out what the store can do, and writes the greeting.
func (h *Handler) learn() error {
	hi := hello{Semel: "store", MaxBytes: h.options.MaxBytes, Abilities: []string{}}
	hi.Versions.Min, hi.Versions.Max = protocol, protocol
	has := func(name string, is bool) {
		if is {
			hi.Abilities = append(hi.Abilities, name)
		}
	}
	var is bool
	h.batcher, _ = semel.As[semel.Batcher](h.store)
	h.sweeper, is = semel.As[semel.Sweeper](h.store)
	has(sweeps, is)
	h.lister, is = semel.As[semel.Lister](h.store)
	has(lists, is)
	h.journal, is = semel.As[semel.Journal](h.store)
	has(journals, is)
	h.watcher, is = semel.As[semel.Watcher](h.store)
	has(watches, is)
	h.measure, is = semel.As[semel.Measurer](h.store)
	has(measures, is)
	if describer, ok := semel.As[semel.Describer](h.store); ok {
		d := describer.Describe()
		hi.Description = &description{Survives: d.Survives.String(), Durability: d.Durability, Clock: d.Clock, Cautions: d.Cautions}
		for _, trait := range d.Traits {
			hi.Description.Traits = append(hi.Description.Traits, string(trait))
		}
	}
	h.serve = [...]func(ctx context.Context, in *cursor, out *reply) bool{
		verbGet: h.get, verbSwap: h.swap, verbMany: h.many, verbSweep: h.sweep, verbList: h.list, verbHistory: h.history,
		verbMeasure: h.measured,
	}
	var err error
	h.hello, err = json.Marshal(hi)
	return err
}

// Close ends the watches that are under way, so that http.Server.Shutdown does
// not wait for them: give it to RegisterOnShutdown. Other calls go on.
func (h *Handler) Close() { h.once.Do(func() { close(h.closing) }) }

// ServeHTTP is part of http.Handler.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	refuse := func(status int, text string) { http.Error(w, text, status) }
	switch {
	case h.options.MutualTLS && (r.TLS == nil || len(r.TLS.VerifiedChains) == 0):
		refuse(http.StatusForbidden, "a verified client certificate is wanted")
		return
	case !h.knows(r.Header["Authorization"]):
		w.Header().Set("WWW-Authenticate", "Bearer")
		refuse(http.StatusUnauthorized, "a known token is wanted")
		return
	case r.URL.Path == helloPath && r.Method == http.MethodGet:
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(h.hello) // a client that has left needs no greeting
		return
	}
	v := verbOf(r.URL.Path)
	switch {
	case v == 0:
		refuse(http.StatusNotFound, "there is "+helloPath+", and "+prefix+" with a verb")
	case r.Method != http.MethodPost:
		w.Header().Set("Allow", http.MethodPost)
		refuse(http.StatusMethodNotAllowed, "POST is wanted")
	case r.Header.Get("Content-Type") != messageType || r.Header.Get("Content-Encoding") != "":
		refuse(http.StatusUnsupportedMediaType, "a body of type "+messageType+" without Content-Encoding is wanted")
	default:
		h.answer(w, r, v)
	}
}

// knows tells whether the one Authorization header has one of the tokens. Its
// time does not depend on how much of a token is right, nor on which.
func (h *Handler) knows(headers []string) bool {
	if len(h.tokens) == 0 {
		return true
	}
	if len(headers) != 1 {
		return false
	}
	scheme, token, _ := strings.Cut(headers[0], " ")
	sum := sha256.Sum256([]byte(token))
	known := 0
	for i := range h.tokens {
		known |= subtle.ConstantTimeCompare(sum[:], h.tokens[i][:])
	}
	return known == 1 && strings.EqualFold(scheme, "Bearer")
}

func verbOf(path string) verb {
	name, ok := strings.CutPrefix(path, prefix)
	for v := verbGet; ok && v <= lastVerb; v++ {
		if verbs[v] == name {
			return v
		}
	}
	return 0
}

// answer reads a message and answers it.
func (h *Handler) answer(w http.ResponseWriter, r *http.Request, v verb) {
	timeout, room, err := h.bounds(r.Header)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	control := http.NewResponseController(w)
	_ = control.SetReadDeadline(time.Now().Add(timeout)) // a writer of tests may have no deadlines
	body, err := readBody(r.Body, r.ContentLength, h.options.MaxBytes)
	_ = control.SetReadDeadline(time.Time{})
	if err != nil {
		status := http.StatusBadRequest
		if errors.Is(err, errTooLarge) {
			status = http.StatusRequestEntityTooLarge
		}
		http.Error(w, printable(err.Error()), status)
		return
	}
	id, payload, err := open(body, v)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if v == verbWatch {
		h.watch(w, r, &payload)
		return
	}
	// The client may leave; what it asked for goes on to its deadline.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), timeout)
	defer cancel()
	out := reply{b: begin(nil, v|answerFlag, id), room: room}
	if !h.serve[v](ctx, &payload, &out) {
		http.Error(w, "the payload does not decode, or asks for what the store cannot do", http.StatusBadRequest)
		return
	}
	answer := seal(out.b)
	w.Header().Set("Content-Type", messageType)
	w.Header().Set("Content-Length", strconv.Itoa(len(answer)))
	_, _ = w.Write(answer) // a client that has left asks again
}

// bounds reads how long the client waits and how much it reads.
func (h *Handler) bounds(head http.Header) (timeout time.Duration, room int, err error) {
	number := func(name string, most int64) int64 {
		text := head.Get(name)
		if text == "" {
			return most
		}
		n, parseErr := strconv.ParseInt(text, 10, 64)
		if parseErr != nil || n <= 0 {
			err = fmt.Errorf("%s is %q and must be a number above 0", name, printable(text))
		}
		return min(n, most)
	}
	timeout = time.Duration(number(headTimeout, h.options.Timeout.Milliseconds())) * time.Millisecond
	room = int(number(headMaxBytes, int64(h.options.MaxBytes)))
	if err == nil && room < minMaxBytes {
		err = fmt.Errorf("%s is %d and must be at least %d", headMaxBytes, room, minMaxBytes)
	}
	return max(timeout, time.Millisecond), room, err
}
