package launch

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/xferbench/xferbench/internal/record"
	"github.com/xferbench/xferbench/internal/remote"
	"github.com/xferbench/xferbench/internal/ttft"
)

// Event is told of what happens: a level of package record and a sentence. Its
// error, that of a record that cannot be written, ends what is going on.
type Event func(level, message string) error

// Cluster is the running engines of a file.
type Cluster struct {
	f     *File
	event Event
	procs []*process
	gpus  map[string]map[string]int64 // by host: memory in use before, MiB by GPU
}

// Start starts all engines and returns when all are ready. When one fails, or
// ctx ends, those that run are stopped and the error has the end of the log.
// Stop must be called otherwise.
func Start(ctx context.Context, f *File, event Event) (c *Cluster, err error) {
	c = &Cluster{f: f, event: event, gpus: map[string]map[string]int64{}}
	state, err := record.Dir()
	if err != nil {
		return nil, err
	}
	dir := f.logDir(state, time.Now())
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("logs: %w", err)
	}
	for _, name := range f.names() {
		if err := c.portFree(ctx, f.Engines[name]); err != nil {
			return nil, err
		}
	}
	for arm, b := range f.Backends() {
		if err := event(record.Info, fmt.Sprintf("arm %s: NIXL backend %s", arm, b)); err != nil {
			return nil, err
		}
	}
	c.gpuMemory(ctx)
	defer func() {
		if err != nil {
			err = errors.Join(err, c.Stop(context.WithoutCancel(ctx)))
			c = nil
		}
	}()
	for _, name := range f.names() {
		e := f.Engines[name]
		path := filepath.Join(dir, name+".log")
		log, err := newLog(path, slices.Concat(e.LogReady, e.LogFirstTransfer, signatures))
		if err != nil {
			return nil, err
		}
		h, err := f.host(e.Host)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("engine %s: %w", name, err), log.close())
		}
		p, err := startProcess(e, h, time.Duration(f.StopTimeoutS)*time.Second, log)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("engine %s: %w", name, err), log.close())
		}
		c.procs = append(c.procs, p)
		if err := event(record.Info, fmt.Sprintf("engine %s: started on %s, log %s", name, where(e.Host), path)); err != nil {
			return nil, err
		}
	}
	return c, c.ready(ctx)
}

// Arms are the deployments that run, with the library that all their engines on
// this host have loaded, where none is elsewhere.
func (c *Cluster) Arms() []ttft.Arm {
	arms := c.f.Arms()
	for i := range arms {
		s := &arms[i].Serving
		for n, p := range c.ofArm(arms[i].Name) {
			path := ""
			if p.engine.Host == "" {
				path = loaded(p.Pid(), s.Backend)
			}
			if n > 0 && path != s.Library {
				path = ""
			}
			if s.Library = path; path == "" {
				break
			}
		}
	}
	return arms
}

// ofArm are the processes of an arm.
func (c *Cluster) ofArm(name string) []*process {
	return slices.DeleteFunc(slices.Clone(c.procs), func(p *process) bool { return p.engine.Arm != name })
}

// portFree makes sure that no other server answers in an engine's place.
func (c *Cluster) portFree(ctx context.Context, e Engine) error {
	u, err := url.Parse(e.URL)
	if err != nil {
		return err
	}
	d := net.Dialer{Timeout: 2 * time.Second}
	conn, err := d.DialContext(ctx, "tcp", u.Host)
	if err != nil {
		return ctx.Err() // refused or not reachable: free, as far as can be seen
	}
	return errors.Join(fmt.Errorf("engine %s: something listens at %s already; stop it or choose another port", e.name, u.Host), conn.Close())
}

// reportEvery is the time between reports while engines start.
const reportEvery = 15 * time.Second

// ready waits until every engine is.
func (c *Cluster) ready(ctx context.Context) error {
	begin := time.Now()
	waiting := slices.Clone(c.procs)
	report := time.NewTicker(reportEvery)
	defer report.Stop()
	poll := time.NewTicker(200 * time.Millisecond)
	defer poll.Stop()
	for len(waiting) > 0 {
		var still []*process
		for _, p := range waiting {
			ok, err := c.isReady(ctx, p)
			switch {
			case err != nil:
				return err
			case ok:
				if err := c.event(record.Info, fmt.Sprintf("engine %s: ready after %.1f s", p.engine.name, time.Since(begin).Seconds())); err != nil {
					return err
				}
			case time.Since(begin) > time.Duration(p.engine.ReadyTimeoutS)*time.Second:
				return c.failed(p, fmt.Sprintf("not ready within %d s", p.engine.ReadyTimeoutS))
			default:
				still = append(still, p)
			}
		}
		if waiting = still; len(waiting) == 0 {
			return nil
		}
		select {
		case <-poll.C:
		case <-report.C:
			p := waiting[0]
			last := p.log.last(1)[0]
			if err := c.event(record.Info, fmt.Sprintf("waiting for %d engines since %.0f s; %s says: %.150s", len(waiting), time.Since(begin).Seconds(), p.engine.name, last)); err != nil {
				return err
			}
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// failed is the error of an engine with the end of its log.
func (c *Cluster) failed(p *process, what string) error {
	return fmt.Errorf("engine %s: %s; the end of its log:\n%s", p.engine.name, what, strings.Join(p.log.last(20), "\n"))
}

// isReady reports whether an engine is; the error is that it has ended.
func (c *Cluster) isReady(ctx context.Context, p *process) (bool, error) {
	select {
	case <-p.Done():
		return false, c.failed(p, "it ended with status "+p.status())
	default:
	}
	if len(p.log.missing(p.engine.LogReady)) > 0 {
		return false, nil
	}
	if _, err := fetch(ctx, p.engine.URL+p.engine.ReadyPath); err != nil {
		return false, nil // not yet
	}
	return true, c.version(ctx, p)
}

// version compares the engine's release with the file's.
func (c *Cluster) version(ctx context.Context, p *process) error {
	if c.f.VLLM == "" || c.f.VLLM == "newest" {
		return nil
	}
	body, err := fetch(ctx, p.engine.URL+"/version")
	if err != nil {
		return c.event(record.Warning, fmt.Sprintf("engine %s does not say its version: %v", p.engine.name, err))
	}
	var v struct {
		Version string `json:"version"`
	}
	if err := json.Unmarshal(body, &v); err != nil {
		return c.event(record.Warning, fmt.Sprintf("engine %s does not say its version: %v", p.engine.name, err))
	}
	// A wheel's local version (0.15.1+cpu) is the same release.
	if have, _, _ := strings.Cut(v.Version, "+"); have != c.f.VLLM {
		return c.event(record.Warning, fmt.Sprintf("engine %s runs vLLM %s and the file says %s", p.engine.name, v.Version, c.f.VLLM))
	}
	return nil
}

// client asks engines as package ttft does: through no proxy of the environment,
// and following no redirect.
var client = http.Client{Transport: &http.Transport{MaxResponseHeaderBytes: 256 << 10, IdleConnTimeout: 4 * time.Second},
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}

func fetch(ctx context.Context, u string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u, nil)
	if err != nil {
		return nil, err
	}
	res, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", u, res.Status)
	}
	return body, err
}

// signatures are lines of vLLM's and NIXL's logs that mean trouble.
var signatures = []string{
	"NIXL compatibility hash mismatch",
	"Remote NIXL agent engine ID mismatch",
	"NIXL transfer failure",
	"Releasing expired KV blocks",
	"Got invalid KVTransferParams",
	"Potentially invalid KV blocks",
	"NIXL is not available",
	"Skipping backend registration",
	"Amazon EFA(s) were detected",
}

// Stop stops all engines at once, each by its process group, tells of what their
// logs hold, and checks that GPU memory came back. It may be called twice.
func (c *Cluster) Stop(ctx context.Context) error {
	procs := c.procs
	c.procs = nil
	results := make(chan error, len(procs))
	for _, p := range procs {
		go func() { results <- p.stop() }()
	}
	var err error
	for range procs {
		err = errors.Join(err, <-results)
	}
	for _, p := range procs {
		for _, sig := range signatures {
			if len(p.log.missing([]string{sig})) == 0 {
				err = errors.Join(err, c.event(record.Warning, fmt.Sprintf("engine %s: its log has %q: see %s", p.engine.name, sig, p.log.file.Name())))
			}
		}
		if m := p.log.missing(p.engine.LogFirstTransfer); len(m) > 0 {
			err = errors.Join(err, c.event(record.Warning, fmt.Sprintf("engine %s: its log lacks %q", p.engine.name, m[0])))
		}
		err = errors.Join(err, p.log.close())
	}
	if len(procs) > 0 {
		err = errors.Join(err, c.gpuReturned(ctx))
	}
	return err
}

const (
	gpuSlackMiB = 512
	gpuWait     = 30 * time.Second
)

// gpuMemory notes the memory in use on each host's GPUs, where nvidia-smi is.
func (c *Cluster) gpuMemory(ctx context.Context) {
	for _, e := range c.f.Engines {
		if _, done := c.gpus[e.Host]; done {
			continue
		}
		c.gpus[e.Host] = nil
		if used, err := c.askGPUs(ctx, e.Host); err == nil {
			c.gpus[e.Host] = used
		}
	}
}

// askGPUs returns the memory in use in MiB by GPU.
func (c *Cluster) askGPUs(ctx context.Context, host string) (map[string]int64, error) {
	h, err := c.f.host(host)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	var out bytes.Buffer
	p, err := remote.Start(ctx, h, remote.Command{Argv: []string{"nvidia-smi", "--query-gpu=index,memory.used", "--format=csv,noheader,nounits"}, Stdout: &out, Grace: time.Second})
	if err != nil {
		return nil, err
	}
	if err := errors.Join(p.Wait(), ctx.Err()); err != nil {
		return nil, err
	}
	return parseGPUs(out.String())
}

// parseGPUs reads lines of "index, MiB".
func parseGPUs(s string) (map[string]int64, error) {
	out := map[string]int64{}
	for line := range strings.Lines(s) {
		index, used, ok := strings.Cut(strings.TrimSpace(line), ",")
		n, err := strconv.ParseInt(strings.TrimSpace(used), 10, 64)
		if !ok || err != nil || n < 0 {
			return nil, fmt.Errorf("nvidia-smi: %q", strings.TrimSpace(line))
		}
		out[strings.TrimSpace(index)] = n
	}
	return out, nil
}

// gpuReturned waits until the GPUs' memory is as free as it was.
func (c *Cluster) gpuReturned(ctx context.Context) error {
	var errs error
	for _, host := range slices.Sorted(maps.Keys(c.gpus)) {
		before := c.gpus[host]
		if before == nil {
			continue
		}
		for limit := time.Now().Add(gpuWait); ; time.Sleep(500 * time.Millisecond) {
			now, err := c.askGPUs(ctx, host)
			if err == nil {
				err = stillUsed(before, now)
			}
			if err == nil {
				break
			}
			if ctx.Err() != nil || time.Now().After(limit) {
				errs = errors.Join(errs, fmt.Errorf("GPU memory on %s did not come back: %w; look for processes that are left (nvidia-smi)", where(host), err))
				break
			}
		}
	}
	return errs
}

// stillUsed names the first GPU with more memory in use than before.
func stillUsed(before, now map[string]int64) error {
	for _, g := range slices.Sorted(maps.Keys(before)) {
		if now[g] > before[g]+gpuSlackMiB {
			return fmt.Errorf("GPU %s has %d MiB in use, and %d before", g, now[g], before[g])
		}
	}
	return nil
}
