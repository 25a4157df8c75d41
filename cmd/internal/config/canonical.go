package config

import (
	"errors"

	"github.com/semelhq/semel/semelhttp"
)

// canonical gives the function that says which bytes of a body count; nil for
// all of them.
func (f Fingerprint) canonical() (semelhttp.Canonical, error) {
	switch {
	case f.JSON && f.Form:
		return nil, errors.New("fingerprint: a body is either json or a form; set one of them")
	case len(f.Include) > 0 && len(f.Exclude) > 0:
		return nil, errors.New("fingerprint: include names all that counts, so exclude says nothing more; set one of them")
	}
	return nil, nil
}
