package record

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/xferbench/xferbench/internal/testenv"
)

func lines() []Line {
	yes := true
	return []Line{
		Run{Schema: Schema, ID: "abc", Kind: "raw", StartUnixNs: 5, Argv: []string{"xferbench"}, Seed: 1<<63 + 1, Host: Host{Hostname: "h", Memlock: "unlimited"}},
		Condition{ID: 1, Provider: "tcp", Op: "read", Bytes: 458752000, Transport: Transport{Landing: map[string]string{"read": "local-completion"}}},
		Cold{Provider: "tcp", FirstNs: 7},
		Sample{Condition: 1, Phase: PhaseMeasure, TotalNs: 9, Bytes: 458752000, Verified: &yes},
		Path{Condition: 1, Counters: []Counter{{Side: "target", Device: "lo", Name: "rx_bytes", Delta: 3}}},
		Summary{Condition: 1, N: 1},
		Comparison{A: 0, B: 1, Verdict: "too-few"},
		Event{Level: Warning, Message: "few samples"},
		Tune{Provider: "tcp", Step: 2, Streams: 4, Bytes: 8, TotalNs: 3, BestNs: 5, Kept: true},
		Request{Condition: 1, Phase: PhaseMeasure, TTFTNs: 4, Legs: &Legs{FirstToken: 4}, Reason: ReasonTimeout},
		End{Status: StatusOK, EndUnixNs: 6},
	}
}

// unpack has cmp compare samples by value.
var unpack = cmp.Transformer("unpack", func(s Samples) []Sample { return slices.Collect(s.All()) })

func write(t *testing.T, w *Writer, ls ...Line) {
	t.Helper()
	for _, l := range ls {
		if err := w.Write(l); err != nil {
			t.Fatal(err)
		}
	}
}

func TestRoundTrip(t *testing.T) {
	path := filepath.Join(t.TempDir(), "r.jsonl")
	w, err := Create(path)
	if err != nil {
		t.Fatal(err)
	}
	all := lines()
	write(t, w, all...)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	got, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	end := all[10].(End)
	want := &Record{Path: path, Run: all[0].(Run), Conditions: []Condition{all[1].(Condition)}, Colds: []Cold{all[2].(Cold)},
		Samples: PackSamples(all[3].(Sample)), Paths: []Path{all[4].(Path)}, Summaries: []Summary{all[5].(Summary)},
		Comparisons: []Comparison{all[6].(Comparison)}, Events: []Event{all[7].(Event)}, Tunes: []Tune{all[8].(Tune)}, Requests: []Request{all[9].(Request)}, End: &end}
	if d := cmp.Diff(want, got, unpack); d != "" {
		t.Error(d)
	}
	if err := w.Write(all[3]); err == nil {
		t.Error("a line after the end was taken")
	}
}

func TestReadRefuses(t *testing.T) {
	run := `{"type":"run","schema":1}` + "\n"
	for name, tt := range map[string]struct{ in, want string }{
		"empty":          {"", "not a record"},
		"another file":   {"hello\n", "line 1"},
		"no run line":    {`{"type":"sample"}` + "\n", "run line should be"},
		"newer schema":   {`{"type":"run","schema":3}` + "\n", "use a newer xferbench"},
		"bad json":       {run + "{\n", "line 2"},
		"no type":        {run + "{}\n", "no type"},
		"wrong key type": {run + `{"type":"sample","bytes":"many"}` + "\n", "line 2"},
		"another size": {run + `{"type":"condition","id":4,"bytes":8}` + "\n" + `{"type":"sample","condition":4,"bytes":8}` + "\n" + `{"type":"sample","condition":4,"bytes":9}`,
			"line 4: a sample of 9 bytes, but condition 4 transfers 8"},
		"no size at all": {run + `{"type":"condition","bytes":9223372036854775808}` + "\n", "line 2: condition 0 of 9223372036854775808 bytes"},
		"a bad request":  {run + `{"type":"request","ttft_ns":"long"}` + "\n", "line 2"},
		"blank lines":    {"\n\r\n", "not a record"},
		"cut-off run":    {`{"type":"run","sch`, "not a record"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := Read(strings.NewReader(tt.in)); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Read: %v, want an error with %q", err, tt.want)
			}
		})
	}
	r, err := Read(strings.NewReader(run + `{"type":"from the future"}` + "\n" + `{"type":"sample","bytes":1}` + "\n" + `{"type":"samp`))
	if err != nil || r.Samples.Len() != 1 || r.End != nil {
		t.Errorf("a cut-off record: %+v, %v", r, err)
	}
}

// What editors, Windows tools and careless copies do to a file.
func TestReadTakes(t *testing.T) {
	const run, sample, end = `{"type":"run","schema":1,"id":"x"}`, `{"type":"sample","bytes":1}`, `{"type":"end","status":"ok"}`
	for name, in := range map[string]string{
		"as written":           run + "\n" + sample + "\n" + end + "\n",
		"a blank last line":    run + "\n" + sample + "\n" + end + "\n\n",
		"blank lines between":  run + "\n\n" + sample + "\n \t\n" + end + "\n",
		"blank lines before":   "\n\n" + run + "\n" + sample + "\n" + end + "\n",
		"CRLF":                 run + "\r\n" + sample + "\r\n\r\n" + end + "\r\n",
		"a byte order mark":    "\ufeff" + run + "\n" + sample + "\n" + end + "\n",
		"no last newline":      run + "\n" + sample + "\n" + end,
		"CRLF, no last LF":     run + "\r\n" + sample + "\r\n" + end + "\r",
		"mark, CRLF, no last ": "\ufeff" + run + "\r\n" + sample + "\r\n" + end,
	} {
		t.Run(name, func(t *testing.T) {
			r, err := Read(strings.NewReader(in))
			if err != nil {
				t.Fatal(err)
			}
			if r.Run.ID != "x" || r.Samples.Len() != 1 || r.End == nil {
				t.Errorf("got %+v", r)
			}
		})
	}
}

func TestCreateRefusesAnExistingFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "r.jsonl")
	if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Create(path); err == nil || !strings.Contains(err.Error(), "exists") {
		t.Errorf("Create: %v", err)
	}
	if b, _ := os.ReadFile(path); string(b) != "precious" {
		t.Errorf("the file was changed to %q", b)
	}
}

func TestAppendGoesOnAfterACrash(t *testing.T) {
	path := filepath.Join(t.TempDir(), "r.jsonl")
	var b bytes.Buffer
	write(t, NewWriter(&b), lines()[:2]...)
	if err := os.WriteFile(path, append(b.Bytes(), `{"type":"sample","cond`...), 0o600); err != nil {
		t.Fatal(err)
	}
	w, err := Append(path)
	if err != nil {
		t.Fatal(err)
	}
	write(t, w, lines()[3], lines()[10])
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	r, err := Open(path)
	if err != nil || r.Samples.Len() != 1 || r.End == nil {
		t.Errorf("after Append: %+v, %v", r, err)
	}
}

// A record whose last newline an editor took is not cut by a line.
func TestAppendAfterALineWithoutNewline(t *testing.T) {
	path := filepath.Join(t.TempDir(), "r.jsonl")
	var b bytes.Buffer
	write(t, NewWriter(&b), lines()[0], lines()[1], lines()[3])
	if err := os.WriteFile(path, bytes.TrimSuffix(b.Bytes(), []byte("\n")), 0o600); err != nil {
		t.Fatal(err)
	}
	w, err := Append(path)
	if err != nil {
		t.Fatal(err)
	}
	write(t, w, lines()[3], lines()[10])
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	r, err := Open(path)
	if err != nil || r.Samples.Len() != 2 || r.End == nil {
		t.Errorf("after Append: %+v, %v", r, err)
	}
}

// A full disk must leave a record that is valid line by line and closed with
// its reason.
func TestFullDisk(t *testing.T) {
	testenv.NeedRoot(t)
	dir := t.TempDir()
	err := unix.Mount("xferbench-test", dir, "tmpfs", 0, "size=1m")
	testenv.Need(t, "mount", err)
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	path := filepath.Join(dir, "r.jsonl")
	w, err := Create(path)
	if err != nil {
		t.Fatal(err)
	}
	write(t, w, lines()[0])
	var full error
	for i := 0; i < 1<<16 && full == nil; i++ {
		full = w.Write(Event{Level: Info, Message: strings.Repeat("x", 1000)})
	}
	if !errors.Is(full, unix.ENOSPC) {
		t.Fatalf("filling 1 MiB: %v, want ENOSPC", full)
	}
	if err := w.Write(lines()[3]); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("a line after the failure: %v", err)
	}
	if err := w.Write(End{Status: StatusFailed, Error: full.Error()}); err != nil {
		t.Errorf("the end line on a full disk: %v", err)
	}
	if err := w.Close(); err != nil {
		t.Error(err)
	}
	r, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	if r.End == nil || r.End.Status != StatusFailed || len(r.Events) == 0 {
		t.Errorf("end %+v after %d events", r.End, len(r.Events))
	}
}

func TestCloseRemovesAnEmptyRecord(t *testing.T) {
	path := filepath.Join(t.TempDir(), "r.jsonl")
	w, err := Create(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("an empty record was left: %v", err)
	}
}

func TestLast(t *testing.T) {
	t.Setenv("XDG_STATE_HOME", t.TempDir())
	if _, err := Last(); err == nil || !strings.Contains(err.Error(), "no record") {
		t.Errorf("Last in an empty state: %v", err)
	}
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for i, id := range []string{"zz", "aa"} {
		w, err := CreateDefault(at.Add(time.Duration(i)*time.Millisecond), id)
		if err != nil {
			t.Fatal(err)
		}
		write(t, w, Run{Schema: Schema, ID: id})
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
	}
	r, err := Open("last")
	if err != nil || r.Run.ID != "aa" {
		t.Errorf("Open(last): %+v, %v; want the newer record aa", r, err)
	}
}

func TestStateMustBeAbsolute(t *testing.T) {
	home := t.TempDir()
	t.Setenv("HOME", home)
	usual := filepath.Join(home, ".local", "state", "xferbench")
	for value, want := range map[string]struct {
		dir  string
		warn bool
	}{
		"":         {usual, false},
		"state":    {usual, true},
		"./state":  {usual, true},
		"~/state":  {usual, true},
		"/x/state": {"/x/state/xferbench", false},
	} {
		t.Setenv("XDG_STATE_HOME", value)
		dir, err := Dir()
		if err != nil || dir != want.dir {
			t.Errorf("XDG_STATE_HOME=%q: %q, %v; want %q", value, dir, err, want.dir)
		}
		if w := StateWarning(); (w != "") != want.warn || want.warn && !strings.Contains(w, value) {
			t.Errorf("XDG_STATE_HOME=%q: warning %q", value, w)
		}
	}
}

func FuzzRead(f *testing.F) {
	var b bytes.Buffer
	w := NewWriter(&b)
	for _, l := range lines() {
		if err := w.Write(l); err != nil {
			f.Fatal(err)
		}
	}
	f.Add(b.Bytes())
	f.Add([]byte(`{"type":"run","schema":1}` + "\n" + `{"type":"end"}`))
	f.Fuzz(func(t *testing.T, in []byte) {
		r, err := Read(bytes.NewReader(in))
		if (r == nil) == (err == nil) {
			t.Errorf("record %v with error %v", r, err)
		}
		if err != nil {
			return
		}
		// Who follows the file sees the same.
		path := filepath.Join(t.TempDir(), "r.jsonl")
		if err := os.WriteFile(path, in, 0o600); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel() // no waiting
		ls, err := followed(ctx, path)
		if err != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("Follow: %v", err)
		}
		g := &Record{}
		for _, l := range ls {
			if err := g.Add(l); err != nil {
				t.Error(err)
			}
		}
		if d := cmp.Diff(r, g, unpack); d != "" {
			t.Errorf("Read and Follow differ:\n%s", d)
		}
	})
}

// Records one after another are told apart by the IDs of their runs; a resumed
// run has one record.
func TestSeveral(t *testing.T) {
	run := func(id string, argv ...string) string {
		b, err := Marshal(Run{Schema: Schema, ID: id, Kind: "sweep", Argv: argv, StartUnixNs: 1e18})
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	const a, b = `{"type":"sample","total_ns":1}` + "\n", `{"type":"sample","total_ns":2}` + "\n"
	for name, tt := range map[string]struct {
		file, id string
		want     []int64 // times of the samples; nil: an error
		says     string
	}{
		"one":                      {run("x") + a, "", []int64{1}, ""},
		"one by name":              {run("x") + a, "x", []int64{1}, ""},
		"another name":             {run("x") + a, "y", nil, `no run "y", but x (sweep of 2001-09-09 01:46:40)`},
		"resumed":                  {run("x") + a + run("x", "--resume") + b, "", []int64{1, 2}, ""},
		"resumed, of an old build": {run("x") + a + run("y", "sweep", "--resume") + b, "", []int64{1, 2}, ""},
		"two":                      {run("x") + a + run("y") + b, "", nil, "2 runs, x (sweep of"},
		"the first of two":         {run("x") + a + run("y") + b, "x", []int64{1}, ""},
		"the second of two":        {run("x") + a + run("y") + b, "y", []int64{2}, ""},
		"two, one resumed":         {run("x") + a + run("y") + b + run("x") + a, "x", []int64{1, 1}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			r, err := ReadRun(strings.NewReader(tt.file), tt.id)
			if tt.want == nil {
				if err == nil || !strings.Contains(err.Error(), tt.says) || tt.id == "" != errors.Is(err, ErrSeveral) {
					t.Fatalf("%v, want %q", err, tt.says)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			var got []int64
			for s := range r.Samples.All() {
				got = append(got, s.TotalNs)
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("samples %v, want %v", got, tt.want)
			}
		})
	}
}
