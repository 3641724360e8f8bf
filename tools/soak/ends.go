package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"syscall"
	"time"
)

// side names the process that is killed.
type side string

const (
	measuring side = "measuring process"
	parent    side = "its parent"
	target    side = "target"
)

// pid finds the process among those of a run and of the serve that it goes to.
func (sd side) pid(run, serve *proc) (int, bool) {
	of := run.cmd.Process.Pid
	switch sd {
	case parent:
		return of, true
	case target:
		of = serve.cmd.Process.Pid
	}
	c := children(of)
	if len(c) == 0 {
		return 0, false // not there yet, or over
	}
	return c[0], true
}

// typical is how long a whole run of provider takes.
func (s *soak) typical(provider, peer string) (time.Duration, error) {
	var took []time.Duration
	for range min(3, s.n.points) {
		start := time.Now()
		p := s.measure(provider, peer)
		if code := p.wait(2 * time.Minute); code != 0 {
			return 0, fmt.Errorf("%s, undisturbed: exit code %d: %s", provider, code, oneLine(p.stderr.String()))
		}
		took = append(took, time.Since(start))
	}
	slices.Sort(took)
	return took[len(took)/2], nil
}

// kills ends one process of a run by SIGKILL at moments spread over the run.
func (s *soak) kills() error {
	for _, provider := range s.providers {
		srv := s.start("serve", "--listen", "127.0.0.1:0")
		peer, err := srv.line()
		if err != nil {
			return err
		}
		usual, err := s.typical(provider, peer)
		if err != nil {
			return err
		}
		for _, sd := range []side{measuring, parent, target} {
			r := s.table.row(fmt.Sprintf("kill %s, %s", sd, provider))
			killed := 0
			for i := range s.n.points {
				there, err := s.kill(r, sd, provider, srv, peer, s.moment(i, s.n.points, usual))
				if err != nil {
					return err
				}
				if there {
					killed++
				}
			}
			r.note = fmt.Sprintf("%d killed before they had ended or begun", killed)
		}
		// The server that saw all this still serves.
		r := s.table.row("serve goes on, then ends, " + provider)
		s.served(r, peer, "after the kills")
		if err := s.endServe(r, srv); err != nil {
			return err
		}
	}
	return nil
}

// moment is the ith of n, spread over a run of the usual length and drawn
// within its share.
func (s *soak) moment(i, n int, usual time.Duration) time.Duration {
	return time.Duration((float64(i) + s.rand.Float64()) / float64(n) * float64(usual))
}

func (s *soak) kill(r *row, sd side, provider string, srv *proc, peer string, after time.Duration) (there bool, err error) {
	if s.ctx.Err() != nil {
		return false, context.Cause(s.ctx)
	}
	before, err := shared()
	if err != nil {
		return false, err
	}
	p := s.measure(provider, peer)
	if p.err != nil {
		return false, p.err
	}
	r.cases++
	time.Sleep(after)
	pid, there := sd.pid(p, srv)
	start := time.Now()
	if there {
		// It may have ended by itself meanwhile.
		there = syscall.Kill(pid, syscall.SIGKILL) == nil
	}
	code := p.wait(timeout + late)
	r.codes[code]++
	want := []int{3, 0}
	if sd == parent {
		want = []int{-1, 0} // it is the process that is waited for
	}
	s.judge(r, p, code, want, fmt.Sprintf("killed after %v", after.Round(time.Millisecond)))
	pids, files, err := s.settled(before, srv.cmd.Process.Pid)
	if err != nil {
		return there, err
	}
	s.leftover(r, pids, files, fmt.Sprintf("killed after %v", after.Round(time.Millisecond)))
	r.slowest = max(r.slowest, time.Since(start))
	// Read once all that wrote it is gone.
	s.closed(r, p)
	return there, nil
}

func (s *soak) judge(r *row, p *proc, code int, want []int, when string) {
	switch {
	case code == hung:
		r.hung++
		r.say("%s: it did not end: %s", when, oneLine(p.stderr.String()))
	case !slices.Contains(want, code):
		r.code++
		r.say("%s: exit code %d, want one of %v: %s", when, code, want, oneLine(p.stderr.String()))
	}
}

// leftover counts what is still there, and ends it.
func (s *soak) leftover(r *row, pids []int, files []string, when string) {
	if len(pids)+len(files) == 0 {
		return
	}
	r.left++
	r.say("%s: left behind: processes %v, files %v", when, pids, files)
	for _, pid := range pids {
		_ = syscall.Kill(pid, syscall.SIGKILL) // of this soak: it carries the mark
	}
}

// closed holds a record to have an end; a run that ended before it began has
// no record.
func (s *soak) closed(r *row, p *proc) {
	rec, err := recordOf(p.record)
	switch {
	case err != nil:
		r.record++
		r.say("record: %v", err)
	case rec == nil:
	case rec.End == nil:
		r.record++
		r.say("the record has no end: %s", oneLine(p.stderr.String()))
	}
}

// stops ends local runs by a signal that a person or a scheduler sends.
func (s *soak) stops() error {
	signals := []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP}
	usual := map[string]time.Duration{}
	for _, p := range s.providers {
		start := time.Now()
		if r := s.measure(p); r.wait(2*time.Minute) != 0 {
			return fmt.Errorf("%s, undisturbed: %s", p, oneLine(r.stderr.String()))
		}
		usual[p] = time.Since(start)
	}
	rows := map[syscall.Signal]*row{}
	for _, sig := range signals {
		rows[sig] = s.table.row("stop by " + sig.String())
	}
	for i := range s.n.stops {
		if s.ctx.Err() != nil {
			return context.Cause(s.ctx)
		}
		provider, sig := s.providers[i%len(s.providers)], signals[i%len(signals)]
		r := rows[sig]
		before, err := shared()
		if err != nil {
			return err
		}
		p := s.measure(provider)
		if p.err != nil {
			return p.err
		}
		r.cases++
		after := time.Duration(s.rand.Float64() * float64(usual[provider]))
		time.Sleep(after)
		start := time.Now()
		p.signal(sig)
		code := p.wait(timeout + late)
		r.codes[code]++
		when := fmt.Sprintf("%s, %v after %v", provider, sig, after.Round(time.Millisecond))
		want := []int{130, 0}
		if _, err := os.Stat(p.record); errors.Is(err, os.ErrNotExist) {
			want = append(want, -1) // in its first milliseconds a program has no handler yet
		}
		s.judge(r, p, code, want, when)
		pids, files, err := s.settled(before)
		if err != nil {
			return err
		}
		s.leftover(r, pids, files, when)
		r.slowest = max(r.slowest, time.Since(start))
		s.closed(r, p)
	}
	return nil
}

// endServe stops a serve and holds it to end.
func (s *soak) endServe(r *row, srv *proc) error {
	r.cases++
	start := time.Now()
	srv.signal(syscall.SIGTERM)
	code := srv.wait(timeout + late)
	r.codes[code]++
	s.judge(r, srv, code, []int{130}, "SIGTERM")
	r.slowest = max(r.slowest, time.Since(start))
	pids, err := s.marked()
	if err != nil {
		return err
	}
	s.leftover(r, pids, nil, "after serve's end")
	return nil
}
