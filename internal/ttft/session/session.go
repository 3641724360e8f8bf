// Package session turns the options of `xferbench ttft` into a run: it starts
// engines or simulated ones if asked to, builds the arms, keeps the record and
// says how it ended.
package session

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/xferbench/xferbench/cgo/mem"
	"github.com/xferbench/xferbench/internal/host"
	"github.com/xferbench/xferbench/internal/kv"
	"github.com/xferbench/xferbench/internal/record"
	"github.com/xferbench/xferbench/internal/serving/launch"
	"github.com/xferbench/xferbench/internal/serving/sim"
	"github.com/xferbench/xferbench/internal/stats"
	"github.com/xferbench/xferbench/internal/ttft"
	"github.com/xferbench/xferbench/internal/version"
)

// Errors that decide the exit code.
var (
	// ErrUsage: the options do not fit together.
	ErrUsage = errors.New("usage")
	// ErrUnavailable: an engine could not be reached or started.
	ErrUnavailable = errors.New("engines unavailable")
	// ErrInvalid: more than the allowed share of requests is invalid.
	ErrInvalid = errors.New("too many invalid requests")
	// ErrTooFew: arms were compared and there is too little data for a verdict.
	ErrTooFew = errors.New("too little data for a verdict")
)

func usage(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrUsage, fmt.Errorf(format, args...))
}

// Options are the flags of `xferbench ttft`.
type Options struct {
	URL             string
	Prefill, Decode []string
	Mode, Path      string
	Arms            []string // as ttft.ParseArm reads them
	Launch          string   // file of package launch
	SSHCommand      string   // instead of the file's; empty: the file's
	Sim             bool
	SimConfig       sim.Config
	Model           string // served model
	KVModel, DType  string // geometry: see kv.Resolve
	MaxInvalid      float64
	Run             ttft.Config // Arms, Record and Progress are set here
	Argv            []string
}

// Output is where a run's results go.
type Output struct {
	Record *record.Writer // nil: none
	JSON   io.Writer      // nil: none; the record's lines as well
	// Log is told of events that a person should see.
	Log      func(level, message string)
	Progress func(ttft.Progress)
}

// checkShare checks the allowed share of invalid requests.
func checkShare(f float64) error {
	if !(f >= 0 && f <= 1) {
		return usage("--max-invalid %v: want a share from 0%% to 100%%", f)
	}
	return nil
}

// sources is how many ways of naming engines are used.
func (o *Options) sources() (n int) {
	// Arms beside a launch file name what is measured on its engines.
	for _, used := range []bool{o.URL != "" || len(o.Prefill)+len(o.Decode) > 0, len(o.Arms) > 0 && o.Launch == "", o.Launch != "", o.Sim} {
		if used {
			n++
		}
	}
	return n
}

// arms builds the arms that the options name, without those of a launch.
func (o *Options) arms() ([]ttft.Arm, error) {
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
					return nil, usage("%w", err)
				}
				*list.to = append(*list.to, u)
			}
		}
		if o.URL != "" {
			u, err := ttft.BaseURL(o.URL)
			if err != nil {
				return nil, usage("%w", err)
			}
			a.Front = u
		}
		out = append(out, a)
	}
	for _, s := range o.Arms {
		a, err := ttft.ParseArm(s)
		if err != nil {
			return nil, usage("%w", err)
		}
		out = append(out, a)
	}
	for i := range out {
		a, err := out[i].Resolve(o.Mode, o.Path)
		if err != nil {
			return nil, usage("%w", err)
		}
		out[i] = a
	}
	return out, nil
}

// session is a run under way.
type session struct {
	o     Options
	out   Output
	start time.Time
	lines *record.Writer // of out.JSON

	mu     sync.Mutex
	logged map[string]bool
}

// Run measures. The result is there, though incomplete, also with an error.
func Run(ctx context.Context, o Options, out Output) (res *ttft.Result, err error) {
	s := &session{o: o, out: out, start: time.Now(), logged: map[string]bool{}}
	if out.JSON != nil {
		s.lines = record.NewWriter(out.JSON)
	}
	if s.out.Log == nil {
		s.out.Log = func(string, string) {}
	}
	arms, err := s.check()
	if err != nil {
		return nil, err
	}
	if err := s.write(s.header()); err != nil {
		return nil, err
	}
	res, err = s.engines(ctx, arms)
	if err == nil {
		err = s.decide(res)
	}
	return res, errors.Join(err, s.end(ctx, err))
}

func (s *session) check() ([]ttft.Arm, error) {
	switch n := s.o.sources(); {
	case n == 0:
		return nil, usage("no engine is named; give --url, or --prefill and --decode, or --arm, or --launch FILE, or --sim for a demo without engines")
	case n > 1:
		return nil, usage("--url with --prefill and --decode, --arm, --launch and --sim exclude one another, except --launch with --arm; name several deployments with --arm")
	}
	if err := checkShare(s.o.MaxInvalid); err != nil {
		return nil, err
	}
	var bytesPerToken int64
	if s.o.KVModel != "" {
		m, err := kv.Resolve(s.o.KVModel, s.o.DType)
		if err != nil {
			return nil, usage("--kv-model: %w", err)
		}
		bytesPerToken = m.BytesPerToken()
	}
	arms, err := s.o.arms()
	if err != nil {
		return nil, err
	}
	for i := range arms {
		if arms[i].Model == "" {
			arms[i].Model = s.o.Model
		}
		if arms[i].BytesPerToken == 0 {
			arms[i].BytesPerToken = bytesPerToken
		}
	}
	return arms, nil
}

// header is the record's first line.
func (s *session) header() record.Run {
	c := s.o.Run
	order := "random"
	return record.Run{Schema: record.Schema, ID: rand.Text()[:12], Kind: "ttft", StartUnixNs: s.start.UnixNano(), ToolVersion: version.Version,
		ToolCommit: version.Commit, Argv: s.o.Argv, Seed: c.Seed, Host: host.Root("").Inventory(), Env: host.Environment(os.Environ()),
		Design:    &record.Design{Blocks: c.Blocks, BudgetNs: c.Budget.Nanoseconds(), Order: order, Concurrency: c.Concurrency},
		Simulated: s.o.Sim}
}

// write puts a line into the record and shows events to a person, each text
// once.
func (s *session) write(l record.Line) error {
	if e, ok := l.(record.Event); ok {
		s.mu.Lock()
		known := s.logged[e.Message]
		s.logged[e.Message] = true
		s.mu.Unlock()
		if !known {
			s.out.Log(e.Level, e.Message)
		}
	}
	if s.lines != nil {
		if err := s.lines.Write(l); err != nil {
			return err
		}
	}
	if s.out.Record != nil {
		return s.out.Record.Write(l)
	}
	return nil
}

func (s *session) event(level, format string, args ...any) error {
	return s.write(record.Event{TimeNs: time.Since(s.start).Nanoseconds(), Level: level, Message: fmt.Sprintf(format, args...)})
}

// engines starts what is to be started, measures, and stops it again.
func (s *session) engines(ctx context.Context, arms []ttft.Arm) (res *ttft.Result, err error) {
	switch {
	case s.o.Sim:
		set, err := sim.StartSet(s.o.SimConfig, host.Loopback(), true)
		if err != nil {
			return nil, usage("--sim: %w", err)
		}
		defer func() { err = errors.Join(err, set.Close()) }()
		per := int64(set.Prefill.Config().Geometry.BytesPerToken)
		arms = []ttft.Arm{
			{Name: "unified", Mode: ttft.ModeUnified, Path: ttft.PathUnified, Front: set.Unified.URL, BytesPerToken: per},
			{Name: "two-leg", Mode: ttft.ModeDisaggregated, Path: ttft.PathTwoLeg, Prefill: []string{set.Prefill.URL}, Decode: []string{set.Decode.URL}, BytesPerToken: per},
		}
		res, err = s.measure(ctx, arms)
		return res, err
	case s.o.Launch != "":
		return s.launched(ctx, arms)
	}
	return s.measure(ctx, arms)
}

// launched runs over engines that it starts: over the arms named, such as one
// through a proxy, or else over those of the file.
func (s *session) launched(ctx context.Context, arms []ttft.Arm) (res *ttft.Result, err error) {
	f, err := launch.Load(s.o.Launch)
	if err != nil {
		return nil, usage("--launch: %w", err)
	}
	f.SSHCommand = cmp.Or(s.o.SSHCommand, f.SSHCommand)
	longest := slices.Max(append([]int{1}, s.o.Run.PromptTokens...))
	for _, p := range f.Check(longest, s.o.Run.MaxTokens) {
		level := record.Warning
		if p.Fatal {
			level = record.Fault
		}
		if err := s.event(level, "%s: %s", s.o.Launch, p.Text); err != nil {
			return nil, err
		}
		if p.Fatal {
			return nil, usage("--launch %s: %s", s.o.Launch, p.Text)
		}
	}
	cluster, err := launch.Start(ctx, f, func(level, message string) error { return s.event(level, "%s", message) })
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	defer func() {
		// Engines are stopped also when the run was interrupted.
		err = errors.Join(err, cluster.Stop(context.WithoutCancel(ctx)))
	}()
	if len(arms) == 0 {
		arms = cluster.Arms()
		for i := range arms {
			if arms[i], err = arms[i].Resolve(s.o.Mode, s.o.Path); err != nil {
				return nil, usage("%w", err)
			}
		}
		return s.measure(ctx, arms)
	}
	for i := range arms {
		if arms[i].Model == "" {
			arms[i].Model = f.ServedName
		}
		if arms[i].BytesPerToken == 0 {
			arms[i].BytesPerToken = f.BytesPerToken
		}
	}
	return s.measure(ctx, arms)
}

func (s *session) measure(ctx context.Context, arms []ttft.Arm) (*ttft.Result, error) {
	c := s.o.Run
	c.Arms, c.Record, c.Progress = arms, s.write, s.out.Progress
	if err := c.Check(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUsage, err)
	}
	res, err := ttft.Run(ctx, c)
	if err != nil && (res == nil || errors.Is(err, ttft.ErrLimit)) && ctx.Err() == nil {
		err = fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return res, err
}

// decide turns a result into the error that it is.
func (s *session) decide(res *ttft.Result) error {
	if res.Requests == 0 {
		return fmt.Errorf("%w: no request was measured", ErrTooFew)
	}
	if share := res.InvalidShare(); share > s.o.MaxInvalid {
		var list []string
		for r, n := range res.Reasons {
			list = append(list, fmt.Sprintf("%s %d", r, n))
		}
		slices.Sort(list)
		return fmt.Errorf("%w: %d of %d, more than %.3g %%: %s", ErrInvalid, res.Invalid, res.Requests, 100*s.o.MaxInvalid, strings.Join(list, ", "))
	}
	for _, c := range res.Comparisons {
		if c.Verdict.Kind == stats.TooFew {
			return fmt.Errorf("%w on %s against %s: %d blocks, and %d are needed; raise --blocks", ErrTooFew, c.Name, c.Base, c.Verdict.NA, c.Verdict.Need)
		}
	}
	return nil
}

// ExitCode is the exit code that an error of Run stands for; 1 for one that is
// not from here.
func ExitCode(err error) int {
	switch {
	case err == nil:
		return 0
	case errors.Is(err, context.Canceled):
		return 130
	case mem.MoreFiles(err) != "":
		return 3 // whatever the descriptor was for
	case errors.Is(err, ErrUsage):
		return 2
	case errors.Is(err, ErrUnavailable):
		return 3
	case errors.Is(err, ErrInvalid):
		return 5
	case errors.Is(err, ErrTooFew):
		return 6
	}
	return 1
}

// end writes the record's last line.
func (s *session) end(ctx context.Context, cause error) error {
	e := record.End{Status: record.StatusOK, ExitCode: ExitCode(cause), EndUnixNs: time.Now().UnixNano()}
	if cause != nil {
		e.Status, e.Error = record.StatusFailed, cause.Error()
	}
	if ctx.Err() != nil {
		e.Status, e.ExitCode = record.StatusInterrupted, 130
	}
	return s.write(e)
}
