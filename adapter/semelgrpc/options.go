package semelgrpc

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	"github.com/semelhq/semel"
)

// Names of metadata, all in lower case as gRPC has it.
const (
	// KeyMetadata carries the key in a request. Its value has the grammar of the
	// HTTP header, see semelhttp.ParseKey.
	KeyMetadata = "idempotency-key"
	// ReplayMetadata marks a replayed answer with "true" in its header.
	ReplayMetadata = "idempotent-replayed"
	// UnconfirmedMetadata marks with "true" in the header an answer for which the
	// authoritative store could not be asked.
	UnconfirmedMetadata = "semel-unconfirmed"
	// OutcomeMetadata is in the trailer of an error that a guarded method returned:
	// "done" for one that was stored, and is the answer to every retry; "not-done" for
	// one that was not, since nothing happened.
	OutcomeMetadata = "semel-outcome"
)

// Scope tells whose call it is. Records never cross scopes, so two clients may use
// equal keys. An error or an empty scope refuses the call: strangers that share a
// scope meet each other's keys. The scope is shown to people and kept in records,
// so it holds no credential: hash those, as MetadataScope does.
type Scope func(ctx context.Context, method string) (string, error)

// MetadataScope takes the scope from a call's metadata, such as authorization,
// each name of which must come exactly once. The scope is a truncated hash of the
// values; the values themselves are not kept.
func MetadataScope(names ...string) Scope {
	return func(ctx context.Context, _ string) (string, error) {
		var b []byte
		for _, name := range names {
			values := metadata.ValueFromIncomingContext(ctx, name)
			if len(values) != 1 || values[0] == "" {
				return "", fmt.Errorf("the scope of this method comes from the metadata %s, which must be sent exactly once and not be empty", name)
			}
			b = strconv.AppendInt(b, int64(len(values[0])), 10)
			b = append(append(b, ':'), values[0]...)
		}
		sum := sha256.Sum256(b)
		return hex.EncodeToString(sum[:12]), nil
	}
}

// SharedScope puts all clients into one scope: for a service with a single
// client, and for nothing else.
func SharedScope() Scope {
	return func(context.Context, string) (string, error) { return "shared", nil }
}

// Canonical gives the bytes of a request that are to be fingerprinted, in place of
// [CanonicalMessage]. It must not change the request. Its error refuses the call, and
// is shown to the client.
type Canonical func(ctx context.Context, req proto.Message) ([]byte, error)

// Options are the settings of a server.
type Options struct {
	// Scope is required; there is no default.
	Scope Scope
	// Tenant tells whose quota a call counts for, if its method's policy has one. Its
	// error refuses the call. What it gives is kept in memory and, where quotas are
	// shared, in the store, so it holds no credential. Default: what Scope gives, so
	// that all methods with one quota share it for each client.
	Tenant Scope
	// Methods are guarded: "/bank.Payments/Charge" is one method, "/bank.Payments/*"
	// all unary ones of a service that are not named themselves. Other unary methods
	// pass untouched. At least one is required.
	Methods map[string]Method
	// Streams are the streaming methods that may be called, unguarded; "/service/*"
	// names all of a service. Other streaming methods are refused, since nobody has
	// said that their effects need no guard.
	Streams []string
	// KeepMetadata are names of response metadata, header and trailer, that are stored
	// and replayed. Default: none.
	KeepMetadata []string
	// MaxMessage is the longest request in bytes that is fingerprinted; a longer one
	// is refused before anything runs. Default 4 MiB, as gRPC's own limit.
	MaxMessage int
	// MaxInFlight is how many guarded calls may be in a handler or waiting for it at
	// once; more are refused. Default 10,000.
	MaxInFlight int
	// Suspect is told of the keys whose outcome was just answered as unknown, so that
	// somebody can find out soon; Suspect of a completer is made for it. It must return
	// quickly. Default: nobody.
	Suspect func(semel.Digest)
	// Panicked is told of a handler's panic, and of a response that cannot be encoded;
	// then stack is nil. Both are answered with INTERNAL. Default: slog.Error.
	Panicked func(ctx context.Context, method string, value any, stack []byte)
}

// Method is how one method is guarded.
type Method struct {
	// Policy holds the method's numbers and its class. An empty Name is the method's.
	Policy semel.Policy
	// RequireKey refuses calls without a key. Otherwise they pass untouched, unless
	// DeriveKey is set.
	RequireKey bool
	// DeriveKey makes the fingerprint the key where a client sends none: two equal
	// calls of one scope are then one operation while the key is remembered.
	DeriveKey bool
	// FingerprintMetadata are names of request metadata whose values count, too.
	FingerprintMetadata []string
	// Canonical says what of a request counts. Default: all of it.
	Canonical Canonical
	// Memo gives what is to be kept of a request while its operation is pending, for
	// whoever has to find out what became of it, see semel.Ask. It puts no credential
	// there: it is stored in clear. At most 4 KiB. Its error refuses the call, as
	// Canonical's does. Default: nothing.
	Memo func(ctx context.Context, req proto.Message) ([]byte, error)
	// NotDone are codes by which the handler says that nothing happened: such an error
	// is passed on and not stored, and the key is free. Default: none, since a handler
	// that passes on the error of a call it made gives any code, and even
	// RESOURCE_EXHAUSTED may come after an effect. See also the function NotDone.
	NotDone []codes.Code
	// Unknown are codes by which the handler says that nobody knows what happened: the
	// key is in doubt, or free for another run if the class says so. Default CANCELLED,
	// DEADLINE_EXCEEDED and UNAVAILABLE, with which a call ends whose answer did not
	// come. An empty list that is not nil means none. Neither list matters to the
	// class Transactional: any error undoes the transaction.
	Unknown []codes.Code
}

// filled gives o with its defaults, or an error that names what is wrong.
func (o Options) filled(transactions bool) (Options, error) {
	if o.Scope == nil {
		return o, errors.New("semelgrpc: Options.Scope is required: without it clients would get each other's answers; use MetadataScope(\"authorization\"), or SharedScope() if there is only one client")
	}
	if len(o.Methods) == 0 {
		return o, errors.New("semelgrpc: Options.Methods names no method to guard; name those with effects, as in \"/bank.Payments/Charge\"")
	}
	if o.MaxMessage == 0 {
		o.MaxMessage = 4 << 20
	}
	if o.MaxInFlight == 0 {
		o.MaxInFlight = 10_000
	}
	if o.MaxMessage < 0 || o.MaxInFlight < 0 {
		return o, fmt.Errorf("semelgrpc: MaxMessage %d and MaxInFlight %d must not be negative", o.MaxMessage, o.MaxInFlight)
	}
	if o.Panicked == nil {
		o.Panicked = logPanic
	}
	keep := make([]string, len(o.KeepMetadata))
	for i, name := range o.KeepMetadata {
		if keep[i] = strings.ToLower(name); neverKept(keep[i]) {
			return o, fmt.Errorf("semelgrpc: KeepMetadata: %q belongs to one call or one client and cannot be replayed", name)
		}
	}
	o.KeepMetadata = keep
	methods := make(map[string]Method, len(o.Methods))
	for name, m := range o.Methods {
		var err error
		if methods[name], err = m.filled(name, transactions); err != nil {
			return o, err
		}
	}
	o.Methods = methods
	for _, name := range o.Streams {
		if err := checkName(name); err != nil {
			return o, err
		}
		if _, both := o.Methods[name]; both && !strings.HasSuffix(name, "/*") {
			return o, fmt.Errorf("semelgrpc: %s is in Methods and in Streams; a stream cannot be guarded", name)
		}
	}
	return o, nil
}

func (m Method) filled(name string, transactions bool) (Method, error) {
	if err := checkName(name); err != nil {
		return m, err
	}
	if m.Policy.Name == "" {
		m.Policy.Name = name
	}
	var err error
	if m.Policy, err = m.Policy.Filled(); err != nil {
		return m, err
	}
	if m.Unknown == nil {
		m.Unknown = []codes.Code{codes.Canceled, codes.DeadlineExceeded, codes.Unavailable}
	}
	switch {
	case m.Policy.Class == semel.Transactional && !transactions:
		return m, fmt.Errorf("semelgrpc: %s is transactional, and the guard's store begins no transactions: take the guard of a scope of the application's database, or another class", name)
	case m.RequireKey && m.DeriveKey:
		return m, fmt.Errorf("semelgrpc: %s: RequireKey refuses what DeriveKey would accept; set one of them", name)
	case slices.Contains(m.NotDone, codes.OK) || slices.Contains(m.Unknown, codes.OK):
		return m, fmt.Errorf("semelgrpc: %s: OK says that it was done; it can be neither in NotDone nor in Unknown", name)
	}
	for _, code := range m.NotDone {
		if slices.Contains(m.Unknown, code) {
			return m, fmt.Errorf("semelgrpc: %s: %v is in NotDone and in Unknown (whose default is CANCELLED, DEADLINE_EXCEEDED and UNAVAILABLE); say which of both it means", name, code)
		}
	}
	return m, nil
}

// checkName tells whether name is a method, or a service with a star.
func checkName(name string) error {
	service, method, ok := strings.Cut(strings.TrimPrefix(name, "/"), "/")
	if !ok || name[0] != '/' || service == "" || method == "" || strings.Contains(method, "/") || strings.Contains(service, "*") {
		return fmt.Errorf("semelgrpc: %q names no method; names look like \"/bank.Payments/Charge\", or \"/bank.Payments/*\" for a service", name)
	}
	return nil
}

// ofService gives the name that stands for all methods of a method's service.
func ofService(method string) string {
	return method[:strings.LastIndexByte(method, '/')+1] + "*"
}

// listed tells whether names has the method, or its service.
func listed(names []string, method string) bool {
	return slices.Contains(names, method) || slices.Contains(names, ofService(method))
}

// neverKept tells whether metadata belongs to gRPC, to one call or one client, or
// to this package.
func neverKept(name string) bool {
	switch name {
	case "", "content-type", "te", "user-agent", "authorization", "date",
		KeyMetadata, ReplayMetadata, UnconfirmedMetadata, OutcomeMetadata:
		return true
	}
	return name[0] == ':' || strings.HasPrefix(name, "grpc-")
}

func logPanic(ctx context.Context, method string, value any, stack []byte) {
	slog.ErrorContext(context.WithoutCancel(ctx), "semelgrpc: the handler failed", "method", method, "panic", value, "stack", string(stack))
}
