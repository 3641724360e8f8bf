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
		Type string `json:"type"`
		Run
	}
	if len(all) == 0 || !bytes.Contains(line, []byte(`"run"`)) || json.Unmarshal(line, &run) != nil || run.Type != "run" {
		return nil
	}
	for _, rec := range all {
		if rec.Run.ID == run.ID {
			return rec
		}
	}
	if last := all[len(all)-1]; goesOn(run.Run, last.Run.ID) {
		return last
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

// add parses a line and appends it.
func (r *Record) add(line []byte) error {
	first := r.Run.Schema == 0
	l, err := Parse(line)
	if err != nil && first {
		return fmt.Errorf("%w: this is not a record of xferbench", err)
	}
	if err != nil || l == nil && !first {
		return err
	}
	if run, is := l.(Run); !is && first {
		return errNoRun
	} else if is {
		if err := readable(run); err != nil {
			return err
		}
	}
	return r.Add(l)
}

var errNoRun = errors.New("another line where the run line should be: this is not a record of xferbench")

// goesOn reports whether a run line continues the run with the ID id: builds
// before 2026-12 gave each start of a resumed sweep an ID of its own.
func goesOn(run Run, id string) bool { return run.ID == id || slices.Contains(run.Argv, "--resume") }

// readable says whether this build knows a run's schema.
func readable(run Run) error {
	if run.Schema < 1 || run.Schema > Schema {
		return fmt.Errorf("schema %d, this build reads 1 to %d: use a newer xferbench", run.Schema, Schema)
	}
	return nil
}

// Parse is the line that stands in a record as text; nil for a type that a later
// version added.
func Parse(line []byte) (Line, error) {
	var head struct {
		Type string `json:"type"`
	}
	if err := json.Unmarshal(line, &head); err != nil {
		return nil, err
	}
	switch head.Type {
	case "run":
		return run(line)
	case "condition":
		return as[Condition](line)
	case "cold":
		return as[Cold](line)
	case "sample":
		return as[Sample](line)
	case "path":
		return as[Path](line)
	case "summary":
		return as[Summary](line)
	case "comparison":
		return comparison(line)
	case "event":
		return as[Event](line)
	case "tune":
		return as[Tune](line)
	case "request":
		return as[Request](line)
	case "end":
		return as[End](line)
	case "":
		return nil, errors.New("no type")
	}
	return nil, nil
}

func as[T Line](line []byte) (Line, error) {
	var v T
	if err := json.Unmarshal(line, &v); err != nil {
		return nil, err
	}
	return v, nil
}

// Add appends a line, as Read does with one of the file. The run line of a
// resumed sweep is not the first: that one stays. l's slices and maps are kept, so
// change none of them later.
func (r *Record) Add(l Line) error {
	switch l := l.(type) {
	case Run:
		if r.Run.Schema == 0 {
			r.Run = l
		}
	case Condition:
		r.Conditions = append(r.Conditions, l)
	case Cold:
		r.Colds = append(r.Colds, l)
	case Sample:
		r.Samples = append(r.Samples, l)
	case Path:
		r.Paths = append(r.Paths, l)
	case Summary:
		r.Summaries = append(r.Summaries, l)
	case Comparison:
		r.Comparisons = append(r.Comparisons, l)
	case Event:
		r.Events = append(r.Events, l)
	case Tune:
		r.Tunes = append(r.Tunes, l)
	case Request:
		r.Requests = append(r.Requests, l)
	case End:
		r.End = &l
	default:
		return fmt.Errorf("record: a line of type %T", l)
	}
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
