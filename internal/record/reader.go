package record

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
	"unique"

	fastjson "github.com/goccy/go-json"
)

// Record is a whole file in memory.
type Record struct {
	Path        string
	Run         Run
	Conditions  []Condition
	Colds       []Cold
	Samples     Samples
	Paths       []Path
	Summaries   []Summary
	Comparisons []Comparison
	Events      []Event
	Tunes       []Tune    // steps of --tune, in order
	Requests    []Request // of TTFT runs
	End         *End      // nil: the record was cut off
	// Cut says that the file that was read is compressed and ends early.
	Cut bool
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

// Read reads a record. It takes what other programs do to such a file: gzip, a byte
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
	br, err := unpacked(r)
	if err != nil {
		return nil, err
	}
	cut := false
	var line []byte
	for n := 1; ; n++ {
		var err error
		line, err = readLine(br, line[:0])
		cut = errors.Is(err, errCut)
		last := cut || errors.Is(err, io.EOF)
		if err != nil && !last {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		text := line
		if n == 1 {
			text = bytes.TrimPrefix(text, []byte("\ufeff"))
		}
		text = bytes.TrimSpace(text)
		if len(text) > 0 && (!last || json.Valid(text)) {
			if other := another(text, all); other != nil {
				rec = other
			}
			if err := rec.add(text); err != nil {
				return nil, fmt.Errorf("line %d: %w", n, err)
			}
			if len(all) == 0 || all[len(all)-1] != rec && !slices.Contains(all, rec) {
				all = append(all, rec)
			}
		}
		if last {
			break
		}
	}
	switch {
	case len(all) == 0 && cut:
		return nil, errCut
	case len(all) == 0:
		return nil, errors.New("no run line: this is not a record of xferbench")
	}
	all[len(all)-1].Cut = cut
	return all, nil
}

// another is the record that a run line goes on with, a new one for a run that is
// none of all, and nil for any other line.
func another(line []byte, all []*Record) *Record {
	if len(all) == 0 || looksSample(line) || !bytes.Contains(line, []byte(`"run"`)) {
		return nil
	}
	var run struct {
		Type string `json:"type"`
		Run
	}
	if json.Unmarshal(line, &run) != nil || run.Type != "run" {
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

// readLine reads up to a newline into line, which is empty. With [io.EOF] it is
// what the file ends with instead.
func readLine(br *bufio.Reader, line []byte) ([]byte, error) {
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
	if looksSample(line) {
		// By far the most lines are samples, which are decoded in one pass.
		var v struct {
			Type string `json:"type"`
			Sample
		}
		if decode(line, &v) == nil && v.Type == (Sample{}).lineType() {
			return v.Sample, nil
		}
	}
	if err := decode(line, &head); err != nil {
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
		return path(line)
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

// looksSample tells whether a line begins as this program writes samples.
func looksSample(line []byte) bool { return bytes.HasPrefix(line, []byte(`{"type":"sample",`)) }

func as[T Line](line []byte) (Line, error) {
	var v T
	if err := decode(line, &v); err != nil {
		return nil, err
	}
	return v, nil
}

// path reads a path line. Records name the same few counters again and again, so
// they share the names.
func path(line []byte) (Line, error) {
	var p Path
	if err := decode(line, &p); err != nil {
		return nil, err
	}
	for i := range p.Counters {
		c := &p.Counters[i]
		for _, s := range []*string{&p.Phase, &c.Side, &c.Device, &c.Name} {
			*s = unique.Make(*s).Value()
		}
	}
	return p, nil
}

// decode is json.Unmarshal into a zero *v, eight times as fast: most of the time of
// a report is spent here. What it refuses, encoding/json refuses in its own words,
// or reads.
func decode[T any](line []byte, v *T) error {
	if fastjson.Unmarshal(line, v) == nil {
		return nil
	}
	var zero T
	*v = zero
	return json.Unmarshal(line, v)
}

// Add appends a line, as Read does with one of the file; a sample of another size
// than its condition's is refused. The run line of a
// resumed sweep is not the first: that one stays. l's slices and maps are kept, so
// change none of them later.
func (r *Record) Add(l Line) error {
	switch l := l.(type) {
	case Run:
		if r.Run.Schema == 0 {
			r.Run = l
		}
	case Condition:
		if l.Bytes > math.MaxInt64 {
			return fmt.Errorf("condition %d of %d bytes: more than memory can be", l.ID, l.Bytes)
		}
		r.Conditions = append(r.Conditions, l)
	case Cold:
		r.Colds = append(r.Colds, l)
	case Sample:
		if bytes, known := r.bytes(l.Condition); known && l.Bytes != bytes {
			return fmt.Errorf("a sample of %d bytes, but condition %d transfers %d: not the same transfer", l.Bytes, l.Condition, bytes)
		}
		r.Samples.Add(l)
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

// bytes is how many a condition transfers.
func (r *Record) bytes(id int) (bytes uint64, known bool) {
	if id >= 0 && id < len(r.Conditions) && r.Conditions[id].ID == id {
		return r.Conditions[id].Bytes, true // as runs number them
	}
	for i := range r.Conditions {
		if r.Conditions[i].ID == id {
			return r.Conditions[i].Bytes, true
		}
	}
	return 0, false
}

// Open reads the record file path; "last" is the newest in [Dir], "-" standard
// input.
func Open(path string) (*Record, error) { return OpenRun(path, "") }

// OpenRun is Open for the record of the run id; see [ReadRun].
func OpenRun(path, id string) (*Record, error) {
	if path == "last" {
		var err error
		if path, err = Last(); err != nil {
			return nil, err
		}
	}
	f := os.Stdin
	if path != "-" {
		var err error
		if f, err = os.Open(path); err != nil {
			return nil, fmt.Errorf("record: %w", err)
		}
		defer f.Close()
	}
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
