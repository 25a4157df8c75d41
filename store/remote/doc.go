// Package remote is a store in another place: a Handler serves any semel.Store
// over HTTP, and Dial gives a semel.Store that uses it.
//
//	handler, err := remote.NewHandler(store, remote.HandlerOptions{Tokens: []string{token}})
//	…                                                        // where the store is
//	server := &http.Server{Handler: handler, TLSConfig: …, ReadHeaderTimeout: 10 * time.Second}
//
//	far, err := remote.Dial(ctx, "https://store.example:7443", remote.Options{Token: token})
//	…                                                        // where it is used
//	defer far.Close()
//
// The far store decides everything, and its clock is the clock. What does not
// come back as a whole and well-formed answer is an unknown outcome: never a
// success, never "nothing is held". Nothing is sent twice by itself.
//
// A caller pays one round trip for each call. Where many call at once, put
// package batch in front: batch.New(far, batch.Options{Workers: 4}) sends what
// collects while an answer is awaited as one request and, if the far store can,
// as one commit.
//
// Do not use it where the database behind can be reached directly: it adds a
// hop and a process that can fail. Whoever may use the Handler may read and
// write every key: it is for processes of one deployment, not for tenants.
//
// README.md tells what it costs and what it cannot do, docs/spec/remote.md is
// the wire format. It imports the root and the standard library; programs and
// package region import it.
package remote
