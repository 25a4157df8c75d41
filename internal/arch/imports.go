package arch

import (
	"fmt"
	"path"
	"strconv"
	"strings"
)

// modulePath is the path of the root module; the other modules lie beneath it, as their directories do.
const modulePath = "github.com/semelhq/semel"

// A level says how far a package is from the root package. What it may import follows from it.
type level int

const (
	unknown  level = iota // a directory that the layout does not have
	root                  // package semel
	internal              // internal/ of the root module
	one                   // store/*, semelhttp, resolve, message, lifecycle, region, audit
	two                   // gateway, console, sim, conformance
	adapter               // other people's code begins here
	command               // cmd: run, never imported
	apart                 // bench and tools: imported by nobody
)

// A place is where a directory stands. Packages of one room may always import each other.
type place struct {
	level level
	room  string
}

// placeOf returns the place of a directory, "." being the root of the repository.
func placeOf(dir string) place {
	first, rest, _ := strings.Cut(dir, "/")
	second, _, _ := strings.Cut(rest, "/")
	switch first {
	case ".":
		return place{root, "."}
	case "internal":
		return place{internal, first}
	case "semelhttp", "resolve", "message", "lifecycle", "region", "audit":
		return place{one, first}
	case "store":
		if second != "" {
			return place{one, path.Join(first, second)}
		}
	case "gateway", "console", "sim", "conformance":
		return place{two, first}
	case "adapter":
		if second != "" {
			return place{adapter, path.Join(first, second)}
		}
	case "cmd":
		return place{command, first}
	case "bench", "tools":
		return place{apart, first}
	}
	return place{unknown, dir}
}

// allows tells whether a package at p may import one at q, both of this repository. A test may use its neighbours, too:
// the memory store and the suites are there for that.
func (p place) allows(q place, test bool) bool {
	if p.room == q.room {
		return true
	}
	switch p.level {
	case root:
		return test && q.level <= one && q.level != unknown
	case internal:
		return q.level == root
	case one:
		return q.level == root || q.level == internal || test && q.level == one ||
			p.room == "region" && q.room == "store/remote"
	case two:
		return q.level == root || q.level == internal || q.level == one || test && q.level == two
	case adapter:
		return q.level == root || q.level == one || q.room == "adapter/internal" ||
			test && (q.level == adapter || q.level == internal)
	case command:
		return q.level != apart && q.level != unknown
	case apart:
		return q.level != apart && q.level != command && q.level != unknown
	}
	return false
}

// rule says in words what allows computes, for messages.
func (p place) rule() string {
	switch p.level {
	case root:
		return "the root package imports the standard library only (its tests also internal/ and level 1)"
	case internal:
		return "internal/ imports the standard library, the root package and internal/"
	case one:
		return "level 1 imports the standard library, the root package and internal/, not its neighbours" +
			" (its tests may; region may use store/remote); what two rooms share belongs into the root or internal/"
	case two:
		return "gateway, console, sim and conformance compose the root package, internal/ and level 1, not each other"
	case adapter:
		return "an adapter imports the root package, level 1, adapter/internal and third parties" +
			" (its tests also internal/; not in production code, since the modules are versioned apart)"
	case command:
		return "cmd imports everything but bench and tools"
	case apart:
		return "bench and tools import everything but cmd and each other"
	}
	return "this directory has no place in the layout; give it a level in internal/arch/imports.go, and say why in docs/design"
}

// thirdParty tells whether packages at p may import code that is neither ours nor the standard library's.
func (p place) thirdParty() bool {
	return p.level == adapter || p.level == command || p.level == apart
}

// checkImports checks every import of every file against the levels.
func checkImports(t *tree) (found []Violation) {
	for _, f := range t.files {
		from := placeOf(f.dir)
		if from.level == unknown {
			found = append(found, Violation{f.path, 0, "imports", from.rule()})
			continue
		}
		for _, spec := range f.ast.Imports {
			target, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				continue // the parser has refused it
			}
			ok := true
			if dir, ours := ourDir(target); ours {
				ok = from.allows(placeOf(dir), f.test)
			} else if host, _, _ := strings.Cut(target, "/"); strings.Contains(host, ".") || target == "C" {
				ok = from.thirdParty()
			}
			if !ok {
				found = append(found, Violation{
					f.path, t.line(spec.Pos()), "imports",
					fmt.Sprintf("must not import %q: %s", target, from.rule()),
				})
			}
		}
	}
	return found
}

// ourDir returns the directory of an import path of ours.
func ourDir(target string) (dir string, ours bool) {
	if target == modulePath {
		return ".", true
	}
	return strings.CutPrefix(target, modulePath+"/")
}

// checkModules checks each go.mod: its place, its path, and that the root module requires nothing.
func checkModules(t *tree) (found []Violation) {
	for _, x := range t.texts {
		dir := path.Dir(x.path)
		if path.Base(x.path) != "go.mod" {
			continue
		}
		want := modulePath
		switch dir {
		case ".":
		case "adapter", "cmd", "bench", "tools":
			want = path.Join(modulePath, dir)
		default:
			found = append(found, Violation{x.path, 0, "module", "there are five modules: ., adapter, cmd, bench, tools"})
			continue
		}
		for n, line := range strings.Split(string(x.data), "\n") {
			verb, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
			switch {
			case verb == "module" && rest != want:
				found = append(found, Violation{x.path, n + 1, "module", "must be named " + want + ", as its directory says"})
			case dir == "." && (verb == "require" || verb == "replace" || verb == "tool"):
				found = append(found, Violation{
					x.path, n + 1, "module",
					"the root module requires nothing; what needs others' code belongs into adapter or cmd",
				})
			}
		}
	}
	return found
}
