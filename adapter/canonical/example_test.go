package canonical_test

import (
	"fmt"
	"net/http/httptest"

	"github.com/semelhq/semel/adapter/canonical"
)

func ExampleJSON() {
	fingerprint, err := canonical.JSON(canonical.Options{Exclude: []string{"/client/sentAt"}})
	if err != nil {
		fmt.Println(err)
		return
	}
	r := httptest.NewRequest("POST", "/charges", nil) // for its headers
	for _, body := range []string{
		`{"amount": 100.00, "to": "Zo\u00eb", "client": {"name": "app", "sentAt": 1}}`,
		`{"to":"Zoë","amount":1e2,"client":{"sentAt":2,"name":"app"}}`,
		`{"to":"Zoë","amount":101,"client":{"sentAt":2,"name":"app"}}`,
	} {
		out, err := fingerprint(r, []byte(body))
		fmt.Println(string(out), err)
	}
	// Output:
	// {"amount":100,"client":{"name":"app"},"to":"Zoë"} <nil>
	// {"amount":100,"client":{"name":"app"},"to":"Zoë"} <nil>
	// {"amount":101,"client":{"name":"app"},"to":"Zoë"} <nil>
}
