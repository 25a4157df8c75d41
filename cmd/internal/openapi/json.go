package openapi

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// jsonEdits finds the operations of a file in JSON by the offsets of its tokens.
func jsonEdits(file []byte, wanted func(method, path string) any) ([]edit, error) {
	w := &walker{file: file, dec: json.NewDecoder(bytes.NewReader(file)), wanted: wanted}
	if err := w.value(nil); err != nil {
		return nil, fmt.Errorf("this is not JSON: %w", err)
	}
	return w.edits, nil
}

type walker struct {
	file   []byte
	dec    *json.Decoder
	wanted func(method, path string) any
	edits  []edit
}

// value reads the value at a path of names.
func (w *walker) value(path []string) error {
	token, err := w.dec.Token()
	if err != nil {
		return err
	}
	switch token {
	case json.Delim('{'):
		return w.object(path, int(w.dec.InputOffset()))
	case json.Delim('['):
		for w.dec.More() {
			if err := w.value(slices.Concat(path, []string{""})); err != nil {
				return err
			}
		}
		_, err = w.dec.Token()
	}
	return err
}

// object reads an object whose first byte after the brace is at begin.
func (w *walker) object(path []string, begin int) error {
	var policy any
	if len(path) == 3 && path[0] == "paths" && isMethod(path[2]) {
		policy = w.wanted(path[2], path[1])
	}
	empty, there := true, false
	for w.dec.More() {
		empty = false
		token, err := w.dec.Token()
		if err != nil {
			return err
		}
		name, _ := token.(string)
		from := int(w.dec.InputOffset())
		if err := w.value(slices.Concat(path, []string{name})); err != nil {
			return err
		}
		if name == Name && policy != nil {
			there = true
			from += bytes.IndexByte(w.file[from:], ':') + 1
			space := len(w.file[from:]) - len(bytes.TrimLeft(w.file[from:], " "))
			lines := indent(w.file, from)
			lines.unit = unit(lines.prefix, indent(w.file, begin).prefix)
			text, err := encode(policy, lines)
			if err != nil {
				return err
			}
			w.edits = append(w.edits, edit{from + space, int(w.dec.InputOffset()), text})
		}
	}
	if _, err := w.dec.Token(); err != nil { // the closing brace
		return err
	}
	if policy == nil || there {
		return nil
	}
	return w.insert(policy, begin, empty)
}

// insert puts the extension first into an object.
func (w *walker) insert(policy any, begin int, empty bool) error {
	rest := w.file[begin:]
	space := string(rest[:len(rest)-len(bytes.TrimLeft(rest, " \t\r\n"))])
	before, colon := space, ": "
	lines := layout{compact: true}
	if i := strings.LastIndexByte(space, '\n'); i >= 0 && !empty {
		lines = layout{prefix: space[i+1:], unit: unit(space[i+1:], indent(w.file, begin).prefix)}
	} else {
		before = ""
		if !strings.ContainsAny(space, " ") {
			colon = ":"
		}
	}
	text, err := encode(policy, lines)
	if err != nil {
		return err
	}
	text = before + `"` + Name + `"` + colon + text
	if !empty {
		text += ","
	}
	w.edits = append(w.edits, edit{begin, begin, text})
	return nil
}

// layout is how an object is written.
type layout struct {
	compact      bool
	prefix, unit string
}

// indent gives the layout of the line in which at lies: one line for everything if
// more than one member stands there.
func indent(file []byte, at int) layout {
	begin := bytes.LastIndexByte(file[:at], '\n') + 1
	line := string(file[begin:at])
	prefix := line[:len(line)-len(strings.TrimLeft(line, " \t"))]
	if begin == 0 || strings.ContainsAny(line, "{,") {
		return layout{compact: true, prefix: prefix}
	}
	return layout{prefix: prefix}
}

// unit is by how much one level is indented.
func unit(inner, outer string) string {
	if more, ok := strings.CutPrefix(inner, outer); ok && outer != "" && more != "" {
		return more
	}
	if strings.HasPrefix(inner, "\t") {
		return "\t"
	}
	return "  "
}

func encode(policy any, l layout) (string, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if !l.compact {
		e.SetIndent(l.prefix, l.unit)
	}
	err := e.Encode(policy)
	return strings.TrimSuffix(b.String(), "\n"), err
}
