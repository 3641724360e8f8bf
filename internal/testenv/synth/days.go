package synth

import (
	"bytes"
	"fmt"
	"slices"

	"github.com/xferbench/xferbench/internal/kv"
	"github.com/xferbench/xferbench/internal/record"
)

const day = 24 * 3600 * int64(1e9)

// MakeTTFTOfFriday returns the TTFT record of another day: MakeTTFT with another
// seed, of which every transfer of the pair takes 60 ms longer, one of the pair's
// requests in eight does not count, and the run began four days later.
func MakeTTFTOfFriday(name string, seed uint64, blocks, iters, tokens int, size int64) ([]byte, error) {
	file, err := MakeTTFT(name, seed, blocks, iters, tokens, size)
	if err != nil {
		return nil, err
	}
	const late = 60_000_000
	var lines []record.Line
	for line := range bytes.Lines(file) {
		l, err := record.Parse(bytes.TrimSpace(line))
		if err != nil {
			return nil, err
		}
		switch x := l.(type) {
		case record.Run:
			x.StartUnixNs += 4 * day
			l = x
		case record.End:
			x.EndUnixNs += 4 * day
			l = x
		case record.Request:
			if x.Moved != nil {
				x.TTFTNs, x.E2ENs = x.TTFTNs+late, x.E2ENs+late
				x.Split.DecodeQueue, x.Moved.XferNs = x.Split.DecodeQueue+late, x.Moved.XferNs+late
				if x.Batch%12 == 5 {
					x.Valid, x.Reason, x.Detail = false, record.ReasonLocalRecompute, "made up"
				}
			}
			l = x
		}
		lines = append(lines, l)
	}
	return encode(lines)
}

// others are the records in testdata/records/compare, which are held against those
// beside them; report's goldens leave them out.
func others(out map[string][]byte) error {
	var err error
	for _, s := range append(days(), broken()...) {
		if out["compare/"+s.Name+".jsonl"], err = s.Make(); err != nil {
			return err
		}
	}
	out["compare/ttft-friday.jsonl"], err = MakeTTFTOfFriday("ttft-friday", 22, 8, 3, 7648, 438_566_912)
	return err
}

// broken are runs that did not end in order.
func broken() []Spec {
	lost := full()[:3]
	lost[0].Truth.NsPerByte *= 1.4
	var out []Spec
	for i, s := range []Spec{
		{Name: "cut-off", Cells: full()},
		{Name: "interrupted", Cells: full(), End: &record.End{Status: record.StatusInterrupted, Error: "interrupted", ExitCode: 130, EndUnixNs: startNs + 20e9}},
		{Name: "failed-run", Cells: lost, End: &record.End{Status: record.StatusFailed, Error: "ucx:tcp: the peer has gone", ExitCode: 3, EndUnixNs: startNs + 20e9}},
	} {
		s.Kind, s.Seed, s.Argv, s.Hosts, s.Blocks, s.Iters = "raw", 16+uint64(i), argv, 1, 8, 2
		out = append(out, s)
	}
	return out
}

// days are records of five days for a history: tcp gets slower by 4 % a day from the
// third day on, ucx:tcp stays, and each run is of six launches.
func days() []Spec {
	var out []Spec
	for d := range 5 {
		tcp, ucx := truths["tcp"], truths["ucx:tcp"]
		tcp.NsPerByte *= 1 + 0.04*float64(max(0, d-1))
		cells := []Cell{
			{KV("tcp", "read", kv.Merged, 1, 64_000_000), tcp},
			{KV("ucx:tcp", "read", kv.Merged, 1, 64_000_000), ucx},
			{KV("socket", "read", kv.Merged, 1, 64_000_000), truths["socket"]},
		}
		out = append(out, Spec{Name: fmt.Sprintf("day%d", d+1), Seed: 30 + uint64(d), Kind: "raw", Argv: append(slices.Clone(argv), "--launches", "6"), Hosts: 1,
			Blocks: 2, Iters: 2, Launches: 6, Cells: cells, End: &record.End{Status: record.StatusOK, EndUnixNs: startNs + 30e9}, Later: int64(d) * day})
	}
	return out
}
