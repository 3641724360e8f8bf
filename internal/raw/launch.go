package raw

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/xferbench/xferbench/internal/record"
	"github.com/xferbench/xferbench/internal/remote"
	"github.com/xferbench/xferbench/internal/transport"
)

// LaunchFlag is the hidden flag by which a process knows that it is one launch
// of several.
const LaunchFlag = "launch"

// launches runs the measurement as a process of its own, Launches times one
// after another, and takes their lines over: the launch is then the unit that
// was repeated. The first launch's run and condition lines stand for all.
func (s *session) launches(ctx context.Context) error {
	if err := s.fits(); err != nil {
		return err
	}
	// Every launch gets the seed that was printed; its blocks differ by launch.
	args := slices.Clone(s.o.Argv[1:])
	if s.o.Kind == "sweep" {
		args = append(args, "--resume=false") // there was no record to go on with
	}
	args = append(args, "--no-record=true", "--record=", "--json=-", "--seed="+strconv.FormatUint(s.o.Seed, 10))
	var worst error
	for i := range s.o.Launches {
		err := s.launch(ctx, append(args, "--"+LaunchFlag+"="+strconv.Itoa(i)), i)
		if err != nil && !errors.Is(err, transport.ErrData) {
			return fmt.Errorf("launch %d: %w", i, err)
		}
		worst = errors.Join(worst, err)
	}
	return worst
}

// launchGrace is how long a launch may take to end beyond its own timeout: it
// closes its peer in order.
const launchGrace = 30 * time.Second

func (s *session) launch(ctx context.Context, args []string, i int) error {
	p, err := remote.Start(ctx, remote.Host{}, remote.Command{Argv: append([]string{""}, args...), Stream: true, Grace: s.o.Timeout + launchGrace})
	if err != nil {
		return fmt.Errorf("%w: %w", ErrLaunch, err)
	}
	end, rerr := s.adopt(bufio.NewReader(p.Stdout), i)
	if rerr != nil {
		return errors.Join(rerr, p.Stdout.Close(), p.Stop())
	}
	werr := p.Wait()
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case werr == nil:
		return nil
	case end != nil && end.ExitCode == 4:
		return fmt.Errorf("%w: %s", transport.ErrData, end.Error)
	case end != nil && end.ExitCode == 3:
		return fmt.Errorf("%w: %s", transport.ErrUnavailable, strings.TrimPrefix(end.Error, transport.ErrUnavailable.Error()+": "))
	}
	if end == nil || end.ExitCode == 0 {
		return fmt.Errorf("%w: it %w; its last words: %s", ErrLaunch, p.Ending(), p.Said())
	}
	return fmt.Errorf("%w: %s", ErrLaunch, end.Error)
}

// ErrLaunch is matched by the error of a launch that ended without a reason.
var ErrLaunch = errors.New("the launched process failed")

// adopt copies a launch's lines into this record.
func (s *session) adopt(r *bufio.Reader, launch int) (*record.End, error) {
	var end *record.End
	for {
		line, err := r.ReadBytes('\n')
		if err != nil {
			return end, nil // its exit says whether that was all
		}
		var head struct {
			Type string `json:"type"`
		}
		if err := json.Unmarshal(line, &head); err != nil {
			return end, fmt.Errorf("%w: its output: %w", ErrLaunch, err)
		}
		switch head.Type {
		case "run":
			if s.rec.Run.Schema == 0 {
				err = adoptAs(line, s, func(l *record.Run) {
					l.Argv, l.Kind, l.Launches, l.Isolation = redact(s.o.Argv), s.o.Kind, s.o.Launches, s.o.Isolation
				})
			}
		case "condition":
			if launch == 0 {
				err = adoptAs(line, s, func(*record.Condition) {})
			}
		case "cold":
			err = adoptAs(line, s, func(*record.Cold) {})
		case "sample":
			err = adoptAs(line, s, func(l *record.Sample) { l.Launch = launch })
		case "path":
			err = adoptAs(line, s, func(*record.Path) {})
		case "event":
			err = adoptAs(line, s, func(*record.Event) {})
		case "end":
			end = new(record.End)
			err = json.Unmarshal(line, end)
		}
		if err != nil {
			return end, err
		}
	}
}

func adoptAs[T record.Line](line []byte, s *session, change func(*T)) error {
	var l T
	if err := json.Unmarshal(line, &l); err != nil {
		return fmt.Errorf("%w: its output: %w", ErrLaunch, err)
	}
	change(&l)
	return s.write(l)
}
