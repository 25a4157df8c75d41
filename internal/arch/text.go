package arch

import (
	"bytes"
	"regexp"
)

// checkMachineWords checks that no file names a path or a tool of the machine that it was written on: it means nothing to
// whoever reads it elsewhere, and a command that uses it does not run there.
func checkMachineWords(t *tree) (found []Violation) {
	// Written with classes, so that this file does not match itself.
	machine := regexp.MustCompile(`[/]work[/]|[/]root[/]|\bbash_job[s]\b|\bfarm[-][a-z]`)
	for _, x := range t.texts {
		for _, at := range machine.FindAllIndex(x.data, -1) {
			found = append(found, Violation{
				x.path, bytes.Count(x.data[:at[0]], []byte("\n")) + 1, "machine",
				"\"" + string(x.data[at[0]:at[1]]) + "\" is of one machine: use a relative path, or a name that everybody has",
			})
		}
	}
	return found
}
