package check

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"go.yaml.in/yaml/v3"
)

// MaxObjects is how many objects Read takes.
const MaxObjects = 10_000

// Object is one object of a manifest.
type Object struct {
	File       string
	APIVersion string
	Kind       string
	Namespace  string
	Name       string
	json       []byte
	node       *yaml.Node // nil if there is no text, in the webhook
}

// Read reads the objects of a file: YAML with any number of documents, or JSON,
// and the items of Lists. Documents that are no Kubernetes objects are left out.
func Read(file string, text []byte) ([]Object, error) {
	var all []Object
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	for {
		var document yaml.Node
		err := decoder.Decode(&document)
		if errors.Is(err, io.EOF) {
			return all, nil
		}
		if err != nil {
			hint := ""
			if bytes.Contains(text, []byte("{{")) {
				hint = ": it looks like a template, render it first (helm template)"
			}
			return nil, fmt.Errorf("reading %s as YAML: %w%s", file, err, hint)
		}
		if len(document.Content) == 0 {
			continue
		}
		if all, err = appendObjects(all, file, document.Content[0]); err != nil {
			return nil, err
		}
	}
}

// appendObjects adds the object of a node to all, or the items of a List.
func appendObjects(all []Object, file string, node *yaml.Node) ([]Object, error) {
	var head struct {
		APIVersion string `yaml:"apiVersion"`
		Kind       string
		Metadata   struct{ Name, Namespace string }
	}
	if node.Kind != yaml.MappingNode {
		return all, nil
	}
	_ = node.Decode(&head) // fields of another kind than these make it no Kubernetes object
	if head.Kind == "" || head.APIVersion == "" {
		return all, nil
	}
	if items := child(node, "items"); strings.HasSuffix(head.Kind, "List") && items != nil && items.Kind == yaml.SequenceNode {
		for _, item := range items.Content {
			var err error
			if all, err = appendObjects(all, file, item); err != nil {
				return nil, err
			}
		}
		return all, nil
	}
	if len(all) == MaxObjects {
		return nil, fmt.Errorf("reading %s: it holds more than %d objects", file, MaxObjects)
	}
	var value any
	if err := node.Decode(&value); err != nil {
		return nil, fmt.Errorf("reading %s %s in %s, line %d: %w", head.Kind, head.Metadata.Name, file, node.Line, err)
	}
	text, err := json.Marshal(value)
	if err != nil {
		return nil, fmt.Errorf("reading %s %s in %s, line %d: %w", head.Kind, head.Metadata.Name, file, node.Line, err)
	}
	return append(all, Object{
		File: file, APIVersion: head.APIVersion, Kind: head.Kind,
		Namespace: head.Metadata.Namespace, Name: head.Metadata.Name, json: text, node: node,
	}), nil
}

// FromJSON makes an object of what the API server sends. It has no lines.
func FromJSON(text []byte) (Object, error) {
	var head struct {
		APIVersion string
		Kind       string
		Metadata   struct{ Name, GenerateName, Namespace string }
	}
	if err := json.Unmarshal(text, &head); err != nil {
		return Object{}, fmt.Errorf("reading an object: %w", err)
	}
	name := head.Metadata.Name
	if name == "" {
		name = head.Metadata.GenerateName
	}
	return Object{APIVersion: head.APIVersion, Kind: head.Kind, Namespace: head.Metadata.Namespace, Name: name, json: text}, nil
}

// decode reads the object into into. Fields that into does not know are left out.
func (o *Object) decode(into any) error {
	if err := json.Unmarshal(o.json, into); err != nil {
		return fmt.Errorf("reading %s: %w", o.title(), err)
	}
	return nil
}

// title names the object in findings.
func (o *Object) title() string {
	if o.Namespace == "" {
		return o.Kind + "/" + o.Name
	}
	return o.Namespace + "/" + o.Kind + "/" + o.Name
}

// line returns the line of the field at path: names of fields, and indexes of
// lists. Of a path that is not there it returns the line of the nearest field
// above.
func (o *Object) line(path ...any) int {
	node, line := o.node, 0
	for step := 0; node != nil; step++ {
		line = node.Line
		if step == len(path) {
			return line
		}
		switch key := path[step].(type) {
		case string:
			node, line = childAt(node, key, line)
		case int:
			if node.Kind != yaml.SequenceNode || key >= len(node.Content) {
				return line
			}
			node = node.Content[key]
		}
		if step == len(path)-1 {
			return line
		}
	}
	return line
}

// child returns the value of a key in a mapping, or nil.
func child(node *yaml.Node, key string) *yaml.Node {
	value, _ := childAt(node, key, 0)
	return value
}

// childAt returns the value of a key in a mapping and the key's line, or nil and
// the given line. Aliases are followed.
func childAt(node *yaml.Node, key string, line int) (*yaml.Node, int) {
	if node.Kind == yaml.AliasNode {
		node = node.Alias
	}
	if node.Kind != yaml.MappingNode {
		return nil, line
	}
	for i := 0; i+1 < len(node.Content); i += 2 {
		if node.Content[i].Value == key {
			return node.Content[i+1], node.Content[i].Line
		}
	}
	return nil, line
}
