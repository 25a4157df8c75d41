package semelgrpc

import "google.golang.org/genproto/googleapis/rpc/errdetails"

// InfoForTest is what another server of Semel says in its refusals.
func InfoForTest(r Reason) *errdetails.ErrorInfo {
	return &errdetails.ErrorInfo{Reason: string(r), Domain: Domain}
}
