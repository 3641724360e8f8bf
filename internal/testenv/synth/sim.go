package synth

import (
	"math"
	"math/rand/v2"

	"github.com/xferbench/xferbench/internal/kv"
	"github.com/xferbench/xferbench/internal/record"
	"github.com/xferbench/xferbench/internal/stats"
)

// SimTruth is what a run of simulated engines takes, in ns, by the formula of package
// serving/sim: the unified engine's first token takes Prefill + Network; the pair's
// takes Prefill + HandOver + Transfer + Delay + Notice + Step + Network.
type SimTruth struct {
	Prefill, HandOver, Step, Network float64
	// Memory and Socket are what the bytes take on the ceilings, Transfer over the
	// engines' transport, and Delay is added to each transfer.
	Memory, Socket, Transfer, Delay float64
	// Notice is from the transfer's end until the engine sees it.
	Notice float64
}

// MakeSim returns a raw record and one of simulated engines, with noise of blocks
// and requests that leaves the medians where t has them.
func MakeSim(seed uint64, t SimTruth, blocks, iters int) (raw, tt *record.Record) {
	rng := rand.New(rand.NewPCG(seed, 0x51b))
	const tokens, bytes = 7648, 438_566_912
	env := map[string]string{"XFERBENCH_NOTE": Note}
	block := func() float64 { return math.Exp(0.02 * rng.NormFloat64()) }
	noisy := func(ns, effect float64) int64 { return int64(ns * effect * (1 + 0.02*rng.NormFloat64())) }

	raw = &record.Record{Run: record.Run{Schema: record.Schema, ID: "raw", Kind: "raw", Seed: seed, Host: host("synthetic-a"), Env: env}, End: &record.End{Status: record.StatusOK}}
	times := []float64{t.Memory, t.Socket, t.Transfer}
	for i, p := range []string{"memcpy", "socket", "tcp"} {
		c := KV(p, "read", kv.Merged, 1, bytes)
		c.ID = i
		raw.Conditions = append(raw.Conditions, c)
	}
	for b := range blocks {
		for place, i := range stats.Order(seed, b, len(times)) {
			for k, effect := 0, block(); k < iters; k++ {
				ns := noisy(times[i], effect)
				raw.Samples.Add(record.Sample{Condition: i, Block: b, Order: place, Iteration: k, Phase: record.PhaseMeasure, BeginNs: int64(raw.Samples.Len()) * 1e9,
					TotalNs: ns, LocalNs: ns, Bytes: bytes, Simulated: false})
			}
		}
	}

	tt = &record.Record{Run: record.Run{Schema: record.Schema, ID: "sim", Kind: "ttft", Seed: seed, Host: host("synthetic-a"), Env: env}, End: &record.End{Status: record.StatusOK}}
	arms := []string{record.PathUnified, record.PathTwoLeg}
	for i, arm := range arms {
		tt.Conditions = append(tt.Conditions, record.Condition{ID: i, Name: arm, Provider: arm, Tokens: tokens, Simulated: true})
	}
	tt.Conditions[1].Serving = &record.Serving{Connector: "simulated", Provider: "tcp", Op: "read", KVModel: kv.DefaultModel, PrefillHosts: []string{"127.0.0.1"}, DecodeHosts: []string{"127.0.0.1"}}
	for b := range blocks {
		for place, i := range stats.Order(seed+1, b, len(arms)) {
			for k, effect := 0, block(); k < iters; k++ {
				s := &record.Split{Prefill: noisy(t.Prefill, effect), Network: noisy(t.Network, effect), Engine: true}
				q := record.Request{Condition: i, Arm: arms[i], Mode: record.ModeUnified, Path: arms[i], Block: b, Order: place, Iteration: b*iters + k, Sequence: b*iters + k, Phase: record.PhaseMeasure,
					Batch: len(tt.Requests), PromptTokens: tokens, MaxTokens: 2, Completion: 2, Load: record.LoadClosed, Concurrency: 1, ConnReused: true, Valid: true, Simulated: true,
					ITLNs: []int64{noisy(t.Step, effect)}}
				if i == 1 {
					xfer := noisy(t.Transfer+t.Delay, effect)
					q.Mode = record.ModeDisaggregated
					q.Moved = &record.Moved{Scope: record.ProofSample, Transfers: 1, Bytes: bytes, Descriptors: 28, XferNs: xfer}
					s.HandOver, s.DecodeQueue, s.OneToken = noisy(t.HandOver, effect), xfer+noisy(t.Notice, effect), noisy(t.Step, effect)
				}
				q.Split = s
				q.TTFTNs = s.Prefill + s.HandOver + s.DecodeQueue + s.OneToken + s.Network
				q.E2ENs = q.TTFTNs + q.ITLNs[0]
				tt.Requests = append(tt.Requests, q)
			}
		}
	}
	return raw, tt
}
