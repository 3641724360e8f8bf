package pool

import (
	"errors"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestPredictorAgreesWithTheModelInPython(t *testing.T) {
	data, err := os.ReadFile("testdata/expected.txt")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(data)) {
		args, want, _ := strings.Cut(strings.TrimSpace(line), " : ")
		t.Run(args, func(t *testing.T) {
			f := strings.Fields(args)
			num := func(i int) int {
				n, err := strconv.Atoi(f[i])
				if err != nil {
					t.Fatal(err)
				}
				return n
			}
			p, err := NewPredictor(Config{PrefillBlocks: num(0), DecodeBlocks: num(1), Order: Order(f[4]), Caching: num(5) == 1, Regions: num(7), BlockTokens: 16})
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for range num(6) {
				n, err := p.Next(num(2), num(3))
				if err != nil {
					t.Fatal(err)
				}
				got = append(got, strconv.Itoa(n))
			}
			if diff := cmp.Diff(strings.Fields(want), got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestRuns(t *testing.T) {
	tests := map[string]struct {
		local, remote []int
		want          []Run
	}{
		"none":             {nil, nil, nil},
		"all adjacent":     {[]int{4, 5, 6}, []int{1, 2, 3}, []Run{{4, 1, 3}}},
		"remote jumps":     {[]int{4, 5, 6}, []int{1, 2, 9}, []Run{{4, 1, 2}, {6, 9, 1}}},
		"descending":       {[]int{6, 5, 4}, []int{3, 2, 1}, []Run{{6, 3, 1}, {5, 2, 1}, {4, 1, 1}}},
		"opposite":         {[]int{4, 5}, []int{2, 1}, []Run{{4, 2, 1}, {5, 1, 1}}},
		"two runs of two":  {[]int{1, 2, 7, 8}, []int{1, 2, 3, 4}, []Run{{1, 1, 2}, {7, 3, 2}}},
		"equal is no step": {[]int{4, 4}, []int{1, 1}, []Run{{4, 1, 1}, {4, 1, 1}}},
	}
	for name, tt := range tests {
		if diff := cmp.Diff(tt.want, Runs(tt.local, tt.remote)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func TestLapIndex(t *testing.T) {
	for _, tt := range []struct{ blocks, per, want int }{
		{8500, 500, 16}, {8501, 500, 17}, {4300, 250, 17}, {100, 100, 0}, {101, 100, 1}, {1, 1, 0}, {10, 0, 0},
	} {
		if got := LapIndex(tt.blocks, tt.per); got != tt.want {
			t.Errorf("LapIndex(%d, %d) = %d, want %d", tt.blocks, tt.per, got, tt.want)
		}
	}
}

// A pool neither loses nor doubles a block, whatever is asked of it.
func FuzzPool(f *testing.F) {
	f.Add([]byte{3, 1, 200, 7}, true, true)
	f.Fuzz(func(t *testing.T, steps []byte, lifo, caching bool) {
		order := FIFO
		if lifo {
			order = LIFO
		}
		const blocks = 20
		p, err := NewPool(blocks, order, caching)
		if err != nil {
			t.Fatal(err)
		}
		held := map[int]bool{}
		var requests [][]int
		for _, s := range steps {
			if s >= 128 && len(requests) > 0 {
				i := int(s) % len(requests)
				p.Free(requests[i], int(s)%3)
				for _, b := range requests[i] {
					delete(held, b)
				}
				requests = append(requests[:i], requests[i+1:]...)
				continue
			}
			k := int(s) % 25
			got, err := p.Alloc(k)
			if (err != nil) != (k > blocks-1-len(held)) || err != nil && !errors.Is(err, ErrFull) {
				t.Fatalf("%d of %d: %v", k, blocks-1-len(held), err)
			}
			for _, b := range got {
				if b < 1 || b >= blocks || held[b] {
					t.Fatalf("block %d handed out; held %v", b, held)
				}
				held[b] = true
			}
			if len(got) > 0 {
				requests = append(requests, got)
			}
		}
		if p.Available() != blocks-1-len(held) {
			t.Fatalf("%d free, want %d", p.Available(), blocks-1-len(held))
		}
	})
}

// Layer groups share one pool. By hand: a prompt of 4 blocks in two groups, of which
// the last 2 of the windowed group cross.
func TestPredictorOfGroups(t *testing.T) {
	for order, want := range map[Order][]int{
		// Prefill 1-4 and 5-8, sent 3-4 and 5-8; decode 1-2 and 3-6: one run. With both
		// pools in order, the next requests lie like it until a free list wraps.
		FIFO: {1, 6},
		// Prefill then has 8-5 and 4-1, sent 6-5 and 4-1; decode 6-5 and 4-1: no neighbours.
		LIFO: {1, 6},
	} {
		blocks := 9
		if order == LIFO {
			blocks = 100
		}
		p, err := NewPredictor(Config{PrefillBlocks: blocks, DecodeBlocks: blocks, Order: order, Regions: 3, BlockTokens: 16, Groups: []int{2, 4}})
		if err != nil {
			t.Fatal(err)
		}
		for i, runs := range want {
			if got, err := p.Next(64, 1); err != nil || got != 3*runs {
				t.Errorf("%s, request %d: %d descriptors, %v; want %d", order, i+1, got, err, 3*runs)
			}
		}
	}
	if _, err := NewPredictor(Config{PrefillBlocks: 9, DecodeBlocks: 9, Order: LIFO, Regions: 1, BlockTokens: 16}); err != nil {
		t.Fatal(err)
	}
	p, _ := NewPredictor(Config{PrefillBlocks: 9, DecodeBlocks: 9, Order: LIFO, Regions: 1, BlockTokens: 16, Groups: []int{5}})
	if n, err := p.Next(64, 1); err == nil {
		t.Errorf("%d descriptors, where more blocks cross than there are", n)
	}
}
