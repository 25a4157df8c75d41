package semelgrpc

import (
	"encoding/binary"
	"errors"
	"slices"

	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"
)

// stored is an answer as it is kept: what a replay sends again.
type stored struct {
	code            codes.Code
	header, trailer metadata.MD
	// body is the encoded response, or for another code than OK the encoded status.
	body []byte
}

// resultFormat is the first byte of an encoded answer. semelhttp's begins with 1.
const resultFormat = 2

// errResult: an encoded answer cannot be read.
var errResult = errors.New("semelgrpc: the stored answer cannot be decoded")

// encode gives the answer as bytes: format, code, header, trailer, body. Names are
// sorted, so equal answers are equal bytes.
func (s *stored) encode() []byte {
	b := make([]byte, 0, 16+len(s.body))
	b = append(b, resultFormat)
	b = binary.AppendUvarint(b, uint64(s.code))
	b = appendMetadata(b, s.header)
	b = appendMetadata(b, s.trailer)
	return append(b, s.body...)
}

func appendMetadata(b []byte, md metadata.MD) []byte {
	names := make([]string, 0, len(md))
	lines := 0
	for name, values := range md {
		names = append(names, name)
		lines += len(values)
	}
	slices.Sort(names)
	b = binary.AppendUvarint(b, uint64(lines))
	for _, name := range names {
		for _, v := range md[name] {
			b = binary.AppendUvarint(b, uint64(len(name)))
			b = append(b, name...)
			b = binary.AppendUvarint(b, uint64(len(v)))
			b = append(b, v...)
		}
	}
	return b
}

// decode reads what encode wrote. The body is a part of b.
func decode(b []byte) (stored, error) {
	if len(b) == 0 || b[0] != resultFormat {
		return stored{}, errResult
	}
	d := decoder{rest: b[1:]}
	s := stored{code: codes.Code(d.number(1 << 31))}
	s.header = d.metadata()
	s.trailer = d.metadata()
	s.body = d.rest
	if d.bad {
		return stored{}, errResult
	}
	return s, nil
}

type decoder struct {
	rest []byte
	bad  bool
}

func (d *decoder) number(most uint64) uint64 {
	n, size := binary.Uvarint(d.rest)
	if size <= 0 || n > most {
		d.bad, d.rest = true, nil
		return 0
	}
	d.rest = d.rest[size:]
	return n
}

func (d *decoder) text() string {
	n := d.number(uint64(len(d.rest)))
	if n > uint64(len(d.rest)) {
		d.bad, d.rest = true, nil
		return ""
	}
	s := string(d.rest[:n])
	d.rest = d.rest[n:]
	return s
}

func (d *decoder) metadata() metadata.MD {
	n := d.number(uint64(len(d.rest)))
	md := metadata.MD{}
	for range n {
		name, value := d.text(), d.text()
		if d.bad {
			return nil
		}
		md[name] = append(md[name], value)
	}
	return md
}

// answer gives what the interceptor returns for s.
func (s *stored) answer() (any, error) {
	if s.code == codes.OK {
		return opaque(s.body), nil
	}
	st := new(spb.Status)
	if err := proto.Unmarshal(s.body, st); err != nil || codes.Code(st.GetCode()) != s.code {
		return nil, errResult
	}
	return nil, status.ErrorProto(st)
}

// opaque gives a message that is encoded as exactly these bytes. A response that
// was decoded and encoded anew would not be the same bytes: maps are written in
// another order each time, and a later build of the server may write otherwise
// (INVARIANTS S7). It needs no type of the response either.
func opaque(encoded []byte) proto.Message {
	m := new(emptypb.Empty)
	m.ProtoReflect().SetUnknown(encoded)
	return m
}
