package semelgrpc_test

import (
	"bytes"
	"testing"

	"github.com/semelhq/semel/adapter/semelgrpc"
)

func FuzzStoredAnswer(f *testing.F) {
	f.Add([]byte{2, 0, 0, 0})
	f.Add([]byte{2, 5, 1, 1, 'a', 1, 'b', 2, 1, 'a', 1, 'b', 1, 'a', 0, 'x'})
	f.Add([]byte{2, 0, 200, 1})
	f.Add([]byte{2, 0, 1, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		once, ok := semelgrpc.ReencodeForTest(b)
		if !ok {
			return
		}
		twice, ok := semelgrpc.ReencodeForTest(once)
		if !ok || !bytes.Equal(once, twice) {
			t.Errorf("%x becomes %x becomes %x", b, once, twice)
		}
	})
}
