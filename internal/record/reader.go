package record

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Record is a whole file in memory.
type Record struct {
	Path        string
	Run         Run
	Conditions  []Condition
	Colds       []Cold
	Samples     []Sample
	Paths       []Path
	Summaries   []Summary
	Comparisons []Comparison
	Events      []Event
	Tunes       []Tune    // steps of --tune, in order
	Requests    []Request // of TTFT runs
	End         *End      // nil: the record was cut off
}

// Condition finds a condition by its ID.
func (r *Record) Condition(id int) (Condition, bool) {
	for _, c := range r.Conditions {
		if c.ID == id {
			return c, true
		}
	}
	return Condition{}, false
}

// maxLine is the longest line that is read; a run line with a large inventory
// takes some 20 kB.
const maxLine = 16 << 20

// Read reads a record. It takes what other programs do to such a file: a byte
// order mark, CRLF, blank lines, and a last line without its newline. A last
// line that is not whole was cut off by a crash and is left out; any other bad
// line is an error that names it. Several records one after another (cat, >>) are
// an error that matches [ErrSeveral] and names them: see [ReadRun].
func Read(r io.Reader) (*Record, error) { return ReadRun(r, "") }

// ErrSeveral is matched by the error of a file that holds several records.
var ErrSeveral = errors.New("several records in one file")

// ReadRun is Read for one of the records in a file that holds several: the one
// whose run has the ID id.
func ReadRun(r io.Reader, id string) (*Record, error) {
	records, err := readAll(r)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, rec := range records {
		if rec.Run.ID == id || id == "" && len(records) == 1 {
			return rec, nil
		}
		names = append(names, fmt.Sprintf("%s (%s of %s)", rec.Run.ID, rec.Run.Kind, time.Unix(0, rec.Run.StartUnixNs).UTC().Format(time.DateTime)))
	}
	if id != "" {
		return nil, fmt.Errorf("no run %q, but %s", id, strings.Join(names, ", "))
	}
	return nil, fmt.Errorf("%w: %d runs, %s; `xferbench report --run ID` takes one", ErrSeveral, len(records), strings.Join(names, ", "))
}

// readAll reads the records of a file, in the order in which they begin.
func readAll(r io.Reader) ([]*Record, error) {
	var all []*Record
	rec := &Record{}
	br := bufio.NewReaderSize(r, 1<<16)
	for n := 1; ; n++ {
		line, err := readLine(br)
		last := errors.Is(err, io.EOF)
		if err != nil && !last {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		if n == 1 {
			line = bytes.TrimPrefix(line, []byte("\ufeff"))
		}
		line = bytes.TrimSpace(line)
		if len(line) > 0 && (!last || json.Valid(line)) {
			if other := another(line, all); other != nil {
				rec = other
			}
			if err := rec.add(line); err != nil {
				return nil, fmt.Errorf("line %d: %w", n, err)
			}
			if !slices.Contains(all, rec) {
				all = append(all, rec)
			}
		}
		if last {
			break
		}
	}
	if len(all) == 0 {
		return nil, errors.New("no run line: this is not a record of xferbench")
	}
	return all, nil
}

// another is the record that a run line goes on with, a new one for a run that is
// none of all, and nil for any other line.
func another(line []byte, all []*Record) *Record {
	var run struct {
		Type string   `json:"type"`
		ID   string   `json:"id"`
		Argv []string `json:"argv"`
	}
	if len(all) == 0 || !bytes.Contains(line, []byte(`"run"`)) || json.Unmarshal(line, &run) != nil || run.Type != "run" {
		return nil
	}
	for _, rec := range all {
		if rec.Run.ID == run.ID {
			return rec
		}
	}
	if slices.Contains(run.Argv, "--resume") {
		return all[len(all)-1] // builds before 2026-12 gave each start an ID of its own
	}
	return &Record{}
}

// readLine reads up to a newline. With [io.EOF] it is what the file ends with
// instead.
func readLine(br *bufio.Reader) ([]byte, error) {
	var line []byte
	for {
		part, err := br.ReadSlice('\n')
		line = append(line, part...)
		if !errors.Is(err, bufio.ErrBufferFull) {
			return line, err
		}
		if len(line) > maxLine {
			return nil, fmt.Errorf("longer than %d bytes", maxLine)
		}
	}
}

func (r *Record) add(line []byte) error {
	first := r.Run.Schema == 0
	var head struct {
		Type   string `json:"type"`
		Schema int    `json:"schema"`
	}
	if err := json.Unmarshal(line, &head); err != nil {
		if first {
			return fmt.Errorf("%w: this is not a record of xferbench", err)
		}
		return err
	}
	if first && head.Type != "run" {
		return fmt.Errorf("type %q where the run line should be: this is not a record of xferbench", head.Type)
	}
	switch head.Type {
	case "run":
		if head.Schema < 1 || head.Schema > Schema {
			return fmt.Errorf("schema %d, this build reads 1 to %d: use a newer xferbench", head.Schema, Schema)
		}
		if !first {
			// A resumed sweep appends a run line; the first one stays.
			return nil
		}
		if err := json.Unmarshal(line, &r.Run); err != nil {
			return err
		}
		r.Run.Host.memlock()
		r.Run.Peer.memlock()
		return nil
	case "condition":
		return into(line, &r.Conditions)
	case "cold":
		return into(line, &r.Colds)
	case "sample":
		return into(line, &r.Samples)
	case "path":
		return into(line, &r.Paths)
	case "summary":
		return into(line, &r.Summaries)
	case "comparison":
		c, err := comparison(line)
		if err != nil {
			return err
		}
		r.Comparisons = append(r.Comparisons, c)
		return nil
	case "event":
		return into(line, &r.Events)
	case "tune":
		return into(line, &r.Tunes)
	case "request":
		return into(line, &r.Requests)
	case "end":
		r.End = new(End)
		return json.Unmarshal(line, r.End)
	case "":
		return errors.New("no type")
	}
	// A type that a later version added.
	return nil
}

func into[T any](line []byte, list *[]T) error {
	var v T
	if err := json.Unmarshal(line, &v); err != nil {
		return err
	}
	*list = append(*list, v)
	return nil
}

// Open reads the record file path; "last" is the newest in [Dir].
func Open(path string) (*Record, error) { return OpenRun(path, "") }

// OpenRun is Open for the record of the run id; see [ReadRun].
func OpenRun(path, id string) (*Record, error) {
	if path == "last" {
		var err error
		if path, err = Last(); err != nil {
			return nil, err
		}
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("record: %w", err)
	}
	defer f.Close()
	r, err := ReadRun(f, id)
	if err != nil {
		return nil, fmt.Errorf("record %s: %w", path, err)
	}
	r.Path = path
	return r, nil
}

// Last is the newest record in [Dir].
func Last() (string, error) {
	dir, err := Dir()
	if err != nil {
		return "", err
	}
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return "", fmt.Errorf("record: %w", err)
	}
	// Names begin with the time, so the order of names is that of time.
	for _, e := range slices.Backward(entries) {
		if strings.HasSuffix(e.Name(), ".jsonl") {
			return filepath.Join(dir, e.Name()), nil
		}
	}
	return "", fmt.Errorf("no record in %s yet: run xferbench first, or name a file", dir)
}

// Add appends a line to a record in memory, as Read would from the file.
func (r *Record) Add(l Line) error {
	b, err := Marshal(l)
	if err != nil {
		return err
	}
	return r.add(b)
}
