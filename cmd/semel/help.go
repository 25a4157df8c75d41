package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// helpTemplate begins with what the verb is for.
const helpTemplate = `{{with (or .Long .Short)}}{{. | trimTrailingWhitespaces}}

{{end}}Usage:
  {{if .HasAvailableSubCommands}}{{.CommandPath}} VERB [flags]{{else}}{{.UseLine}}{{end}}
{{if .HasExample}}
Examples:
{{.Example}}
{{end}}{{if .HasAvailableSubCommands}}
Verbs:{{range .Commands}}{{if .IsAvailableCommand}}
  {{rpad .Name .NamePadding}}  {{.Short}}{{end}}{{end}}

` + "`{{.CommandPath}} VERB --help`" + ` tells more about each.
{{else}}{{settings .}}{{end}}`

const (
	// groupKey marks a flag with the heading under which help shows it.
	groupKey = "group"
	// valueKey marks a flag with the word that stands for its value.
	valueKey = "value"
	// footerKey marks a command with what stands below its flags.
	footerKey = "footer"
)

// settingsUsage gives the flags under their headings, none wider than 80 columns
// if it can be helped.
func settingsUsage(c *cobra.Command) string {
	var order []string
	groups := make(map[string][]*pflag.Flag)
	c.Flags().SortFlags = false
	c.Flags().VisitAll(func(f *pflag.Flag) {
		if f.Hidden {
			return
		}
		group := "Flags"
		if marks := f.Annotations[groupKey]; len(marks) > 0 {
			group = marks[0]
		}
		if groups[group] == nil {
			order = append(order, group)
		}
		groups[group] = append(groups[group], f)
	})
	var b strings.Builder
	for _, group := range order {
		fmt.Fprintf(&b, "\n%s:\n", group)
		for _, f := range groups[group] {
			writeFlag(&b, f)
		}
	}
	b.WriteString(c.Annotations[footerKey])
	return b.String()
}

const (
	flagColumn = 25
	helpWidth  = 80
)

func writeFlag(b *strings.Builder, f *pflag.Flag) {
	value, text := pflag.UnquoteUsage(f)
	if marks := f.Annotations[valueKey]; len(marks) > 0 {
		value, text = marks[0], f.Usage
	}
	head := "  --" + f.Name
	if f.Shorthand != "" {
		head = "  -" + f.Shorthand + ", --" + f.Name
	}
	if value != "" && f.Value.Type() != "bool" {
		head += " " + value
	}
	if f.DefValue != "" && f.DefValue != "false" && f.DefValue != "[]" && f.DefValue != "0" {
		text += " [" + f.DefValue + "]"
	}
	if len(head) > flagColumn-1 {
		fmt.Fprintf(b, "%s\n", head)
		head = ""
	}
	for _, line := range wrap(text, helpWidth-flagColumn-1) {
		fmt.Fprintf(b, "%-*s %s\n", flagColumn, head, line)
		head = ""
	}
}

// wrap breaks text into lines of at most width columns, at spaces.
func wrap(text string, width int) []string {
	var lines []string
	line := ""
	for word := range strings.FieldsSeq(text) {
		if line != "" && len(line)+1+len(word) > width {
			lines = append(lines, line)
			line = ""
		}
		if line != "" {
			line += " "
		}
		line += word
	}
	return append(lines, line)
}
