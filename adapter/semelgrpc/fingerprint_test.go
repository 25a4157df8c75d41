package semelgrpc_test

import (
	"bytes"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/semelhq/semel/adapter/semelgrpc"
)

// order builds the type Order with the given fields known: 1 text id, 2 amount,
// 3 text note, 4 Order inner, 5 repeated numbers.
func order(t *testing.T, known ...int32) protoreflect.MessageDescriptor {
	t.Helper()
	text, number, message := descriptorpb.FieldDescriptorProto_TYPE_STRING, descriptorpb.FieldDescriptorProto_TYPE_INT64, descriptorpb.FieldDescriptorProto_TYPE_MESSAGE
	one, many := descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL, descriptorpb.FieldDescriptorProto_LABEL_REPEATED
	all := map[int32]*descriptorpb.FieldDescriptorProto{
		1: {Name: proto.String("id"), Type: &text, Label: &one},
		2: {Name: proto.String("amount"), Type: &number, Label: &one},
		3: {Name: proto.String("note"), Type: &text, Label: &one},
		4: {Name: proto.String("inner"), Type: &message, TypeName: proto.String(".bank.Order"), Label: &one},
		5: {Name: proto.String("parts"), Type: &number, Label: &many},
	}
	d := &descriptorpb.DescriptorProto{Name: proto.String("Order")}
	for _, n := range known {
		f := proto.Clone(all[n]).(*descriptorpb.FieldDescriptorProto)
		f.Number = proto.Int32(n)
		d.Field = append(d.Field, f)
	}
	file, err := protodesc.NewFile(&descriptorpb.FileDescriptorProto{
		Name: proto.String("order.proto"), Package: proto.String("bank"), Syntax: proto.String("proto3"), MessageType: []*descriptorpb.DescriptorProto{d},
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return file.Messages().Get(0)
}

func appendText(b []byte, number protowire.Number, s string) []byte {
	return protowire.AppendString(protowire.AppendTag(b, number, protowire.BytesType), s)
}

func appendAmount(b []byte, number protowire.Number, v uint64) []byte {
	return protowire.AppendVarint(protowire.AppendTag(b, number, protowire.VarintType), v)
}

func canonical(t *testing.T, d protoreflect.MessageDescriptor, wire []byte) []byte {
	t.Helper()
	m := dynamicpb.NewMessage(d)
	if err := proto.Unmarshal(wire, m); err != nil {
		t.Fatal(err)
	}
	b, err := semelgrpc.CanonicalMessage(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestFingerprintOutlivesADeployment: a server that has learnt a field since, and one
// that has not, take a request for the same.
func TestFingerprintOutlivesADeployment(t *testing.T) {
	inner := appendAmount(appendText(nil, 3, "gift"), 2, 5)
	wire := appendText(appendAmount(appendText(nil, 3, "note"), 2, 100), 1, "order-42")
	wire = protowire.AppendBytes(protowire.AppendTag(wire, 4, protowire.BytesType), inner)
	forward := appendText(appendAmount(appendText(nil, 1, "order-42"), 2, 100), 3, "note")
	forward = protowire.AppendBytes(protowire.AppendTag(forward, 4, protowire.BytesType), appendAmount(nil, 2, 5))
	whole := canonical(t, order(t, 1, 2, 3, 4, 5), wire)
	for name, known := range map[string][]int32{"without 2": {1, 3, 4, 5}, "without 3": {1, 2, 4}, "without 1": {2, 3, 4}, "in another order": {4, 3, 2, 1}} {
		if got := canonical(t, order(t, known...), wire); !bytes.Equal(got, whole) {
			t.Errorf("%s:\n%x, want\n%x", name, got, whole)
		}
	}
	if got := canonical(t, order(t, 1, 2, 3, 4), forward); bytes.Equal(got, whole) {
		t.Error("an inner field less makes no difference")
	}
	for name, other := range map[string][]byte{
		"another unknown value": appendAmount(appendText(nil, 1, "order-42"), 9, 2),
		"no unknown field":      appendText(nil, 1, "order-42"),
		"repeated, reordered":   appendAmount(appendAmount(appendText(nil, 1, "order-42"), 9, 2), 9, 1),
	} {
		if bytes.Equal(canonical(t, order(t, 1), other), canonical(t, order(t, 1), appendAmount(appendAmount(appendText(nil, 1, "order-42"), 9, 1), 9, 2))) {
			t.Errorf("%s makes no difference", name)
		}
	}
}

func TestFingerprintOfMapsIsStable(t *testing.T) {
	entries := map[string]any{}
	for _, name := range []string{"z", "a", "m", "b", "k", "c"} {
		entries[name] = map[string]any{"x": 1, "y": name}
	}
	var first []byte
	for range 50 {
		m, err := structpb.NewStruct(entries)
		if err != nil {
			t.Fatal(err)
		}
		b, err := semelgrpc.CanonicalMessage(m)
		if err != nil {
			t.Fatal(err)
		}
		if first == nil {
			first = b
		}
		if !bytes.Equal(b, first) {
			t.Fatal("equal maps, other bytes")
		}
		if again := new(structpb.Struct); proto.Unmarshal(b, again) != nil || !proto.Equal(again, m) {
			t.Fatal("the bytes are another message")
		}
	}
}
