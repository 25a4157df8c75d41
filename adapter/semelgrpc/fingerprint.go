package semelgrpc

import (
	"context"
	"encoding/binary"
	"slices"

	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/semelhq/semel"
)

// CanonicalMessage gives the bytes of a message that are fingerprinted: its
// encoding with the entries of maps sorted by key and the fields of each message
// by number. So it does not matter in which order a client writes fields, and
// whether this program knows a field or keeps it as unknown.
//
// What it cannot see: the order of fields inside an unknown message and inside a
// google.protobuf.Any, whose bytes count as they came; and whether an unknown
// number is written in its shortest form. Equal messages from clients that differ
// in these are told apart, which refuses a retry and runs nothing.
func CanonicalMessage(m proto.Message) ([]byte, error) {
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		return nil, err
	}
	return sortFields(b, m.ProtoReflect().Descriptor()), nil
}

// wireField is one field as it is encoded, tag included.
type wireField struct {
	number protowire.Number
	raw    []byte
}

// sortFields sorts the fields of an encoded message by number, in depth as far as
// the descriptor reaches. Fields of one number keep their order.
func sortFields(b []byte, d protoreflect.MessageDescriptor) []byte {
	var fields []wireField
	for rest := b; len(rest) > 0; {
		number, kind, tag := protowire.ConsumeTag(rest)
		if tag < 0 {
			return b // cannot be: it was encoded just now
		}
		value := protowire.ConsumeFieldValue(number, kind, rest[tag:])
		if value < 0 {
			return b
		}
		raw := rest[:tag+value]
		rest = rest[tag+value:]
		if fd := d.Fields().ByNumber(number); fd != nil && fd.Message() != nil && kind == protowire.BytesType {
			inner, _ := protowire.ConsumeBytes(raw[tag:])
			raw = protowire.AppendBytes(slices.Clone(raw[:tag]), sortFields(inner, fd.Message()))
		}
		fields = append(fields, wireField{number, raw})
	}
	slices.SortStableFunc(fields, func(a, b wireField) int { return int(a.number) - int(b.number) })
	sorted := make([]byte, 0, len(b))
	for _, f := range fields {
		sorted = append(sorted, f.raw...)
	}
	return sorted
}

// fingerprint covers the method, the chosen metadata, and what counts of the
// request.
func (m *Method) fingerprint(ctx context.Context, name string, req proto.Message) (semel.Fingerprint, error) {
	canonical := m.Canonical
	if canonical == nil {
		canonical = func(_ context.Context, req proto.Message) ([]byte, error) { return CanonicalMessage(req) }
	}
	content, err := canonical(ctx, req)
	if err != nil {
		return semel.Fingerprint{}, err
	}
	parts := [][]byte{[]byte(name)}
	for _, key := range m.FingerprintMetadata {
		values := metadata.ValueFromIncomingContext(ctx, key)
		parts = append(parts, []byte(key), binary.BigEndian.AppendUint64(nil, uint64(len(values))))
		for _, v := range values {
			parts = append(parts, []byte(v))
		}
	}
	return semel.FingerprintOf(append(parts, content)...), nil
}
