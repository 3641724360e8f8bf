// Package live serves the HTML report of a record that a run is still writing, to
// browsers of the same host. Nothing here measures, and no request changes
// anything.
package live

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/xferbench/xferbench/internal/record"
	"github.com/xferbench/xferbench/internal/report"
)

const (
	// pause is the least time between two reports, and rest how many times as long as
	// one took is waited at least: a report costs a fifth of one processor at most.
	pause = time.Second
	rest  = 4
	// gather is waited for more lines before the first report.
	gather = 200 * time.Millisecond
	// quiet is how long a record may have no new line before it is asked whether a
	// process still writes it.
	quiet = 5 * time.Second
	// grace is how long requests under way may take to end.
	grace = 5 * time.Second
)

// Options of [Serve].
type Options struct {
	// Path is the record, which need not be there yet: it is waited for as long as
	// Wait.
	Path string
	Wait time.Duration
	// Told is called with the state each time it is another one.
	Told func(string)
}

// Serve serves the report over l, which it closes, until ctx ends, and reports
// whether the run had ended by then. It ends before with an error: of a record that
// does not come or cannot be read, or of l.
func Serve(ctx context.Context, l net.Listener, o Options) (finished bool, err error) {
	return newPage(o).serve(ctx, l, o)
}

// page is what browsers see. Its methods may be called from several goroutines.
type page struct {
	quiet time.Duration
	told  func(string)

	mu      sync.Mutex
	html    []byte
	n       int // of the report, from 1 on; 0 for none
	state   state
	changed chan struct{} // closed when any of the above is another one
	streams int
	epoch   int64 // tells the reports of this process from those of another
}

// state is what the page says of the run.
type state struct {
	Version string `json:"version"` // of the report
	Text    string `json:"text"`
	Ended   bool   `json:"ended"`
}

func newPage(o Options) *page {
	p := &page{quiet: quiet, told: o.Told, changed: make(chan struct{}), epoch: time.Now().UnixNano()}
	p.show(nil, "waiting for "+o.Path, false)
	return p
}

// show replaces the report, unless html is nil, and the state.
func (p *page) show(html []byte, text string, ended bool) {
	p.mu.Lock()
	news := text != p.state.Text
	if html != nil {
		p.html, p.n = html, p.n+1
	}
	p.state = state{Version: fmt.Sprintf("%x-%d", p.epoch, p.n), Text: text, Ended: ended}
	close(p.changed)
	p.changed = make(chan struct{})
	p.mu.Unlock()
	if news && p.told != nil {
		p.told(text)
	}
}

// now is what the page shows, and a channel that closes when it is another.
func (p *page) now() (html []byte, s state, changed <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.html, p.state, p.changed
}

func (p *page) serve(ctx context.Context, l net.Listener, o Options) (finished bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s := &http.Server{
		Handler: p.handler(), BaseContext: func(net.Listener) context.Context { return ctx },
		ReadHeaderTimeout: 10 * time.Second, WriteTimeout: 30 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10,
	}
	served, followed := make(chan error, 1), make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	go func() {
		err := p.follow(ctx, o)
		if err != nil {
			err = fmt.Errorf("%w: %w", ErrRecord, err)
		}
		followed <- err
	}()
	for ended := false; err == nil && !ended; {
		select {
		case err = <-served:
			if cancel(); followed != nil {
				err = errors.Join(err, <-followed)
			}
			return finished, err
		case err = <-followed:
			finished, followed = err == nil && ctx.Err() == nil, nil
		case <-ctx.Done():
			ended = true
		}
	}
	cancel()
	end, stop := context.WithTimeout(context.WithoutCancel(ctx), grace)
	defer stop()
	if down := s.Shutdown(end); errors.Is(down, context.DeadlineExceeded) {
		err = errors.Join(err, s.Close()) // who is still at it has had the while
	} else {
		err = errors.Join(err, down)
	}
	if gone := <-served; !errors.Is(gone, http.ErrServerClosed) {
		err = errors.Join(err, gone)
	}
	if followed != nil {
		err = errors.Join(err, <-followed)
	}
	return finished, err
}

// ErrRecord is matched by the errors of a record that does not come or cannot be
// read.
var ErrRecord = errors.New("no live report")

// appear waits for the file.
func appear(ctx context.Context, o Options) error {
	until := time.NewTimer(o.Wait)
	defer until.Stop()
	for {
		_, err := os.Stat(o.Path)
		if !errors.Is(err, os.ErrNotExist) {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-until.C:
			return fmt.Errorf("no record %s after %v: start the run with --record %[1]s, or wait longer with --wait", o.Path, o.Wait)
		case <-time.After(gather):
		}
	}
}

// item is a line of the record, or the error that ends it.
type item struct {
	line record.Line
	err  error
}

// follow keeps the page up with the record until its end line. The end of ctx is
// no error.
func (p *page) follow(ctx context.Context, o Options) error {
	if err := appear(ctx, o); err != nil || ctx.Err() != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	items := make(chan item, 256)
	read := make(chan struct{})
	defer func() { cancel(); <-read }()
	go func() {
		defer close(read)
		defer close(items)
		for l, err := range record.Follow(ctx, o.Path) {
			select {
			case items <- item{l, err}:
			case <-ctx.Done():
				return
			}
		}
	}()
	f := &follower{page: p, rec: &record.Record{Path: o.Path}, began: time.Now(), next: time.NewTimer(0)}
	defer f.next.Stop()
	<-f.next.C
	look := time.NewTicker(max(p.quiet/5, time.Millisecond))
	defer look.Stop()
	for {
		select {
		case it, more := <-items:
			switch {
			case ctx.Err() != nil:
				return nil
			case !more:
				return f.report()
			case it.err != nil:
				return it.err
			}
			if err := f.add(it.line); err != nil {
				return err
			}
		case <-f.next.C:
			f.armed = false
			if err := f.report(); err != nil {
				return err
			}
		case <-look.C:
			if err := f.look(); err != nil {
				return err
			}
		}
	}
}

// follower makes reports of what has come so far.
type follower struct {
	*page
	rec   *record.Record
	began time.Time // of following, then of the last line
	next  *time.Timer
	armed bool
	wait  time.Duration // until the report after the next line
	lost  bool          // nobody writes the record any more
}

// add takes one line, and sees to it that a report follows.
func (f *follower) add(l record.Line) error {
	f.rec.End = nil // a resumed run goes on after it
	if err := f.rec.Add(l); err != nil {
		return err
	}
	f.began, f.lost = time.Now(), false
	if !f.armed {
		f.armed = true
		f.next.Reset(max(f.wait, gather))
	}
	return nil
}

// report renders what has come, and works out when the next one is due.
func (f *follower) report() error {
	start := time.Now()
	of, state := report.NewLiveDocument, "running"
	if end := f.rec.End; end != nil {
		of, state = report.NewDocument, "finished: "+end.Status
	} else if f.lost {
		of, state = report.NewDocument, "cut off: no process of this host writes the record, and no line has come for a while"
	}
	doc, err := of(f.rec)
	if err != nil {
		return err
	}
	var b bytes.Buffer
	if err := report.Write(&b, []report.Document{doc}, "html", report.Options{}); err != nil {
		return err
	}
	f.show(b.Bytes(), state, f.rec.End != nil)
	f.wait = max(pause, rest*time.Since(start))
	return nil
}

// look asks after a record that has had no line for a while. Where it cannot be
// told whether a process has it open, nothing is said.
func (f *follower) look() error {
	if f.lost || f.rec.Run.Schema == 0 || f.rec.End != nil || time.Since(f.began) < f.quiet {
		return nil
	}
	f.began = time.Now() // ask again after as long
	if open, known := written(f.rec.Path); open || !known {
		return nil
	}
	f.lost = true
	return f.report()
}
