package semelhttp

import (
	"bytes"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"net/url"
	"strings"
)

// Form is a Canonical for HTML forms: what counts are the names and values, not
// their encoding, nor the boundary that a client invents for each attempt. Names
// are sorted, and the values of one name keep their order. A body that is no
// form is refused. JSON has its Canonical in the adapter module.
func Form() Canonical {
	return func(r *http.Request, body []byte) ([]byte, error) {
		media, params, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
		if err != nil {
			return nil, fmt.Errorf("the Content-Type cannot be read: %w", err)
		}
		switch media {
		case "application/x-www-form-urlencoded":
			values, err := url.ParseQuery(string(body))
			if err != nil {
				return nil, fmt.Errorf("the form cannot be read: %w", err)
			}
			return []byte(values.Encode()), nil
		case "multipart/form-data":
			return canonicalParts(multipart.NewReader(bytes.NewReader(body), params["boundary"]))
		}
		return nil, fmt.Errorf("this route takes forms, and the Content-Type is %q", media)
	}
}

// canonicalParts writes each part's name, file name, type and content, each
// with its length, in the order in which they came.
func canonicalParts(parts *multipart.Reader) ([]byte, error) {
	var out bytes.Buffer
	for {
		part, err := parts.NextRawPart()
		if errors.Is(err, io.EOF) {
			return out.Bytes(), nil
		}
		if err != nil {
			return nil, fmt.Errorf("the form cannot be read: %w", err)
		}
		content, err := io.ReadAll(part)
		if err != nil {
			return nil, fmt.Errorf("the form cannot be read: %w", err)
		}
		for _, field := range [...]string{part.FormName(), part.FileName(), part.Header.Get("Content-Type"), string(content)} {
			fmt.Fprintf(&out, "%d:%s", len(field), field)
		}
	}
}

// ContentDigest is a Canonical for clients that send Content-Digest (RFC 9530)
// with sha-256 or sha-512: the body is checked against it, and one that was
// damaged on its way is refused before anything runs. The body itself counts.
func ContentDigest() Canonical {
	return func(r *http.Request, body []byte) ([]byte, error) {
		checked := false
		for member := range strings.SplitSeq(strings.Join(r.Header.Values("Content-Digest"), ","), ",") {
			name, value, _ := strings.Cut(strings.TrimSpace(member), "=")
			var sum []byte
			switch name {
			case "sha-256":
				s := sha256.Sum256(body)
				sum = s[:]
			case "sha-512":
				s := sha512.Sum512(body)
				sum = s[:]
			default:
				continue // the RFC has receivers ignore algorithms that they do not know
			}
			if subtle.ConstantTimeCompare([]byte(value), []byte(":"+base64.StdEncoding.EncodeToString(sum)+":")) != 1 {
				return nil, fmt.Errorf("the body does not match its Content-Digest %s", name)
			}
			checked = true
		}
		if !checked {
			return nil, errors.New("this route wants the header Content-Digest with sha-256 or sha-512")
		}
		return body, nil
	}
}
