// Package trace reads how long the prompts of a deployment are from traces of
// requests, in the forms that the field publishes: one JSON object a line, one JSON
// document, or a table of comma-separated values. It takes counts of tokens
// only: it has no tokeniser, so that texts of prompts are refused.
package trace

import (
	"bufio"
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
)

// MaxTokens bounds the length of one prompt, far above any model's context.
const MaxTokens = 1 << 30

// maxLine is the longest line that is read: the hashes of a long prompt's blocks
// take some hundred kB.
const maxLine = 16 << 20

// keys name a request's count of prompt tokens, each with where it comes from.
// Case does not count.
var keys = []string{
	"input_length",   // Mooncake's traces
	"contexttokens",  // Azure's LLM inference traces
	"prompt_tokens",  // "usage" of the OpenAI API, alone or as a key of that object
	"prompt_len",     // vLLM's and SGLang's benchmarks, a request
	"input_tokens",   // "usage" of the Anthropic API
	"request tokens", // BurstGPT
}

// Keys are the names under which a count of prompt tokens is looked for.
func Keys() []string { return slices.Concat(keys, []string{"input_lens"}) }

// Lengths are the prompts of a trace.
type Lengths struct {
	// Requests counts the prompts of each length, in tokens.
	Requests map[int64]int64
	// N is how many they are together; Empty counts rows of no tokens, which are
	// not among them.
	N, Empty int64
}

// Open reads the file path.
func Open(path string) (*Lengths, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("trace: %w", err)
	}
	defer f.Close()
	l, err := Read(f)
	if err != nil {
		return nil, fmt.Errorf("trace %s: %w", path, err)
	}
	return l, nil
}

// Read reads a trace; its first character tells the form. A row without a count
// is an error that names its line.
func Read(r io.Reader) (*Lengths, error) {
	br := bufio.NewReaderSize(r, 1<<16)
	if mark, err := br.Peek(3); err == nil && string(mark) == "\ufeff" {
		if _, err := br.Discard(3); err != nil {
			return nil, err
		}
	}
	l := &Lengths{Requests: map[int64]int64{}}
	first, err := firstByte(br)
	switch {
	case errors.Is(err, io.EOF):
		return nil, errors.New("it is empty")
	case err != nil:
		return nil, err
	case first == '[':
		err = l.document(br)
	case first == '{':
		err = l.lines(br)
	default:
		err = l.table(br)
	}
	if err != nil {
		return nil, err
	}
	if l.N == 0 {
		return nil, fmt.Errorf("no request with a prompt (%d rows of 0 tokens)", l.Empty)
	}
	return l, nil
}

// firstByte is the first character that is no white space, which stays to be read.
func firstByte(br *bufio.Reader) (byte, error) {
	for {
		c, err := br.ReadByte()
		if err != nil {
			return 0, err
		}
		if !strings.ContainsRune(" \t\r\n", rune(c)) {
			return c, br.UnreadByte()
		}
	}
}

func (l *Lengths) add(n json.Number) error {
	tokens, err := strconv.ParseInt(n.String(), 10, 64)
	if err != nil {
		// Tables that went through a spreadsheet or pandas have 4808.0.
		f, ferr := strconv.ParseFloat(n.String(), 64)
		if tokens = int64(f); ferr != nil || float64(tokens) != f {
			return fmt.Errorf("%q is no whole number of tokens", n)
		}
	}
	switch {
	case tokens < 0 || tokens > MaxTokens:
		return fmt.Errorf("%s tokens in a prompt: want 0 to %d", n, MaxTokens)
	case tokens == 0:
		l.Empty++
	default:
		l.Requests[tokens]++
		l.N++
	}
	return nil
}

// lines reads one JSON object a line. A document of one object over several lines
// is read as a whole.
func (l *Lengths) lines(br *bufio.Reader) error {
	sc := bufio.NewScanner(br)
	sc.Buffer(nil, maxLine)
	var all bytes.Buffer // of what may be one object
	for n := 1; sc.Scan(); n++ {
		line := bytes.TrimSpace(sc.Bytes())
		if n == 1 && !json.Valid(line) || all.Len() > 0 {
			if all.Len()+len(line) > 4*maxLine {
				return fmt.Errorf("no JSON object ends within %d bytes", 4*maxLine)
			}
			all.Write(append(line, '\n'))
			continue
		}
		if len(line) == 0 {
			continue
		}
		if err := l.object(line); err != nil {
			return fmt.Errorf("line %d: %w", n, err)
		}
	}
	if err := sc.Err(); err != nil {
		return err
	}
	if all.Len() == 0 {
		return nil
	}
	return l.object(all.Bytes())
}

// document reads a JSON array of objects.
func (l *Lengths) document(br *bufio.Reader) error {
	d := json.NewDecoder(br)
	if _, err := d.Token(); err != nil {
		return err
	}
	for n := 1; d.More(); n++ {
		var o json.RawMessage
		if err := d.Decode(&o); err != nil {
			return fmt.Errorf("request %d: %w", n, err)
		}
		if err := l.object(o); err != nil {
			return fmt.Errorf("request %d: %w", n, err)
		}
	}
	_, err := d.Token()
	return err
}

// object takes the count of one request, or all of a benchmark's result.
func (l *Lengths) object(text []byte) error {
	o, err := fields(text)
	if err != nil {
		return err
	}
	// vLLM's benchmark writes one object for the whole run.
	if lens, ok := o["input_lens"]; ok {
		var ns []json.Number
		if err := json.Unmarshal(lens, &ns); err != nil {
			return fmt.Errorf("input_lens: %w", err)
		}
		for i, n := range ns {
			if err := l.add(n); err != nil {
				return fmt.Errorf("input_lens, number %d: %w", i+1, err)
			}
		}
		return nil
	}
	inner := []map[string]json.RawMessage{o}
	if u, ok := o["usage"]; ok {
		if of, err := fields(u); err == nil {
			inner = append(inner, of)
		}
	}
	for _, of := range inner {
		for _, k := range keys {
			v, ok := of[k]
			if !ok {
				continue
			}
			var n json.Number
			if err := json.Unmarshal(v, &n); err != nil {
				return fmt.Errorf("%s: %w", k, err)
			}
			return l.add(n)
		}
	}
	for _, k := range []string{"conversations", "prompt", "messages", "text"} {
		if _, ok := o[k]; ok {
			return fmt.Errorf("%q is text, whose tokens only the model's tokeniser can count: count them, and write %s=N to each row", k, "prompt_tokens")
		}
	}
	return fmt.Errorf("no count of prompt tokens: want one of the keys %s", strings.Join(Keys(), ", "))
}

// fields are the keys of an object in lower case.
func fields(text []byte) (map[string]json.RawMessage, error) {
	var o map[string]json.RawMessage
	if err := json.Unmarshal(text, &o); err != nil {
		return nil, fmt.Errorf("no JSON object: %w", err)
	}
	out := make(map[string]json.RawMessage, len(o))
	for k, v := range o {
		out[strings.ToLower(k)] = v
	}
	return out, nil
}

// table reads comma-separated values below a line of names.
func (l *Lengths) table(br *bufio.Reader) error {
	r := csv.NewReader(br)
	r.ReuseRecord, r.FieldsPerRecord, r.TrimLeadingSpace = true, -1, true
	head, err := r.Read()
	if err != nil {
		return err
	}
	at := -1
	for _, k := range keys {
		if at = slices.IndexFunc(head, func(h string) bool { return strings.EqualFold(strings.TrimSpace(h), k) }); at >= 0 {
			break
		}
	}
	if at < 0 {
		return fmt.Errorf("no column of prompt tokens in %q: want one named %s", strings.Join(head, ","), strings.Join(keys, ", "))
	}
	for {
		row, err := r.Read()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		line, _ := r.FieldPos(0)
		if at >= len(row) {
			return fmt.Errorf("line %d has %d columns and not the prompt tokens", line, len(row))
		}
		if err := l.add(json.Number(strings.TrimSpace(row[at]))); err != nil {
			return fmt.Errorf("line %d: %w", line, err)
		}
	}
}
