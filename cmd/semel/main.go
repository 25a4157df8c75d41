// Command semel puts an idempotency gateway in front of an HTTP service, and
// looks into what it remembers.
//
// One file per verb. Exit codes: 0 done, 1 a check found something or the work
// failed, 2 the command line or the configuration is wrong. The command prints
// what was asked for to standard output and everything else to standard error.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

func main() {
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

const (
	exitFailed = 1
	exitUsage  = 2
)

// usageError is a mistake of whoever wrote the command line.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// errTold ends the command with exit code 1 when everything has been said.
var errTold = errors.New("")

// run is main without the process. It gives the exit code.
func run(args []string, stdout, stderr io.Writer) int {
	root := rootCommand()
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	command, err := root.ExecuteC()
	var usage usageError
	switch {
	case err == nil:
		return 0
	case errors.Is(err, errTold):
		return exitFailed
	case errors.As(err, &usage):
		fmt.Fprintf(stderr, "semel: %v\n", err)
		fmt.Fprintf(stderr, "`%s --help` shows how it is used.\n", command.CommandPath())
		return exitUsage
	}
	fmt.Fprintf(stderr, "semel: %v\n", err)
	return exitFailed
}

func rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "semel",
		Short: "let a request arrive many times and take effect once",
		Long: `Semel (Latin: once) makes retries safe. Clients send an Idempotency-Key with a
request; however often it arrives, it runs once, and every repetition gets the
first one's answer. Where nobody can know whether it ran, Semel says so.`,
		Example: `  semel demo                                       see it work, in half a minute
  semel gateway --upstream http://127.0.0.1:3000   put it in front of a service
  semel list --state in-doubt                      what needs a person to look at`,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.ArbitraryArgs,
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) > 0 {
				return unknownVerb(c, args[0])
			}
			return c.Help()
		},
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	root.SuggestionsMinimumDistance = 2
	root.CompletionOptions.HiddenDefaultCmd = true
	root.SetHelpCommand(&cobra.Command{Use: "help", Hidden: true, Short: "show help", RunE: func(c *cobra.Command, args []string) error {
		if named, rest, err := c.Root().Find(args); err == nil && len(rest) == 0 {
			return named.Help()
		}
		return usageError{fmt.Errorf("there is no help on %q", args)}
	}})
	root.SetHelpTemplate(helpTemplate)
	cobra.AddTemplateFunc("settings", settingsUsage)
	root.AddCommand(demoCommand(), gatewayCommand(), getCommand(), listCommand(), migrateCommand(), policyCommand(), resolveCommand(), shareCommand(), simCommand(), sweepCommand(), versionCommand())
	return root
}

func unknownVerb(c *cobra.Command, name string) error {
	err := fmt.Errorf("there is no verb %s", quote(name))
	if near := c.SuggestionsFor(name); len(near) > 0 {
		err = fmt.Errorf("%w; did you mean %s?", err, near[0])
	}
	return usageError{err}
}

// checked wraps cobra's checks of arguments: a mistake there is one of usage.
func checked(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if err := check(c, args); err != nil {
			return usageError{err}
		}
		return nil
	}
}

// version is what is known about this binary.
type version struct {
	Version  string `json:"version"`
	Revision string `json:"revision,omitempty"`
	Modified bool   `json:"modified,omitempty"`
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

func versionCommand() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "version [--json]",
		Short: "tell which version this is",
		Long:  "Tell which version this is, and what it was built from.",
		Args:  checked(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			v := readVersion()
			if asJSON {
				return json.NewEncoder(c.OutOrStdout()).Encode(v)
			}
			from := ""
			if v.Revision != "" {
				from = ", revision " + v.Revision[:min(12, len(v.Revision))]
			}
			if v.Modified {
				from += " with changes"
			}
			_, err := fmt.Fprintf(c.OutOrStdout(), "semel %s (%s, %s%s)\n", v.Version, v.Go, v.Platform, from)
			return err
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print one JSON object")
	c.DisableFlagsInUseLine = true
	return c
}

func readVersion() version {
	v := version{Version: "development", Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return v
	}
	if info.Main.Version != "" && info.Main.Version != "(devel)" {
		v.Version = info.Main.Version
	}
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			v.Revision = s.Value
		case "vcs.modified":
			v.Modified = s.Value == "true"
		}
	}
	return v
}
