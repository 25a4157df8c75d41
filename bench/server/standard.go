package main

import (
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/semelhttp"
)

// handler serves p by net/http, without a router.
func (p *payments) handler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet {
			fmt.Fprintln(w, p.runs.Load())
			return
		}
		body, err := io.ReadAll(r.Body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		var out []byte
		switch r.URL.Path {
		case "/fixed":
			out = p.fixed()
		case "/slow":
			time.Sleep(slowness)
			fallthrough
		default:
			if out, err = p.pay(body); err != nil {
				http.Error(w, err.Error(), http.StatusBadRequest)
				return
			}
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusCreated)
		_, _ = w.Write(out)
	})
}

func serveBare(address string) error {
	return http.ListenAndServe(address, new(payments).handler())
}

func serveSemel(address, url string) error {
	store, err := openStore(url)
	if err != nil {
		return err
	}
	guard, err := semel.NewGuard(store, semel.Options{})
	if err != nil {
		return err
	}
	h, err := semelhttp.NewHandler(guard, new(payments).handler(), semelhttp.Options{Scope: semelhttp.HeaderScope("Authorization")})
	if err != nil {
		return err
	}
	return http.ListenAndServe(address, h)
}
