package remote

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Kept is this process as one that another keeps; a nil Kept has no keeper, and
// its methods do nothing.
type Kept struct {
	Setup
	pipe *os.File
	stop chan error

	mu sync.Mutex
}

// ErrKeeper is matched by what [Kept.Stop] tells when the keeper is gone.
var ErrKeeper = errors.New("the process that started this one is gone")

// ErrRefused is matched by the error of a process in a namespace where it cannot
// run. Its keeper knows, and starts another.
var ErrRefused = errors.New("no namespace")

// orphanLife is how long a kept process whose keeper is gone may take to end:
// nobody is left to wait for it.
const orphanLife = 30 * time.Second

// Inside finds out whether this process is kept, and makes it ready: in a
// namespace of its own the loopback goes up. It is called once, before anything
// else is started.
func Inside() (*Kept, error) {
	word, ok := os.LookupEnv(keeperVar)
	if !ok {
		return nil, nil
	}
	if err := os.Unsetenv(keeperVar); err != nil {
		return nil, err
	}
	fd, err := strconv.Atoi(word)
	if err != nil || fd < 3 {
		return nil, nil
	}
	if t, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE); err != nil || t != unix.SOCK_STREAM {
		return nil, nil // the variable is left over from something else
	}
	unix.CloseOnExec(fd)
	k := &Kept{pipe: os.NewFile(uintptr(fd), "keeper"), stop: make(chan error, 1)}
	if err := debug.SetCrashOutput(k.pipe, debug.CrashOptions{}); err != nil {
		return nil, fmt.Errorf("the keeper's pipe: %w", err)
	}
	r := bufio.NewReader(k.pipe)
	m, err := receive(r)
	if err != nil || m.Setup == nil {
		return nil, fmt.Errorf("%w: no word of it: %w", ErrKeeper, err)
	}
	k.Setup = *m.Setup
	if k.Namespace {
		if err := loopbackUp(); err != nil {
			return nil, errors.Join(ErrRefused, k.send(message{Refused: fmt.Sprintf("this kernel or container lets nothing run in one (%v)", err)}))
		}
	}
	go k.listen(r)
	return k, nil
}

func receive(r *bufio.Reader) (m message, err error) {
	line, err := r.ReadBytes('\n')
	if err != nil {
		return m, err
	}
	return m, json.Unmarshal(line, &m)
}

// listen waits for the word to stop, and for the keeper's end.
func (k *Kept) listen(r *bufio.Reader) {
	for {
		m, err := receive(r)
		switch {
		case errors.Is(err, io.EOF), errors.Is(err, unix.ECONNRESET):
			k.end(ErrKeeper)
			time.AfterFunc(orphanLife, func() { os.Exit(3) })
			return
		case err != nil:
			k.end(fmt.Errorf("%w: %w", ErrKeeper, err))
			return
		case m.Stop != "":
			k.end(nil)
		}
	}
}

// end passes the first reason on.
func (k *Kept) end(why error) {
	select {
	case k.stop <- why:
	default:
	}
}

// Stop yields once when this process is to end in order: nil because a signal
// came, or an error that matches [ErrKeeper].
func (k *Kept) Stop() <-chan error {
	if k == nil {
		return nil
	}
	return k.stop
}

// Record tells the keeper where the record is, for it to close if need be.
func (k *Kept) Record(path string) error {
	if k == nil || path == "" {
		return nil
	}
	return k.send(message{Record: path})
}

// Done tells the keeper the exit code; the process then exits. A keeper that is
// gone needs none.
func (k *Kept) Done(code int) error {
	if k == nil {
		return nil
	}
	if err := k.send(message{Done: &code}); err != nil && !errors.Is(err, unix.EPIPE) && !errors.Is(err, unix.ECONNRESET) {
		return err
	}
	return nil
}

func (k *Kept) send(m message) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	return json.NewEncoder(k.pipe).Encode(m)
}
