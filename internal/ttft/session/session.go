// Package session turns the options of `xferbench ttft` into a run: it starts
// engines or simulated ones if asked to, builds the arms, keeps the record and
// says how it ended.
package session

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/xferbench/xferbench/internal/analysis"
	"github.com/xferbench/xferbench/internal/analysis/pool"
	"github.com/xferbench/xferbench/internal/fault"
	"github.com/xferbench/xferbench/internal/host"
	"github.com/xferbench/xferbench/internal/kv"
	"github.com/xferbench/xferbench/internal/record"
	"github.com/xferbench/xferbench/internal/schedule"
	"github.com/xferbench/xferbench/internal/serving/launch"
	"github.com/xferbench/xferbench/internal/serving/sim"
	"github.com/xferbench/xferbench/internal/spec"
	"github.com/xferbench/xferbench/internal/stats"
	"github.com/xferbench/xferbench/internal/transport"
	"github.com/xferbench/xferbench/internal/ttft"
)

// Errors of a run that measured.
var (
	// ErrInvalid: more than the allowed share of requests is invalid.
	ErrInvalid = fault.New(fault.Threshold, "too many invalid requests")
	// ErrTooFew: arms were compared and there is too little data for a verdict.
	ErrTooFew = fault.New(fault.TooFew, "too little data for a verdict")
)

// Job is a completed spec of workload ttft to run.
type Job struct {
	schedule.Session
	Progress func(ttft.Progress)
}

// job is a Job under way.
type job struct {
	*Job
	w     *spec.TTFTWorkload
	run   ttft.Config
	arms  []ttft.Arm // that the spec names
	kv    ttft.Geometry
	sim   sim.Config
	start time.Time
}

// Check refuses a spec that cannot be run; its errors are of kind Usage.
func Check(s *spec.Spec) error {
	_, err := newJob(&Job{Session: schedule.Session{Spec: s}})
	return err
}

// Run measures. The record in memory has every line that was written, also with
// an error; its last line is the End. It is nil when nothing was.
func Run(ctx context.Context, j *Job) (*record.Record, error) {
	r, err := newJob(j)
	if err != nil {
		return nil, err
	}
	return r.Do(ctx, schedule.Workings{Measure: r.engines, SumUp: r.sumUp})
}

// newJob reads the spec.
func newJob(j *Job) (*job, error) {
	r := &job{Job: j, w: j.Spec.TTFT, start: time.Now().Add(-j.Since())}
	if err := r.check(); err != nil {
		return nil, err
	}
	var err error
	if r.arms, err = r.named(); err != nil {
		return nil, err
	}
	if err := r.geometry(); err != nil {
		return nil, err
	}
	if r.sim, err = SimConfig(r.w.Engine); err != nil {
		return nil, fault.Usagef("%w", err)
	}
	if err := r.configure(); err != nil {
		return nil, err
	}
	// Those of a launch file and of simulated engines are known once they run.
	c := r.run
	if c.Arms = r.arms; len(c.Arms) == 0 {
		c.Arms = []ttft.Arm{{Name: "started"}}
	}
	if err := c.Check(); err != nil {
		return nil, fault.Usagef("%w", err)
	}
	return r, nil
}

func (r *job) check() error {
	switch n := r.sources(); {
	case n == 0:
		return fault.Usagef("no engine is named; give --url, or --prefill and --decode, or --arm, or --launch FILE, or --sim for a demo without engines")
	case n > 1:
		return fault.Usagef("--url with --prefill and --decode, --arm, --launch and --sim exclude one another, except --launch with --arm; name several deployments with --arm")
	case !(r.w.MaxInvalid >= 0 && r.w.MaxInvalid <= 1):
		return fault.Usagef("--max-invalid %v: want a share from 0%% to 100%%", float64(r.w.MaxInvalid))
	}
	return schedule.CheckDesign(r.Spec.Design)
}

// geometry reads what the spec says of the engines' KV caches.
func (r *job) geometry() error {
	r.kv = ttft.Geometry{DType: r.w.DType, DraftLayers: r.w.KVDraftLayers}
	if n := len(r.w.KVTP); n > 2 || slices.ContainsFunc(r.w.KVTP, func(tp int) bool { return tp < 1 || tp > maxTP }) {
		return fault.Usagef("--kv-tp %v: want one size, or those of prefill and decode, each from 1 to %d", []int(r.w.KVTP), maxTP)
	} else if n > 0 {
		r.kv.PrefillTP, r.kv.DecodeTP = r.w.KVTP[0], r.w.KVTP[n-1]
	}
	if n := r.w.KVDraftLayers; n < 0 || n > maxDraftLayers {
		return fault.Usagef("--kv-draft-layers %d: want 0 to %d", n, maxDraftLayers)
	}
	if r.w.KVModel == "" {
		if r.w.DType == "" || r.w.DType == "auto" {
			return nil
		}
		if _, err := kv.ParseDType(r.w.DType); err != nil {
			return fault.Usagef("--dtype: %w", err)
		}
		return nil
	}
	var err error
	if r.kv.Model, err = kv.Resolve(r.w.KVModel, r.w.DType); err != nil {
		return fault.Usagef("--kv-model: %w", err)
	}
	return nil
}

// Limits of what a spec says of KV caches.
const (
	maxTP          = 1 << 10
	maxDraftLayers = 1 << 10
)

// configure is what the run is asked for, without its arms.
func (r *job) configure() (err error) {
	w, d := r.w, r.Spec.Design
	r.run = ttft.Config{MaxTokens: w.MaxTokens, Load: record.LoadClosed, Concurrency: w.Concurrency, Rates: w.Rate,
		Iterations: d.Iterations, Blocks: *d.Blocks, Warmup: d.Warmup, Seed: r.Seed(), VocabSize: w.VocabSize, Timeout: w.Timeout, Settle: w.Settle,
		Schedule: r.Schedule(0), Since: r.Since(), Record: r.Write, Progress: r.Progress}
	for _, n := range w.PromptTokens {
		r.run.PromptTokens = append(r.run.PromptTokens, int(n))
	}
	switch {
	case w.Measurement == "offline":
		r.run.Load = record.LoadOffline
	case len(w.Rate) > 0:
		r.run.Load = record.LoadOpen
	}
	if r.run.Prompts, err = ttft.ParsePromptKind(w.Prompt); err != nil {
		return fault.Usagef("--prompt: %w", err)
	}
	return nil
}

// SimConfig is the configuration of simulated engines, without a role.
func SimConfig(e spec.SimEngine) (c sim.Config, err error) {
	c = sim.Config{PrefillTime: e.PrefillTime, PrefillPerToken: e.PrefillPerToken, StepTime: e.StepTime, MoverDelay: e.TransferDelay,
		Lease: e.Lease, Blocks: e.Blocks, Caching: e.PrefixCaching, Transport: e.Transport, Release: e.VLLM, Recompute: e.Recompute,
		DType: e.DType, Push: e.Push}
	if c.Order, err = pool.ParseOrder(e.PoolOrder); err != nil {
		return c, err
	}
	if err := transport.CheckConfig(transport.Config{Provider: e.Transport}); err != nil {
		return c, fmt.Errorf("transport %w", err)
	}
	m, err := kv.Resolve(e.Model, cmp.Or(e.DType, "auto"))
	if err != nil {
		return c, err
	}
	if c.Geometry, err = sim.GeometryOf(m, e.BlockTokens, max(e.TP, 1), e.VLLM); err != nil {
		return c, err
	}
	for _, s := range e.Fault {
		in, err := sim.ParseInjection(s)
		if err != nil {
			return c, err
		}
		c.Faults = append(c.Faults, in)
	}
	return c, nil
}

// sources is how many ways of naming engines are used.
func (r *job) sources() (n int) {
	o := r.w
	// Arms beside a launch file name what is measured on its engines.
	for _, used := range []bool{o.URL != "" || len(o.Prefill)+len(o.Decode) > 0, len(o.Arm) > 0 && o.Launch == "", o.Launch != "", o.Sim} {
		if used {
			n++
		}
	}
	return n
}

// named builds the arms that the spec names, without those of a launch file.
func (r *job) named() ([]ttft.Arm, error) {
	o := r.w
	var out []ttft.Arm
	if o.URL != "" || len(o.Prefill)+len(o.Decode) > 0 {
		a := ttft.Arm{Name: "default"}
		for _, list := range []struct {
			from []string
			to   *[]string
		}{{o.Prefill, &a.Prefill}, {o.Decode, &a.Decode}} {
			for _, s := range list.from {
				u, err := ttft.BaseURL(s)
				if err != nil {
					return nil, fault.Usagef("%w", err)
				}
				*list.to = append(*list.to, u)
			}
		}
		if o.URL != "" {
			u, err := ttft.BaseURL(o.URL)
			if err != nil {
				return nil, fault.Usagef("%w", err)
			}
			a.Front = u
		}
		out = append(out, a)
	}
	for _, s := range o.Arm {
		a, err := ttft.ParseArm(s)
		if err != nil {
			return nil, fault.Usagef("%w", err)
		}
		out = append(out, a)
	}
	for i := range out {
		a, err := out[i].Resolve(o.Mode, o.Path)
		if err != nil {
			return nil, fault.Usagef("%w", err)
		}
		a.Model = cmp.Or(a.Model, o.Model)
		out[i] = a
	}
	return out, nil
}

// sumUp has the figures and verdicts of what was measured, for readers of the
// record that do not compute their own, and what they come to.
func (r *job) sumUp(rec *record.Record) ([]record.Line, error) {
	a, err := analysis.OfRequests(rec)
	if err != nil {
		return nil, err
	}
	return a.Lines(), r.decide(a)
}

func (r *job) event(level, format string, args ...any) error {
	return r.Write(record.Event{TimeNs: time.Since(r.start).Nanoseconds(), Level: level, Message: fmt.Sprintf(format, args...)})
}

// engines starts what is to be started, measures, and stops it again.
func (r *job) engines(ctx context.Context) (err error) {
	line, err := r.Header()
	if err != nil {
		return err
	}
	if err := r.Write(line); err != nil {
		return err
	}
	switch {
	case r.w.Sim:
		set, err := sim.StartSet(r.sim, host.Loopback(), true)
		if err != nil {
			return fault.Usagef("--sim: %w", err)
		}
		defer func() { err = errors.Join(err, set.Close()) }()
		var of ttft.Geometry
		if of.Model, err = kv.Resolve(r.w.Engine.Model, "auto"); err != nil {
			return err
		}
		return r.measure(ctx, []ttft.Arm{
			{Name: "unified", Mode: record.ModeUnified, Path: record.PathUnified, Front: set.Unified.URL, KV: of},
			{Name: "two-leg", Mode: record.ModeDisaggregated, Path: record.PathTwoLeg, Prefill: []string{set.Prefill.URL}, Decode: []string{set.Decode.URL}, KV: of,
				Serving: record.Serving{KVModel: r.w.Engine.Model}},
		})
	case r.w.Launch != "":
		return r.launched(ctx)
	}
	return r.measure(ctx, r.arms)
}

// launched runs over engines that it starts: over the arms named, such as one
// through a proxy, or else over those of the file.
func (r *job) launched(ctx context.Context) (err error) {
	f, err := launch.Load(r.w.Launch)
	if err != nil {
		return fault.Usagef("--launch: %w", err)
	}
	f.SSHCommand = cmp.Or(r.Spec.Hosts.SSHCommand, f.SSHCommand)
	longest := slices.Max(append([]int{1}, r.run.PromptTokens...))
	for _, p := range f.Check(longest, r.run.MaxTokens) {
		level := record.Warning
		if p.Fatal {
			level = record.Fault
		}
		if err := r.event(level, "%s: %s", r.w.Launch, p.Text); err != nil {
			return err
		}
		if p.Fatal {
			return fault.Usagef("--launch %s: %s", r.w.Launch, p.Text)
		}
	}
	cluster, err := launch.Start(ctx, f, func(level, message string) error { return r.event(level, "%s", message) })
	if err != nil {
		return fmt.Errorf("%w: %w", ttft.ErrUnavailable, err)
	}
	defer func() {
		// Engines are stopped also when the run was interrupted.
		err = errors.Join(err, cluster.Stop(context.WithoutCancel(ctx)))
	}()
	arms := slices.Clone(r.arms)
	if len(arms) == 0 {
		arms = cluster.Arms()
		for i := range arms {
			if arms[i], err = arms[i].Resolve(r.w.Mode, r.w.Path); err != nil {
				return fault.Usagef("%w", err)
			}
		}
		return r.measure(ctx, arms)
	}
	for i := range arms {
		if arms[i].Model == "" {
			arms[i].Model = f.ServedName
		}
		arms[i].KV.BytesPerToken = f.BytesPerToken
		arms[i].Serving = servingOf(cluster.Arms(), arms[i].Decode)
	}
	return r.measure(ctx, arms)
}

// servingOf is what is known of the engines of the file's arm that has these decode
// engines, empty where none has just these.
func servingOf(file []ttft.Arm, decode []string) record.Serving {
	for _, a := range file {
		if slices.Equal(slices.Sorted(slices.Values(a.Decode)), slices.Sorted(slices.Values(decode))) {
			return a.Serving
		}
	}
	return record.Serving{}
}

func (r *job) measure(ctx context.Context, arms []ttft.Arm) error {
	c := r.run
	c.Arms = arms
	for i := range arms {
		own := arms[i].KV
		if arms[i].KV = r.kv; r.kv.Model.Name == "" {
			// A launch file's, or that of simulated engines.
			arms[i].KV.BytesPerToken, arms[i].KV.Model = own.BytesPerToken, own.Model
		}
	}
	if err := c.Check(); err != nil {
		return fault.Usagef("%w", err)
	}
	return ttft.Run(ctx, c)
}

// decide turns a result into the error that it is.
func (r *job) decide(res *analysis.Requests) error {
	if res.N == 0 {
		return fmt.Errorf("%w: no request was measured", ErrTooFew)
	}
	if share := res.InvalidShare(); share > float64(r.w.MaxInvalid) {
		var list []string
		for reason, n := range res.Reasons {
			list = append(list, fmt.Sprintf("%s %d", reason, n))
		}
		slices.Sort(list)
		return fmt.Errorf("%w: %d of %d, more than %.3g %%: %s", ErrInvalid, res.Invalid, res.N, 100*float64(r.w.MaxInvalid), strings.Join(list, ", "))
	}
	for _, c := range res.Comparisons {
		if c.Verdict.Kind == stats.TooFew {
			unit := "blocks"
			if r.Spec.Design.Launches > 1 {
				unit = "launches"
			}
			return fmt.Errorf("%w on %s against %s: %d %s, and %d are needed; raise --%s", ErrTooFew, c.B.Arm, c.A.Arm, c.Verdict.NA, unit, c.Verdict.Need, unit)
		}
	}
	return nil
}
