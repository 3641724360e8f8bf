package raw

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/xferbench/xferbench/cgo/loop"
	"github.com/xferbench/xferbench/internal/fault"
	"github.com/xferbench/xferbench/internal/spec"
	"github.com/xferbench/xferbench/internal/transport"
)

// small is a completed spec of one condition, changed.
func small(t *testing.T, change ...func(*spec.Spec)) *spec.Spec {
	t.Helper()
	s := spec.Default(spec.Sweep)
	s.Raw.Size, s.Raw.Shape, s.Raw.NoCeiling = spec.Sizes{1 << 20}, spec.List[string]{"contiguous"}, true
	for _, c := range change {
		c(s)
	}
	if err := s.Complete(); err != nil {
		t.Fatal(err)
	}
	return s
}

func planOf(t *testing.T, change ...func(*spec.Spec)) *Plan {
	t.Helper()
	p, err := NewPlan(small(t, change...))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// Each factor makes transports of its own, each with a label that tells it apart;
// one with a single value is in no label.
func TestFactors(t *testing.T) {
	type r = spec.RawWorkload
	for name, tt := range map[string]struct {
		change func(*r)
		labels []string
		config func(transport.Config) any // of each transport
		want   []any
	}{
		"one of each":    {func(w *r) { w.Streams, w.Chunk = []int{4}, []int64{4096} }, []string{"tcp"}, func(c transport.Config) any { return [2]uint64{uint64(c.Streams), c.Chunk} }, []any{[2]uint64{4, 4096}}},
		"streams":        {func(w *r) { w.Streams = []int{1, 4} }, []string{"tcp s=1", "tcp s=4"}, func(c transport.Config) any { return c.Streams }, []any{1, 4}},
		"twice the same": {func(w *r) { w.Streams = []int{4, 4} }, []string{"tcp"}, func(c transport.Config) any { return c.Streams }, []any{4}},
		"depth and chunk": {func(w *r) { w.Depth, w.Chunk = []int{8, 16}, []int64{0, 1 << 20} },
			[]string{"tcp d=8 c=0", "tcp d=8 c=1MiB", "tcp d=16 c=0", "tcp d=16 c=1MiB"},
			func(c transport.Config) any { return [2]uint64{uint64(c.Depth), c.Chunk} }, []any{[2]uint64{8, 0}, [2]uint64{8, 1 << 20}, [2]uint64{16, 0}, [2]uint64{16, 1 << 20}}},
		"rails": {func(w *r) { w.Rails = []int{1, 2} }, []string{"tcp r=1", "tcp r=2"}, func(c transport.Config) any { return c.Rails }, []any{1, 2}},
		"poll":  {func(w *r) { w.Poll = []string{"spin", "yield"} }, []string{"tcp poll=spin", "tcp poll=yield"}, func(c transport.Config) any { return c.Poll }, []any{loop.Spin, loop.Yield}},
		"a setting of its library": {func(w *r) { w.Set = spec.Settings{"write-landing": {"dc", "count"}} },
			[]string{"tcp write-landing=dc", "tcp write-landing=count"}, func(c transport.Config) any { return c.Options["write-landing"] }, []any{"dc", "count"}},
		"a setting of another": {func(w *r) { w.UCXConfig = spec.Settings{"TLS": {"a", "b"}} }, []string{"tcp"}, func(c transport.Config) any { return len(c.Options) }, []any{0}},
		"UCX's, with its prefix": {func(w *r) {
			w.Provider, w.UCXConfig = []string{"ucx:tcp+self"}, spec.Settings{"UCX_RNDV_THRESH": {"1k", "8k"}}
		},
			[]string{"ucx:tcp+self UCX_RNDV_THRESH=1k", "ucx:tcp+self UCX_RNDV_THRESH=8k"},
			func(c transport.Config) any { return c.Provider + " " + c.Options["RNDV_THRESH"] }, []any{"ucx:tcp,self 1k", "ucx:tcp,self 8k"}},
		"A/A":    {func(w *r) { w.Provider = []string{"tcp", "tcp"} }, []string{"tcp", "tcp#2"}, func(c transport.Config) any { return c.Provider }, []any{"tcp", "tcp"}},
		"memory": {func(w *r) { w.Memory = []string{"host", "host-huge"} }, []string{"tcp m=host", "tcp m=host-huge"}, func(c transport.Config) any { return c.Device }, []any{-1, -1}},
		"memory of both sides": {func(w *r) { w.Memory, w.PeerMemory = []string{"host", "cuda:1"}, []string{"host"} }, []string{"tcp m=host", "tcp m=cuda:1-host"},
			func(c transport.Config) any { return c.Device }, []any{-1, 1}},
		"addresses": {func(w *r) { w.Provider = []string{"tcp@127.0.0.1+127.0.0.2"} }, []string{"tcp@127.0.0.1+127.0.0.2"}, func(c transport.Config) any { return strings.Join(c.Bind, " ") }, []any{"127.0.0.1 127.0.0.2"}},
	} {
		t.Run(name, func(t *testing.T) {
			p := planOf(t, func(s *spec.Spec) { tt.change(s.Raw) })
			if d := cmp.Diff(tt.labels, p.labels); d != "" {
				t.Error(d)
			}
			var got []any
			for _, c := range p.transports {
				got = append(got, tt.config(c))
			}
			if d := cmp.Diff(tt.want, got); d != "" {
				t.Error(d)
			}
		})
	}
}

// Ceilings stand beside what was asked for, once for each size and memory, in their
// best shape and with none of the factors.
func TestCeilings(t *testing.T) {
	p := planOf(t, func(s *spec.Spec) {
		r := s.Raw
		r.NoCeiling, r.Streams, r.Shape, r.Op = false, []int{1, 2}, []string{"merged", "fragmented"}, []string{"read", "write"}
		r.Memory = []string{"host", "cuda"}
	})
	var got []string
	for i, c := range p.cells {
		if c.ceiling {
			got = append(got, p.labels[c.transport]+" "+p.Cells()[i].Shape+" "+c.move.Op.String())
		}
	}
	want := []string{"memcpy m=host contiguous read", "memcpy m=cuda contiguous read", "socket m=host contiguous read"}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if n := len(p.cells) - len(got); n != 2*2*2*2 {
		t.Errorf("%d conditions, want 2 memories x 2 streams x 2 operations x 2 shapes", n)
	}
	named := planOf(t, func(s *spec.Spec) { s.Raw.NoCeiling, s.Raw.Provider = false, []string{"tcp", "memcpy"} })
	if d := cmp.Diff([]string{"socket", "tcp", "memcpy"}, named.labels); d != "" {
		t.Error(d)
	}
}

// Sizes that round up to the same KV blocks are one condition.
func TestMoves(t *testing.T) {
	p := planOf(t, func(s *spec.Spec) {
		s.Raw.Shape, s.Raw.Size, s.Raw.Tokens = []string{"merged"}, []int64{1, 917_504, 917_505}, []int64{16}
	})
	got := p.Cells()
	if len(got) != 2 || got[0].Bytes != 917_504 || got[1].Bytes != 2*917_504 || got[0].Descriptors != 28 || got[0].Tokens != 16 {
		t.Errorf("%+v, want one and two KV blocks", got)
	}
	p = planOf(t, func(s *spec.Spec) { s.Raw.Descriptors = []int{1, 64} })
	if got := p.Cells(); len(got) != 2 || got[1].Descriptors != 64 || got[1].Bytes != 1<<20 || got[1].Shape != "contiguous" {
		t.Errorf("%+v, want the same bytes in 1 and 64 descriptors", got)
	}
}

func TestPlanRefuses(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(*spec.Spec)
		want   string
	}{
		"no provider":      {func(s *spec.Spec) { s.Raw.Provider = nil }, "--provider: name at least one"},
		"unknown provider": {func(s *spec.Spec) { s.Raw.Provider = []string{"nosuch"} }, "--provider"},
		"a sentence":       {func(s *spec.Spec) { s.Raw.Provider = []string{"tcp ucx"} }, `"tcp ucx" is not a provider`},
		"operation":        {func(s *spec.Spec) { s.Raw.Op = []string{"pull"} }, "--op"},
		"no memory":        {func(s *spec.Spec) { s.Raw.Memory = nil }, "--memory: name"},
		"memory":           {func(s *spec.Spec) { s.Raw.PeerMemory = []string{"vram"} }, `--memory "vram"`},
		"device":           {func(s *spec.Spec) { s.Raw.Memory = []string{"cuda:x"} }, `"x" is not a device number`},
		"poll":             {func(s *spec.Spec) { s.Raw.Poll = []string{"maybe"} }, "want auto, spin or yield"},
		"two libraries":    {func(s *spec.Spec) { s.Raw.Libfabric = []string{"/a", "/b"} }, "a process loads one build"},
		"empty setting":    {func(s *spec.Spec) { s.Raw.Set = spec.Settings{"a": nil} }, "it needs a name and a value"},
		"address":          {func(s *spec.Spec) { s.Hosts.Bind = []string{"eth0"} }, "--bind eth0: want IP addresses"},
		"peer":             {func(s *spec.Spec) { s.Hosts.Peer = "node2" }, "node2"},
		"secret":           {func(s *spec.Spec) { s.Hosts.Peer, s.Hosts.SecretFile = "node2", "/does/not/exist" }, "--secret-file"},
		"blocks":           {func(s *spec.Spec) { n := 0; s.Design.Blocks, s.Design.MinBlocks = &n, &n }, "--blocks 0"},
		"launches":         {func(s *spec.Spec) { s.Design.Launches = 0 }, "--launches 0"},
		"pieces":           {func(s *spec.Spec) { s.Raw.Size, s.Raw.Chunk = []int64{1 << 40}, []int64{1} }, "operations"},
		"reuse":            {func(s *spec.Spec) { s.Raw.Reuse = true }, "--reuse leaves nothing to check"},
		"tune a factor":    {func(s *spec.Spec) { s.Raw.Tune, s.Raw.Chunk = true, []int64{1, 2} }, "--tune chooses"},
		"tune launches":    {func(s *spec.Spec) { s.Raw.Tune, s.Design.Launches = true, 2 }, "--tune does not go with --launches"},
	} {
		if _, err := NewPlan(small(t, tt.change)); fault.KindOf(err) != fault.Usage || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want a usage error with %q", name, err, tt.want)
		}
	}
}

// The peer's token comes from the line, or from a file that both sides share.
func TestReach(t *testing.T) {
	file := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(file, []byte("sixteen bytes or more"), 0o600); err != nil {
		t.Fatal(err)
	}
	w, err := reach(spec.Hosts{Peer: "node2:9", SecretFile: file})
	if err != nil || w.address != "node2:9" || w.ssh != nil {
		t.Errorf("%+v, %v", w, err)
	}
	w, err = reach(spec.Hosts{Peer: "ssh://u@node2:22", PeerProgram: "/x", SSHCommand: "ssh -v", PushBinary: true})
	if err != nil || w.ssh == nil || w.ssh.Program != "/x" || w.ssh.SSH != "ssh -v" || !w.ssh.Push {
		t.Errorf("%+v, %v", w, err)
	}
}

// Two kinds of memory are two buffers on each side, and the first is refused where
// there is no room for both.
func TestSize(t *testing.T) {
	p := planOf(t, func(s *spec.Spec) { s.Raw.Memory = []string{"host", "cuda-host"} })
	if err := p.size(true); err != nil {
		t.Fatal(err)
	}
	const n = 1 << 20
	a, b := p.memories[0], p.memories[1]
	if a.local.Bytes != n || b.peer.Bytes != n || a.local.Buffer != 0 || b.local.Buffer != 1 || b.peer.Buffer != 1 {
		t.Errorf("%+v", p.memories)
	}
	if a.local.More != n || a.local.Others != 2*n || a.peer.More != n || a.peer.Others != 2*n {
		t.Errorf("the first asks for %+v and %+v, want one more of its own and two of the other side", a.local, a.peer)
	}
}
