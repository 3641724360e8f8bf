package spec

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"regexp"
	"strconv"

	"github.com/goccy/go-yaml"

	"github.com/xferbench/xferbench/internal/fault"
	"github.com/xferbench/xferbench/internal/strict"
)

// Load reads the spec in a file; "-" is stdin. Its errors are of kind Usage.
func Load(path string, stdin io.Reader) (*Spec, error) {
	var data []byte
	var err error
	if path == "-" {
		data, err = io.ReadAll(io.LimitReader(stdin, strict.MaxBytes+1))
		path = "standard input"
	} else {
		data, err = os.ReadFile(path)
	}
	if err != nil {
		return nil, fault.Usagef("spec: %w", err)
	}
	s, err := Parse(data)
	if err != nil {
		return nil, fault.Usagef("spec %s: %w", path, err)
	}
	return s, nil
}

// Parse reads YAML or JSON over the defaults of the workload that it names. A key
// that is not known is an error, and so is one without its unit.
func Parse(data []byte) (*Spec, error) {
	var head struct {
		Version  int    `yaml:"spec"`
		Workload string `yaml:"workload"`
	}
	if err := strict.Peek(data, &head); err != nil {
		return nil, err
	}
	if head.Version != Version {
		return nil, fmt.Errorf("its key spec is %d; this build reads spec: %d", head.Version, Version)
	}
	s := Default(head.Workload)
	if s.Raw == nil && s.TTFT == nil {
		return nil, fmt.Errorf("workload %q: want raw, sweep or ttft", head.Workload)
	}
	raw, ttft := s.Raw, s.TTFT
	if err := strict.Unmarshal(data, s); err != nil {
		return nil, err
	}
	switch {
	case raw == nil && s.Raw != nil:
		return nil, fmt.Errorf("a section raw in a spec of workload %s", s.Workload)
	case ttft == nil && s.TTFT != nil:
		return nil, fmt.Errorf("a section ttft in a spec of workload %s", s.Workload)
	case s.Raw == nil && s.TTFT == nil:
		return nil, fmt.Errorf("the section %s is null", head.Workload)
	}
	return s, nil
}

// YAML is the spec as a file has it.
func (s *Spec) YAML() ([]byte, error) { return yaml.Marshal(s) }

// JSON is the spec on one line, with the keys of the file.
func (s *Spec) JSON() ([]byte, error) {
	b, err := yaml.MarshalWithOptions(s, yaml.JSON())
	if err != nil {
		return nil, err
	}
	// The library quotes strings as Go does, with escapes that JSON lacks (\x10, \a).
	b = quoted.ReplaceAllFunc(b, func(q []byte) []byte {
		text, e := strconv.Unquote(string(q))
		if e != nil {
			err = fmt.Errorf("the string %s of a spec: %w", q, e)
			return q
		}
		if q, e = json.Marshal(text); e != nil {
			err = e
		}
		return q
	})
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	err = json.Compact(&out, b)
	return out.Bytes(), err
}

// quoted finds the strings of a JSON text.
var quoted = regexp.MustCompile(`"(?:[^"\\]|\\.)*"`)
