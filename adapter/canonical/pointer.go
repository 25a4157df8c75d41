package canonical

import (
	"fmt"
	"strings"
)

// node is a set of JSON Pointers as a tree. A node without children is the end
// of a pointer: the value there is in the set, whole.
type node struct {
	children map[string]*node
}

// leaf tells whether a pointer ends here. It is false for no node.
func (n *node) leaf() bool { return n != nil && len(n.children) == 0 }

// child gives the node under name, nil if no pointer goes there.
func (n *node) child(name string) *node {
	if n == nil {
		return nil
	}
	return n.children[name]
}

// covers tells whether the value that the names lead to is in the set, whole.
func (n *node) covers(names []string) bool {
	for _, name := range names {
		if n.leaf() {
			return true
		}
		n = n.child(name)
	}
	return n.leaf()
}

// pointers makes a set of JSON Pointers, nil for none. Two that name one value,
// or a value within another, contradict each other or say nothing: they are
// refused, because whoever wrote them meant something else.
func pointers(texts []string) (*node, error) {
	if len(texts) == 0 {
		return nil, nil
	}
	root := &node{}
	for i, text := range texts {
		names, err := split(text)
		if err != nil {
			return nil, err
		}
		at, fresh := root, i == 0
		for _, name := range names {
			if at.leaf() && !fresh {
				return nil, fmt.Errorf("%q lies within another pointer of the list", text)
			}
			next := at.children[name]
			if next == nil {
				next, fresh = &node{}, true
				if at.children == nil {
					at.children = map[string]*node{}
				}
				at.children[name] = next
			}
			at = next
		}
		if !fresh {
			return nil, fmt.Errorf("%q is there twice, or holds another pointer of the list", text)
		}
	}
	return root, nil
}

// split gives the names of a pointer, unescaped.
func split(text string) ([]string, error) {
	if text == "" {
		return nil, nil
	}
	if text[0] != '/' {
		return nil, fmt.Errorf("%q is no JSON Pointer: it begins with a slash, as in /amount", text)
	}
	names := strings.Split(text[1:], "/")
	for i, name := range names {
		for j := range len(name) {
			if name[j] == '~' && (j+1 == len(name) || name[j+1] != '0' && name[j+1] != '1') {
				return nil, fmt.Errorf("%q is no JSON Pointer: ~ stands only in ~0 for ~ and ~1 for /", text)
			}
		}
		names[i] = strings.NewReplacer("~1", "/", "~0", "~").Replace(name)
	}
	return names, nil
}
