package semel_test

import (
	"bytes"
	"context"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/store/memory"
)

func fullRecord() semel.Record {
	key := semel.Key{Scope: "tenant|POST /charges", ID: "order-17"}
	return semel.Record{
		Digest: key.Digest(nil), Fingerprint: semel.Fingerprint{1, 2}, State: semel.Done, Class: semel.Fenced,
		Version: semel.Version{Epoch: 3, Counter: 9}, Nonce: semel.Nonce{7}, Attempt: 2, Code: 201, Result: []byte("receipt"),
		WrittenAt: time.Unix(1_800_000_000, 5), TTL: 72 * time.Hour, Replay: 24 * time.Hour, Key: key, Owner: "host:1",
	}
}

func TestEntryKeepsEveryField(t *testing.T) {
	empty := fullRecord()
	empty.Result = []byte{}
	none := fullRecord()
	none.Result, none.Replay, none.Key, none.Owner, none.WrittenAt = nil, 0, semel.Key{}, "", time.Time{}
	for _, want := range []semel.Record{fullRecord(), empty, none} {
		e := want.Entry()
		b := e.AppendTo([]byte("before"))[len("before"):]
		parsed, err := semel.ParseEntry(want.Digest, b)
		if err != nil {
			t.Fatal(err)
		}
		got, err := parsed.Restore(want.Result)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("got  %+v, %v\nwant %+v", got, err, want)
		}
	}
}

// Each bit of the bytes, each length of them, another digest and another result
// are damage.
func TestEntryNoticesDamage(t *testing.T) {
	want := fullRecord()
	e := want.Entry()
	b := e.AppendTo(nil)
	refuse := func(what string, digest semel.Digest, b, result []byte) {
		t.Helper()
		e, err := semel.ParseEntry(digest, b)
		if err == nil {
			_, err = e.Restore(result)
		}
		if !errors.Is(err, semel.ErrDamaged) {
			t.Errorf("%s: got %v, want ErrDamaged", what, err)
		}
	}
	for i := range len(b) * 8 {
		changed := bytes.Clone(b)
		changed[i/8] ^= 1 << (i % 8)
		refuse("a flipped bit", want.Digest, changed, want.Result)
	}
	for n := range len(b) {
		refuse("cut short", want.Digest, b[:n], want.Result)
	}
	refuse("longer", want.Digest, append(bytes.Clone(b), 0), want.Result)
	refuse("another key's", semel.Digest{}, b, want.Result)
	refuse("no result", want.Digest, b, nil)
	refuse("another result", want.Digest, b, []byte("Receipt"))
	want.Result = nil
	e = want.Entry()
	refuse("a result too many", want.Digest, e.AppendTo(nil), []byte{})
}

func FuzzParseEntry(f *testing.F) {
	r := fullRecord()
	e := r.Entry()
	f.Add(e.AppendTo(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := semel.ParseEntry(r.Digest, b)
		if err == nil && !bytes.Equal(e.AppendTo(nil), b) {
			t.Errorf("%x parses and is written as %x", b, e.AppendTo(nil))
		}
	})
}

// A store's keys are digests under the deployment's secret: with another one
// every key would be new, and a retry would run again.
func TestAnotherSecretIsRefused(t *testing.T) {
	store := memory.New(memory.Options{})
	open := func(secret string) error {
		_, err := semel.NewGuard(store, semel.Options{Secret: []byte(secret), Owner: "first:1"})
		return err
	}
	for range 2 {
		if err := open("one secret"); err != nil {
			t.Fatal(err)
		}
	}
	for _, other := range []string{"another", ""} {
		if err := open(other); err == nil || !strings.Contains(err.Error(), "another deployment secret (first by first:1)") {
			t.Errorf("with secret %q: %v", other, err)
		}
	}
	if n, err := store.Sweep(context.Background(), 100); err != nil || n != 4 {
		t.Errorf("swept %d, %v: the self-tests' keys and nothing else", n, err)
	}
	if err := open("another"); err == nil {
		t.Error("the mark of the secret was swept")
	}
}
