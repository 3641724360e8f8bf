package schedule

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/xferbench/xferbench/internal/fault"
	"github.com/xferbench/xferbench/internal/record"
	"github.com/xferbench/xferbench/internal/remote"
	"github.com/xferbench/xferbench/internal/spec"
)

// LaunchCommand is the hidden command of this program that reads a [Launch] on its
// standard input and writes the lines of a record on its standard output.
const LaunchCommand = "launch"

// Launch is what the process of one launch gets on its standard input, as JSON.
type Launch struct {
	// Spec is the whole experiment, with what gives access to a peer.
	Spec json.RawMessage `json:"spec"`
	// Number counts launches from 0.
	Number    int    `json:"launch"`
	Isolation string `json:"isolation,omitempty"` // of the record
	// Earlier is what an earlier start of this launch measured, by condition.
	Earlier map[int]Past `json:"earlier,omitempty"`
}

// ReadLaunch reads what [Launches.Do] writes.
func ReadLaunch(r io.Reader) (l Launch, s *spec.Spec, err error) {
	if err := json.NewDecoder(r).Decode(&l); err != nil {
		return l, nil, fault.Usagef("launch on standard input: %w", err)
	}
	if s, err = spec.Parse(l.Spec); err != nil {
		return l, nil, fault.Usagef("launch on standard input: %w", err)
	}
	return l, s, nil
}

// Launches repeats a spec in processes of their own, one after another, and takes
// their lines over: the launch is then the unit that was repeated. The first
// launch's run and condition lines stand for all.
type Launches struct {
	Spec      *spec.Spec // completed
	Isolation string
	Resumed   *record.Record // nil: a new record
	// Write takes each line; its error ends the run.
	Write func(record.Line) error
	// Run completes a run line, which says what the launch was given, with what the
	// user gave.
	Run func(*record.Run)
}

// ErrLaunch is matched by the error of a launch that ended without a reason.
var ErrLaunch = errors.New("the launched process failed")

// Do runs the launches. Of failed data checks it is told at the end; any other
// failure of a launch is the last of them.
func (l *Launches) Do(ctx context.Context) error {
	from := 0
	if l.Resumed != nil {
		// They run one after another: all but the last that is there are done.
		for s := range l.Resumed.Samples.All() {
			from = max(from, s.Launch)
		}
		for _, q := range l.Resumed.Requests {
			from = max(from, q.Launch)
		}
	}
	var worst error
	for i := from; i < l.Spec.Design.Launches; i++ {
		one := Launch{Number: i, Isolation: l.Isolation, Earlier: Earlier(l.Resumed, i)}
		var err error
		if one.Spec, err = l.Spec.JSON(); err != nil {
			return err
		}
		if l.whole(one.Earlier) {
			continue
		}
		if len(one.Earlier) > 0 {
			if err := l.Write(record.Event{Level: record.Warning, Message: fmt.Sprintf("launch %d was cut off and goes on in another process: its blocks are of two", i)}); err != nil {
				return err
			}
		}
		err = l.one(ctx, one, i == from)
		if err != nil && fault.KindOf(err) != fault.Data {
			return fmt.Errorf("launch %d: %w", i, err)
		}
		worst = errors.Join(worst, err)
	}
	return worst
}

// whole reports whether every condition has every block.
func (l *Launches) whole(earlier map[int]Past) bool {
	if l.Resumed == nil || len(earlier) < len(l.Resumed.Conditions) || len(earlier) == 0 {
		return false
	}
	for _, p := range earlier {
		if len(p.Count) < *l.Spec.Design.Blocks {
			return false
		}
	}
	return true
}

func (l *Launches) one(ctx context.Context, one Launch, first bool) error {
	stdin, err := json.Marshal(one)
	if err != nil {
		return err
	}
	p, err := remote.Start(ctx, remote.Host{}, remote.Command{Argv: []string{"", LaunchCommand}, Stdin: stdin, Stream: true, Grace: l.grace()})
	if err != nil {
		return fmt.Errorf("%w: %w", ErrLaunch, err)
	}
	end, rerr := l.adopt(bufio.NewReader(p.Stdout), one.Number, first)
	if rerr != nil {
		return errors.Join(rerr, p.Stdout.Close(), p.Stop())
	}
	werr := p.Wait()
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case werr == nil:
		return nil
	case end != nil && end.ExitCode != 0:
		return &fault.Error{Kind: fault.OfExitCode(end.ExitCode), Err: errors.New(end.Error)}
	}
	return fmt.Errorf("%w: it %w; its last words: %s", ErrLaunch, p.Ending(), p.Said())
}

// grace is how long a launch may take to end: it closes its peer or its engines in
// order, each within its own timeout.
func (l *Launches) grace() time.Duration {
	const more = 30 * time.Second
	if l.Spec.Raw != nil {
		return l.Spec.Raw.Timeout + more
	}
	return more
}

// adopt copies a launch's lines into this record. It returns the launch's end.
func (l *Launches) adopt(r *bufio.Reader, launch int, first bool) (end *record.End, err error) {
	for {
		line, err := r.ReadBytes('\n')
		if err != nil {
			return end, nil // its exit says whether that was all
		}
		decoded, err := record.Parse(line)
		if err != nil {
			return end, fmt.Errorf("%w: its output: %w", ErrLaunch, err)
		}
		switch d := decoded.(type) {
		case nil, record.Summary, record.Comparison:
			continue // of one launch alone
		case record.End:
			end = &d
			continue
		case record.Run:
			if !first {
				continue
			}
			l.Run(&d)
			decoded = d
		case record.Condition:
			if !first {
				continue
			}
		case record.Sample:
			d.Launch = launch
			decoded = d
		case record.Request:
			d.Launch = launch
			decoded = d
		}
		if err := l.Write(decoded); err != nil {
			return end, err
		}
	}
}
