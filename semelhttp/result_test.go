package semelhttp

import (
	"reflect"
	"testing"
)

func FuzzDecode(f *testing.F) {
	f.Add(encode(200, nil, nil, nil))
	f.Add(encode(201, []field{{"Location", []string{"/a"}}, {"Link", []string{"a", "b"}}}, []field{{"X-Sum", []string{"1"}}}, []byte("body")))
	f.Add([]byte{1, 200, 1, 255, 255, 255, 255, 15})
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := decode(b)
		if err != nil {
			return
		}
		again, err := decode(encode(s.status, s.header, s.trailer, s.body))
		if err != nil || !reflect.DeepEqual(again, s) {
			t.Errorf("%v: decoded to %+v, then to %+v (%v)", b, s, again, err)
		}
	})
}

func TestDecodeRefusesEveryTruncatedHead(t *testing.T) {
	whole := encode(201, []field{{"Location", []string{"/a"}}}, nil, nil)
	for n := range whole {
		if s, err := decode(whole[:n]); err == nil {
			t.Errorf("%d of %d bytes decoded to %+v", n, len(whole), s)
		}
	}
}
