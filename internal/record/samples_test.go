package record

import (
	"bytes"
	"encoding/json"
	"math"
	"math/rand/v2"
	"reflect"
	"runtime"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestSamplesArePackedAndUnpacked(t *testing.T) {
	yes, no := true, false
	want := []Sample{
		{},
		{Condition: 1, Launch: 2, Block: 3, Order: 4, Iteration: 5, Phase: PhaseMeasure, BeginNs: 6, PostNs: 7, LocalNs: 8, TotalNs: 9, Bytes: 10, Ops: 11,
			EAgain: 12, Polls: 13, Verified: &yes, CPUNs: 14, PeerCPUNs: 15, Simulated: true},
		{Condition: math.MinInt, Block: -1, Iteration: math.MaxInt, Phase: PhaseWarmup, BeginNs: math.MinInt64, LocalNs: math.MaxInt64, TotalNs: math.MinInt64,
			Bytes: math.MaxUint64, Polls: math.MaxUint64, Verified: &no},
		{Phase: "a phase of a later version", TotalNs: math.MaxInt64, LocalNs: math.MinInt64, Simulated: true},
		{Phase: "a phase of a later version"},
		{Phase: PhaseMeasure, Verified: &yes},
	}
	s := PackSamples(want...)
	if d := cmp.Diff(want, slices.Collect(s.All())); d != "" || s.Len() != len(want) {
		t.Errorf("%d of %d samples: %s", s.Len(), len(want), d)
	}
	for x := range s.All() { // one that stops early
		if x.Phase != "" {
			t.Errorf("the first is %+v", x)
		}
		break
	}
	empty := Samples{}
	if empty.Len() != 0 || len(slices.Collect(empty.All())) != 0 {
		t.Error("the zero value is not empty")
	}
}

// Every field of a sample is packed: each is set alone to something, and comes back.
func TestEveryFieldOfASampleIsPacked(t *testing.T) {
	for f := range reflect.TypeFor[Sample]().Fields() {
		var x Sample
		v := reflect.ValueOf(&x).Elem().FieldByIndex(f.Index)
		switch {
		case v.CanInt():
			v.SetInt(7)
		case v.CanUint():
			v.SetUint(7)
		case v.Kind() == reflect.Bool:
			v.SetBool(true)
		case v.Kind() == reflect.String:
			v.SetString("seven")
		case v.Kind() == reflect.Pointer:
			v.Set(reflect.New(v.Type().Elem()))
		}
		s := PackSamples(x)
		if got := slices.Collect(s.All())[0]; reflect.ValueOf(x).IsZero() || !reflect.DeepEqual(x, got) {
			t.Errorf("%s: %+v came back as %+v", f.Name, x, got)
		}
	}
}

// What a sample of a record may take: 10^6 of them are read by a report of at most
// 300 MB, of which the analysis and what the collector has yet to free are the larger
// part.
const (
	keptBytes      = 32   // of memory
	allocatedBytes = 1200 // while its line is read: 472, and 940 under -race, which drops what is pooled
)

// The times are a seeded generator's around 300 ms, in batches of 100.
func TestSampleTakesLittleMemory(t *testing.T) {
	const n = 20_000
	rng := rand.New(rand.NewPCG(1, 2))
	yes := true
	var text bytes.Buffer
	w := NewWriter(&text)
	write(t, w, Run{Schema: Schema, ID: "x"})
	now := int64(0)
	for i := range n {
		total := 300_000_000 + int64(rng.NormFloat64()*9e6)
		write(t, w, Sample{Condition: i / 100 % 4, Block: i / 400, Order: i / 100 % 4, Iteration: i % 100, Phase: PhaseMeasure, BeginNs: now, PostNs: total / 300, LocalNs: total,
			TotalNs: total, Bytes: 438_566_912, Ops: 13384, EAgain: uint64(rng.IntN(20)), Polls: uint64(total / 900), Verified: &yes, CPUNs: int64(i/100) * 1000, PeerCPUNs: int64(i/100) * 900})
		now += total + 50_000
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	r, err := Read(&text)
	runtime.ReadMemStats(&after)
	if err != nil || r.Samples.Len() != n {
		t.Fatalf("%d samples, %v", r.Samples.Len(), err)
	}
	if got := float64(cap(r.Samples.packed)) / n; got > keptBytes {
		t.Errorf("a sample takes %.1f bytes, want at most %d", got, keptBytes)
	}
	if got := float64(after.TotalAlloc-before.TotalAlloc) / n; got > allocatedBytes {
		t.Errorf("reading a sample allocates %.1f bytes, want at most %d", got, allocatedBytes)
	}
}

func BenchmarkReadSamples(b *testing.B) {
	var text bytes.Buffer
	w := NewWriter(&text)
	yes := true
	ls := []Line{Run{Schema: Schema, ID: "x"}, Condition{ID: 1, Bytes: 438_566_912}}
	for i := range 1000 {
		ls = append(ls, Sample{Condition: 1, Iteration: i, Phase: PhaseMeasure, BeginNs: int64(i) * 300_000_000, PostNs: 1_160_000, LocalNs: 300_123_456, TotalNs: 300_123_456,
			Bytes: 438_566_912, Ops: 13384, EAgain: 19, Polls: 333_000, Verified: &yes, CPUNs: 180_000_000, PeerCPUNs: 150_000_000})
	}
	for _, l := range ls {
		if err := w.Write(l); err != nil {
			b.Fatal(err)
		}
	}
	b.SetBytes(int64(text.Len()))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Read(bytes.NewReader(text.Bytes())); err != nil {
			b.Fatal(err)
		}
	}
}

// slow is Parse by encoding/json alone.
func slow[T any](t *testing.T, line []byte) {
	t.Helper()
	var want, got T
	werr, gerr := json.Unmarshal(line, &want), decode(line, &got)
	if (werr == nil) != (gerr == nil) || werr != nil && werr.Error() != gerr.Error() {
		t.Fatalf("%T: error %v, encoding/json has %v", got, gerr, werr)
	}
	if werr == nil && !reflect.DeepEqual(want, got) {
		t.Fatalf("%T: %+v, encoding/json has %+v", got, got, want)
	}
}

// What the fast decoder reads is what encoding/json reads.
func FuzzDecode(f *testing.F) {
	for _, l := range lines() {
		b, err := Marshal(l)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	for _, s := range []string{
		`{"type":"sample","block":1e3,"bytes":-0,"polls":18446744073709551616,"x":{"a":[1,2,{}]},"verified":null}`, `{"phase":"\ud800\u00e9","PHASE":"x"}`,
		"{\"phase\":\"a\xff\"}", "{\"phase\":\"a\nb\"}", `{"block":01}`, `{"block":1}x`, `{"block":1,}`, `{"x":01}`, `{"block":"1"}`, `null`, `[]`, `{"block":1,"block":2}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		slow[Run](t, line)
		slow[Condition](t, line)
		slow[Cold](t, line)
		slow[Sample](t, line)
		slow[struct {
			Type string `json:"type"`
			Sample
		}](t, line)
		slow[Path](t, line)
		slow[Summary](t, line)
		slow[Comparison](t, line)
		slow[Event](t, line)
		slow[Tune](t, line)
		slow[Request](t, line)
		slow[End](t, line)
	})
}
