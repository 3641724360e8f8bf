package synth

import (
	"bytes"
	"fmt"
	"math"
	"math/rand/v2"

	"github.com/xferbench/xferbench/internal/kv"
	"github.com/xferbench/xferbench/internal/record"
	"github.com/xferbench/xferbench/internal/stats"
)

// MakeTTFT returns a synthetic record of a TTFT run: a unified engine and a pair
// whose KV cache of bytes moves, one request in flight, in randomised blocks.
// The truth, in ms: prefill 420, one token 9, network 3, unified in all 432;
// the pair hands over in 4 and waits 330 for a transfer of 300.
func MakeTTFT(name string, seed uint64, blocks, iters, tokens int, bytes int64) ([]byte, error) {
	rng := rand.New(rand.NewPCG(seed, 0x77f7))
	noisy := func(ms, effect float64) int64 {
		return int64(ms * 1e6 * effect * (1 + 0.02*math.Abs(rng.NormFloat64())))
	}
	a, b := host("synthetic-a"), host("synthetic-a")
	lines := []record.Line{record.Run{
		Schema: record.Schema, ID: name, Kind: "ttft", StartUnixNs: startNs + 3600e9, ToolVersion: "0.1.0", ToolCommit: "synthetic",
		Argv: []string{"xferbench", "ttft", "--arm", "…"}, Seed: seed, Host: a, Peer: &b, Env: map[string]string{"XFERBENCH_NOTE": Note},
		Design: &record.Design{Blocks: blocks, MinBlocks: 6, Order: "random"},
	}}
	arms := []string{"unified", "ucx-pair"}
	for i, arm := range arms {
		c := record.Condition{ID: i, Name: fmt.Sprintf("%s %d tokens c1", arm, tokens), Provider: arm, API: "http", Op: "ttft", Model: "synthetic", Tokens: int64(tokens), Block: 16}
		c.Asked, c.Bytes = uint64(bytes), uint64(bytes)
		if i > 0 {
			c.Serving = &record.Serving{Connector: "NixlConnector", Backend: "UCX", Provider: "ucx:tcp", Op: "read", KVModel: kv.DefaultModel,
				PrefillHosts: []string{"synthetic-a"}, DecodeHosts: []string{"synthetic-a"}}
		}
		lines = append(lines, c)
	}
	now, batch := int64(1e9), 0
	seq := make([]int, len(arms))
	for blk := range blocks {
		for place, i := range stats.Order(seed, blk, len(arms)) {
			effect := math.Exp(0.01 * rng.NormFloat64())
			for range iters {
				s := &record.Split{Prefill: noisy(420, effect), Network: noisy(3, 1), Engine: true}
				l := record.Request{
					Condition: i, Arm: arms[i], Mode: record.ModeUnified, Path: record.PathUnified, Block: blk, Order: place, Iteration: seq[i], Sequence: seq[i],
					Phase: record.PhaseMeasure, Batch: batch, RequestID: fmt.Sprintf("synthetic-%d", batch), PromptTokens: tokens, MaxTokens: 2, Completion: 2,
					Load: record.LoadClosed, Concurrency: 1, IntendedAtNs: now, BeginAtNs: now, ConnReused: true, Valid: true, Proof: record.ProofSample, BlockTokens: 16,
				}
				if i == 0 {
					s.OneToken = noisy(9, effect)
				} else {
					l.Mode, l.Path = record.ModeDisaggregated, record.PathTwoLeg
					s.HandOver, s.OneToken = noisy(4, 1), noisy(9, effect)
					xfer := noisy(300, effect)
					s.DecodeQueue = xfer + noisy(30, 1)
					l.Moved = &record.Moved{Scope: record.ProofSample, Transfers: 1, Bytes: bytes, Descriptors: 28, XferNs: xfer, PostNs: noisy(1.5, 1)}
				}
				l.Split = s
				l.TTFTNs = s.Wait + s.Prefill + s.HandOver + s.DecodeQueue + s.OneToken + s.Network
				l.E2ENs = l.TTFTNs + noisy(9, 1)
				l.ITLNs = []int64{l.E2ENs - l.TTFTNs}
				lines = append(lines, l)
				now += l.E2ENs + 20_000_000
				seq[i]++
				batch++
			}
		}
	}
	lines = append(lines, record.End{Status: record.StatusOK, EndUnixNs: startNs + 3700e9})
	return encode(lines)
}

func encode(lines []record.Line) ([]byte, error) {
	var buf bytes.Buffer
	w := record.NewWriter(&buf)
	for _, l := range lines {
		if err := w.Write(l); err != nil {
			return nil, err
		}
	}
	return buf.Bytes(), nil
}

// MakeLap returns the record of a TTFT run whose arms' block pools wrap around at
// request 17, where the second arm loses 20 ms. Its fourth request is invalid.
func MakeLap(arms []string, blocks, each int, load string, concurrency int) *record.Record {
	rng := rand.New(rand.NewPCG(1, 2))
	rec := &record.Record{Run: record.Run{Schema: record.Schema, ID: "lap", Kind: "ttft", StartUnixNs: startNs, ToolVersion: "0.1.0", ToolCommit: "synthetic", Seed: 1, Host: host("synthetic-a"), Env: map[string]string{"XFERBENCH_NOTE": Note}}, End: &record.End{Status: record.StatusOK}}
	for i, arm := range arms {
		rec.Conditions = append(rec.Conditions, record.Condition{ID: i, Name: arm + " 8000 tokens", Provider: arm, Tokens: 8000})
		seq := 0
		for block := range blocks {
			for range each {
				transfer := 40e6 + rng.Float64()*1e6
				descs := int64(56)
				if seq >= 16 {
					descs = 28_000
					if i == 1 {
						transfer += 20e6
					}
				}
				l := record.Request{Condition: i, Arm: arm, Mode: record.ModeDisaggregated, Path: record.PathTwoLeg, Block: block, Iteration: seq, Sequence: seq, Phase: record.PhaseMeasure,
					Batch: i*1000 + seq, PromptTokens: 8000, MaxTokens: 2, Completion: 2, Load: load, Concurrency: concurrency, ConnReused: true, Valid: true, Proof: record.ProofSample,
					PoolBlocks: 8500, BlockTokens: 16, ITLNs: []int64{8e6},
					Split: &record.Split{Wait: 10e3, Prefill: 300e6, HandOver: 100e3, DecodeQueue: int64(transfer) + 2e6, OneToken: 9e6, Network: 3e6, Engine: true},
					Moved: &record.Moved{Scope: record.ProofSample, Transfers: 1, Bytes: 458_752_000, Descriptors: descs, XferNs: int64(transfer), PostNs: 3e6}}
				s := l.Split
				l.TTFTNs = s.Wait + s.Prefill + s.HandOver + s.DecodeQueue + s.OneToken + s.Network
				l.E2ENs = l.TTFTNs + 8e6
				if i == 1 && seq == 3 {
					l.Valid, l.Reason, l.Detail = false, record.ReasonLocalRecompute, "made up"
				}
				rec.Requests = append(rec.Requests, l)
				seq++
			}
		}
	}
	return rec
}
