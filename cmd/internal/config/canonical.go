package config

import (
	"errors"
	"net/http"
	"strings"

	"github.com/semelhq/semel/adapter/canonical"
	"github.com/semelhq/semel/semelhttp"
)

// words tells clients what of a body counts.
func (f Fingerprint) words() string {
	switch {
	case len(f.Include) > 0:
		return "json, only " + strings.Join(f.Include, " ")
	case len(f.Exclude) > 0:
		return "json, without " + strings.Join(f.Exclude, " ")
	case f.JSON:
		return "json"
	case f.Form:
		return "form"
	}
	return "bytes"
}

// canonical gives the function that says which bytes of a body count; nil for
// all of them.
func (f Fingerprint) canonical(maxBody int64) (semelhttp.Canonical, error) {
	switch {
	case f.JSON && f.Form:
		return nil, errors.New("json and form exclude each other: a body is one of them; set one of them")
	case !f.JSON && len(f.Include) > 0:
		return nil, errors.New("include names fields of JSON: set json: true as well")
	case !f.JSON && len(f.Exclude) > 0:
		return nil, errors.New("exclude names fields of JSON: set json: true as well")
	}
	var body semelhttp.Canonical
	if f.Form {
		body = semelhttp.Form()
	}
	if f.JSON {
		var err error
		if body, err = canonical.JSON(canonical.Options{Include: f.Include, Exclude: f.Exclude, MaxBytes: maxBody}); err != nil {
			return nil, errors.New(strings.TrimPrefix(err.Error(), "canonical: "))
		}
	}
	if !f.ContentDigest {
		return body, nil
	}
	digest := semelhttp.ContentDigest()
	if body == nil {
		return digest, nil
	}
	return func(r *http.Request, content []byte) ([]byte, error) {
		if _, err := digest(r, content); err != nil {
			return nil, err
		}
		return body(r, content)
	}, nil
}
