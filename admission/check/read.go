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

// MaxObjects is the maximum number of objects that Read accepts in one file.
const MaxObjects = 10_000

// Object is one object of a manifest.
type Object struct {
	File       string
	APIVersion string
	Kind       string
	Namespace  string
	Name       string
	json       []byte
	node       *yaml.Node // nil in the webhook, where there is no text
}

// Read returns the objects in a file. The file is JSON, or YAML with any number of
// documents. A List is replaced by its items. Documents that are no Kubernetes
// objects are ignored.
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

// appendObjects appends the object in node to all. If it is a List, its items are
// appended instead.
func appendObjects(all []Object, file string, node *yaml.Node) ([]Object, error) {
	var head struct {
		APIVersion string `yaml:"apiVersion"`
		Kind       string
		Metadata   struct{ Name, Namespace string }
	}
	if node.Kind != yaml.MappingNode {
		return all, nil
	}
	_ = node.Decode(&head) // after an error, kind or apiVersion may be empty: then it is no Kubernetes object
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

// FromJSON returns the object in JSON that the API server has sent. The object has
// no line numbers.
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

// decode decodes the object into the value that into points to. Fields that the
// value does not have are ignored.
func (o *Object) decode(into any) error {
	if err := json.Unmarshal(o.json, into); err != nil {
		return fmt.Errorf("reading %s: %w", o.title(), err)
	}
	return nil
}

// title returns the object's name for findings.
func (o *Object) title() string {
	if o.Namespace == "" {
		return o.Kind + "/" + o.Name
	}
	return o.Namespace + "/" + o.Kind + "/" + o.Name
}

// line returns the line of the field at path, which consists of field names and list
// indexes. If the field does not exist, line returns the line of its nearest parent
// that does.
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

// childAt returns the value of a key in a mapping and the key's line. If there is
// none, it returns nil and the given line. It follows aliases.
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
