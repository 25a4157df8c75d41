package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/semelhq/semel"
	"github.com/semelhq/semel/cmd/internal/config"
	"github.com/semelhq/semel/cmd/internal/openapi"
	"github.com/semelhq/semel/gateway"
	"github.com/semelhq/semel/semelhttp"
	"github.com/semelhq/semel/store/memory"
)

type policyShowOptions struct {
	method, path string
	openapi      bool
	merge        string
	json         bool
}

func policyShowCommand() *cobra.Command {
	var o policyShowOptions
	c := &cobra.Command{
		Use:   "show [FILE] [flags]",
		Short: "print what a gateway tells its clients, for their documentation",
		Long: `Print how a gateway treats requests: what its clients can fetch from
/.well-known/semel/policy, without a gateway running. FILE is the gateway's;
without one the SEMEL_* variables and the defaults count.

With --openapi it comes as x-idempotency, the extension of an OpenAPI operation;
--merge puts it into each guarded operation of an OpenAPI 3 file, whose other
bytes stay as they are, and prints that.`,
		Example: `  semel policy show semel.yaml
  semel policy show semel.yaml --method POST --path /v1/charges --json
  semel policy show semel.yaml --merge openapi.yaml > with-policies.yaml`,
		Args: checked(cobra.MaximumNArgs(1)),
		RunE: func(c *cobra.Command, args []string) error { return o.run(c, append(args, "")[0]) },
	}
	c.DisableFlagsInUseLine = true
	flags := c.Flags()
	flags.StringVar(&o.method, "method", "", "only the policy of a request with this `METHOD`, with --path")
	flags.StringVar(&o.path, "path", "", "only the policy of a request with this `PATH`, with --method")
	flags.BoolVar(&o.openapi, "openapi", false, "print x-idempotency objects, to paste into operations")
	flags.StringVar(&o.merge, "merge", "", "print the OpenAPI `FILE` with them")
	flags.BoolVar(&o.json, "json", false, "print JSON")
	flags.BoolP("help", "h", false, "show this")
	return c
}

func (o *policyShowOptions) run(c *cobra.Command, file string) error {
	switch {
	case (o.method == "") != (o.path == ""):
		return usageError{errors.New("--method and --path tell one request together; give both, or neither for all routes")}
	case o.merge != "" && (o.openapi || o.json || o.path != ""):
		return usageError{errors.New("--merge prints an OpenAPI file, with what is in it; leave out --openapi, --json, --method and --path")}
	}
	g, err := composed(file)
	if err != nil {
		return usageError{err}
	}
	out := c.OutOrStdout()
	if o.merge != "" {
		return o.mergeInto(c, g)
	}
	shown := g.Policies()
	if o.path != "" {
		i := g.Policy(strings.ToUpper(o.method), o.path)
		if i < 0 {
			return fmt.Errorf("such a request is not guarded: %s %s passes as it is", strings.ToUpper(printable(o.method)), printable(o.path))
		}
		shown = shown[i : i+1]
	}
	if o.json {
		return json.NewEncoder(out).Encode(o.asJSON(shown))
	}
	for _, p := range shown {
		text := policyText(p)
		if o.openapi {
			if text, err = openapi.Block(extension(p)); err != nil {
				return err
			}
			text = "# " + p.Name + "\n" + text
		}
		if _, err := io.WriteString(out, text); err != nil {
			return err
		}
	}
	return nil
}

// asJSON gives what the endpoint would, or the extensions by the matches.
func (o *policyShowOptions) asJSON(shown []semelhttp.PolicyDocument) any {
	switch {
	case o.openapi:
		byMatch := make(map[string]any)
		for _, p := range shown {
			byMatch[p.Name] = map[string]any{openapi.Name: extension(p)}
		}
		return byMatch
	case o.path != "":
		return shown[0]
	}
	return map[string]any{"policies": shown}
}

func (o *policyShowOptions) mergeInto(c *cobra.Command, g *gateway.Gateway) error {
	file, err := os.ReadFile(o.merge)
	if err != nil {
		return fmt.Errorf("cannot read the OpenAPI file: %w", err)
	}
	all := g.Policies()
	merged, n, err := openapi.Merge(file, func(method, path string) any {
		if i := g.Policy(method, path); i >= 0 {
			return extension(all[i])
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("%s: %w", printable(o.merge), err)
	}
	if n == 0 {
		fmt.Fprintf(c.ErrOrStderr(), "semel: none of the operations in %s is guarded: do its paths, with that of its first server, match the routes?\n", printable(o.merge))
	}
	_, err = c.OutOrStdout().Write(merged)
	return err
}

// extension gives a policy as an operation has it: of which route it comes is not
// the operation's.
func extension(p semelhttp.PolicyDocument) semelhttp.PolicyDocument {
	p.Name, p.Methods = "", nil
	return p
}

// composed gives the gateway of a file's settings, which serves nothing.
func composed(file string) (*gateway.Gateway, error) {
	s, err := config.Load(config.Sources{File: file})
	if err != nil {
		return nil, err
	}
	if s.Upstream == "" {
		s.Upstream = "http://127.0.0.1:3000" // nothing is asked of it
	}
	c, err := s.Gateway()
	if err != nil {
		return nil, err
	}
	if c.Guard, err = semel.NewGuard(memory.New(memory.Options{}), semel.Options{}); err != nil {
		return nil, err
	}
	return gateway.New(c)
}

// policyText gives a policy to people.
func policyText(p semelhttp.PolicyDocument) string {
	var b strings.Builder
	line := func(name, format string, args ...any) {
		for _, text := range wrap(fmt.Sprintf(format, args...), columns-15) {
			fmt.Fprintf(&b, "  %-11s  %s\n", name, text)
			name = ""
		}
	}
	seconds := func(n int64) string { return config.FormatDuration(time.Duration(n) * time.Second) }
	fmt.Fprintf(&b, "%s\n", p.Name)
	line("guarded", "%s", strings.Join(p.Methods, ", "))
	line("class", "%s", p.Class)
	without := map[string]string{"refused": "; a request without one is refused", "derived": "; without one, the content is the key", "unguarded": "; without one a request passes unguarded"}
	line("key", "%s, up to %d characters%s", p.Key.Header, p.Key.MaxLength, without[p.Key.Without])
	counts := append([]string{"method", "path", "query", "body (" + p.Fingerprint.Body + ")"}, p.Fingerprint.Headers...)
	line("fingerprint", "%s", strings.Join(counts, ", "))
	line("answers", "can be had again for %s; the key is remembered for %s", seconds(p.Retention.Replay), seconds(p.Retention.Remember))
	if p.Wait > 0 {
		line("duplicates", "wait %s for the first one's answer", config.FormatDuration(time.Duration(p.Wait*float64(time.Second))))
	} else {
		line("duplicates", "are told at once that the first one is in progress")
	}
	settled := map[string]string{
		"operator": "settled by a person", "resolver": "settled by asking the service", "next-request": "the next request runs it again", "never": "there is none",
	}
	line("in doubt", "%s", settled[p.InDoubt])
	if p.Quota {
		line("quota", "new keys are counted; more get 429")
	}
	return b.String() + "\n"
}
