//go:build unix

package server

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
)

// put and get go through etcd's gateway from JSON to gRPC.
func (e *Etcd) put(key, value string) error {
	_, err := e.post("/v3/kv/put", fmt.Sprintf(`{"key":%q,"value":%q}`, in64(key), in64(value)))
	return err
}

func (e *Etcd) get(key string) (string, error) {
	text, err := e.post("/v3/kv/range", fmt.Sprintf(`{"key":%q}`, in64(key)))
	if err != nil {
		return "", err
	}
	var answer struct{ Kvs []struct{ Value []byte } }
	if err := json.Unmarshal([]byte(text), &answer); err != nil || len(answer.Kvs) != 1 {
		return "", fmt.Errorf("%s: %w", text, err)
	}
	return string(answer.Kvs[0].Value), nil
}

func in64(text string) string { return base64.StdEncoding.EncodeToString([]byte(text)) }
