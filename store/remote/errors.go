package remote

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"unicode"

	"github.com/semelhq/semel"
)

// outcome says in an answer what a call of the far store came to.
type outcome uint8

const (
	done        outcome = iota + 1
	conflict            // semel.ErrConflict, with what is held
	damaged             // semel.ErrDamaged, with a text
	rejected            // semel.ErrRejected, with a text
	unknown             // any other error, with a text
	unavailable         // semel.ErrUnavailable, with a text
)

// outcomeOf gives what a far store's error means.
func outcomeOf(err error) outcome {
	switch {
	case err == nil:
		return done
	case errors.Is(err, semel.ErrConflict):
		return conflict
	case errors.Is(err, semel.ErrDamaged):
		return damaged
	case errors.Is(err, semel.ErrRejected):
		return rejected
	case errors.Is(err, semel.ErrUnavailable):
		return unavailable
	}
	return unknown
}

// maxText bounds the text of an error on the wire, in bytes.
const maxText = 1 << 10

// appendText appends a text, cut to most bytes.
func appendText(b []byte, text string, most int) []byte {
	return appendBytes(b, []byte(text[:min(len(text), most)]))
}

// failure reads the text of an outcome that is neither done nor conflict, and
// gives the error that it stands for.
func (c *cursor) failure(o outcome) error {
	text := printable(string(c.bytes()))
	switch o {
	case damaged:
		return fmt.Errorf("remote: the far store says: %w (%s)", semel.ErrDamaged, text)
	case rejected:
		return fmt.Errorf("remote: the far store says: %w (%s)", semel.ErrRejected, text)
	case unavailable:
		return fmt.Errorf("remote: the far store says: %w (%s)", semel.ErrUnavailable, text)
	case unknown:
		return fmt.Errorf("remote: the far store failed: %s", text)
	}
	c.bad = true
	return nil
}

// printable makes a text from elsewhere fit for a log: one line, no control
// characters, not long.
func printable(text string) string {
	clean := strings.Map(func(r rune) rune {
		if r == unicode.ReplacementChar || !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, text[:min(len(text), maxText)])
	return strings.Join(strings.Fields(clean), " ")
}

var (
	errClosed    = errors.New("remote: the store is closed; nothing was sent")
	errTooLarge  = errors.New("the message is too large")
	errMalformed = errors.New("the answer's payload does not decode, or contradicts the question")
)

// refused is the error for a status that only the peer, or something between,
// can have meant for people.
func refused(status int, text string) error {
	advice := "this is no answer of a Semel store; is the URL right, and is there a proxy between?"
	switch status {
	case http.StatusUnauthorized:
		advice = "the token is missing or not known there: Options.Token must be one of the handler's Tokens"
	case http.StatusForbidden:
		advice = "a client certificate is wanted: put one into Options.TLS.Certificates"
	case http.StatusNotFound:
		advice = "there is no Semel store at this URL, or one of another version"
	case http.StatusRequestEntityTooLarge:
		advice = "the request is larger than the handler's MaxBytes, or than a proxy between allows"
	case http.StatusServiceUnavailable:
		advice = "the far side, or a proxy between, is overloaded or restarting"
	}
	if status >= 300 && status < 400 {
		advice = "redirects are not followed, since the token would go along: name the final URL"
	}
	return fmt.Errorf("status %d (%.200s): %s", status, printable(text), advice)
}

// advise adds what to do to errors of the connection. A server that does not
// like a client's certificate says so after the handshake, if at all: it may cut
// the connection before what it says is read.
func advise(err error, secure bool) error {
	var untrusted *tls.CertificateVerificationError
	var operation *net.OpError
	dialling := errors.As(err, &operation) && operation.Op == "dial"
	late := errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
	switch {
	case errors.As(err, &untrusted):
		return fmt.Errorf("the server's certificate is not trusted; put its CA into Options.TLS.RootCAs, and look at its names and dates: %w", err)
	case secure && !dialling && !late:
		return fmt.Errorf("the server broke the connection off; if it wants client certificates, put a valid one into Options.TLS.Certificates: %w", err)
	}
	return err
}
