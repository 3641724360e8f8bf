package raw

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/xferbench/xferbench/internal/record"
)

func TestLadders(t *testing.T) {
	f := field{ops: 28, longest: 16 << 20, cpus: 2}
	start := setting{streams: 1, depth: 256}
	for name, c := range map[string]struct {
		ladder ladder
		best   setting
		f      field
		want   []setting
	}{
		"streams on 2 CPUs":   {streamsLadder, start, f, []setting{{2, 256, 0}, {4, 256, 0}}},
		"streams on 16 CPUs":  {streamsLadder, start, field{cpus: 16}, []setting{{2, 256, 0}, {4, 256, 0}, {8, 256, 0}, {16, 256, 0}, {32, 256, 0}}},
		"chunks":              {chunkLadder, start, f, []setting{{1, 256, 4 << 20}, {1, 256, 1 << 20}, {1, 256, 256 << 10}, {1, 256, 64 << 10}}},
		"chunks below own":    {chunkLadder, setting{1, 256, 1 << 20}, f, []setting{{1, 256, 256 << 10}, {1, 256, 64 << 10}}},
		"nothing to cut":      {chunkLadder, start, field{ops: 14000, longest: 32 << 10}, nil},
		"depths":              {depthLadder, start, field{ops: 14000, longest: 32 << 10}, []setting{{1, 64, 0}, {1, 16, 0}}},
		"depths beyond ops":   {depthLadder, start, f, []setting{{1, 16, 0}}},
		"depths of cut ops":   {depthLadder, setting{2, 4096, 1 << 20}, f, []setting{{2, 64, 1 << 20}, {2, 16, 1 << 20}}},
		"one operation alone": {depthLadder, start, field{ops: 1, longest: 1 << 30}, nil},
	} {
		if d := cmp.Diff(c.want, c.ladder(c.best, c.f), cmp.AllowUnexported(setting{})); d != "" {
			t.Errorf("%s: %s", name, d)
		}
	}
}

// A known surface: the search must climb it factor by factor, give a factor up
// after two misses, and leave alone what it may not change.
func TestSearch(t *testing.T) {
	f := field{ops: 14000, longest: 16 << 20, cpus: 8}
	start := setting{streams: 1, depth: 4096}
	cost := func(s setting) (c int) {
		c += map[int]int{1: 40, 2: 30, 4: 10, 8: 20, 16: 5}[s.streams]
		c += map[uint64]int{0: 10, 4 << 20: 12, 1 << 20: 8, 256 << 10: 9, 64 << 10: 11}[s.chunk]
		c += map[int]int{4096: 7, 1024: 8, 256: 9, 64: 1, 16: 2}[s.depth]
		return c
	}
	all := free{true, true, true}
	for name, c := range map[string]struct {
		free  free
		limit int // tries
		want  setting
		tries int
	}{
		// Streams 2, 4 kept, 8 and 16: 16 is the best, reached after one miss.
		// Chunks: 4 MiB no, 1 MiB yes, two misses. Depth: two misses, so that
		// 64, the best, is not reached.
		"all":         {all, 99, setting{16, 4096, 1 << 20}, 4 + 4 + 2},
		"no streams":  {free{false, true, true}, 99, setting{1, 4096, 1 << 20}, 4 + 2},
		"nothing":     {free{}, 99, start, 0},
		"budget ends": {all, 2, setting{4, 4096, 0}, 2},
	} {
		best, tries := start, 0
		got, err := search(start, c.free, f, func(s setting) (bool, error) {
			if tries == c.limit {
				return false, errTuneOver
			}
			tries++
			if cost(s) < cost(best) {
				best = s
				return true, nil
			}
			return false, nil
		})
		if over := errors.Is(err, errTuneOver); over != (c.limit == 2) || err != nil && !over {
			t.Errorf("%s: error %v", name, err)
		}
		if got != c.want || got != best || tries != c.tries {
			t.Errorf("%s: best %+v after %d tries, want %+v after %d", name, got, tries, c.want, c.tries)
		}
	}
}

func TestTuneText(t *testing.T) {
	for _, c := range []struct {
		line record.Tune
		want string
	}{
		{record.Tune{Provider: "tcp", Streams: 1, Depth: 256, Bytes: 3e9, TotalNs: 2e9, BestNs: 2e9, Kept: true},
			"tune tcp: begins with --streams 1 --depth 256: 1.50 GB/s"},
		{record.Tune{Provider: "tcp", Step: 1, Streams: 2, Depth: 256, Bytes: 3e9, TotalNs: 1e9, BestNs: 2e9, Kept: true},
			"tune tcp: --streams 2 --depth 256: 3.00 GB/s, 0.500 of the best's time, kept"},
		{record.Tune{Provider: "socket", Step: 2, Streams: 4, Bytes: 3e9, TotalNs: 2e9, BestNs: 1e9},
			"tune socket: --streams 4: 1.50 GB/s, 2.00 of the best's time, not better"},
		{record.Tune{Provider: "efa", Step: 3, Streams: 64, Depth: 16, Chunk: 1 << 20, Error: "no queue pair is left"},
			"tune efa: --streams 64 --depth 16 --chunk 1MiB cannot be run: no queue pair is left"},
		{record.Tune{Provider: "tcp", Step: 4, Flags: "--streams 2 --depth 256", Note: "the budget ended the search"},
			"tune tcp: best is --streams 2 --depth 256; the budget ended the search"},
	} {
		if got := TuneText(c.line); got != c.want {
			t.Errorf("got  %s\nwant %s", got, c.want)
		}
	}
}
