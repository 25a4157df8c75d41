package semelhttp

import (
	"net/http"
	"reflect"
	"testing"
)

func FuzzDecode(f *testing.F) {
	all := func(string) bool { return true }
	f.Add(encode(200, nil, nil, all, nil))
	f.Add(encode(201, http.Header{"Location": {"/a"}, "Link": {"a", "b"}}, http.Header{"X-Sum": {"1"}}, all, []byte("body")))
	f.Add([]byte{1, 200, 1, 255, 255, 255, 255, 15})
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := decode(b)
		if err != nil {
			return
		}
		again, err := decode(encode(s.status, s.header, s.trailer, all, s.body))
		if err != nil || !reflect.DeepEqual(again, s) {
			t.Errorf("%v: decoded to %+v, then to %+v (%v)", b, s, again, err)
		}
	})
}

func TestDecodeRefusesEveryTruncatedHead(t *testing.T) {
	whole := encode(201, http.Header{"Location": {"/a"}}, nil, func(string) bool { return true }, nil)
	for n := range whole {
		if s, err := decode(whole[:n]); err == nil {
			t.Errorf("%d of %d bytes decoded to %+v", n, len(whole), s)
		}
	}
}
