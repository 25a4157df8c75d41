package semelgrpc

import "google.golang.org/genproto/googleapis/rpc/errdetails"

// InfoForTest is what another server of Semel says in its refusals.
func InfoForTest(r Reason) *errdetails.ErrorInfo {
	return &errdetails.ErrorInfo{Reason: string(r), Domain: Domain}
}

// ReencodeForTest decodes a stored answer and encodes it again; false if it cannot
// be decoded.
func ReencodeForTest(b []byte) ([]byte, bool) {
	s, err := decode(b)
	if err != nil {
		return nil, false
	}
	return s.encode(), true
}
