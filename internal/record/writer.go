package record

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Marshal is a line as it stands in the file: the type first, a newline last.
func Marshal(l Line) ([]byte, error) {
	body, err := json.Marshal(l)
	if err != nil {
		return nil, fmt.Errorf("%s line: %w", l.lineType(), err)
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, `{"type":%q`, l.lineType())
	if len(body) > 2 {
		b.WriteByte(',')
	}
	b.Write(body[1:])
	b.WriteByte('\n')
	return b.Bytes(), nil
}

// reserve is the room kept on disk for the lines that close a record, so that
// a full disk cannot leave it open.
const reserve = 64 << 10

// Writer appends lines to a record. Its methods may be called from several
// goroutines. The first error stays: later lines but the End are refused with
// it.
type Writer struct {
	mu      sync.Mutex
	w       io.Writer
	file    *os.File // nil: w is not ours to close
	size    int64    // bytes of whole lines in file
	ensured int64    // bytes of file that the disk has promised
	err     error
	ended   bool
}

// Create makes the record file path; one that exists is refused.
func Create(path string) (*Writer, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL|os.O_APPEND, 0o644)
	if errors.Is(err, os.ErrExist) {
		return nil, fmt.Errorf("record %s exists: choose another --record, or remove it", path)
	}
	if err != nil {
		return nil, fmt.Errorf("record: %w", err)
	}
	w := &Writer{w: f, file: f}
	if err := w.ensure(0); err != nil {
		return nil, errors.Join(fmt.Errorf("record: %w", err), f.Close(), os.Remove(path))
	}
	return w, nil
}

// Append opens an existing record for more lines, as a resumed sweep does. A
// last line that was cut off is removed first, and one that only lacks its
// newline gets it.
func Append(path string) (*Writer, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_APPEND, 0)
	if err != nil {
		return nil, fmt.Errorf("record: %w", err)
	}
	w := &Writer{w: f, file: f}
	if err = plain(f); err == nil {
		w.size, err = wholeLines(f)
	}
	if err == nil {
		err = f.Truncate(w.size)
	}
	if err == nil {
		err = w.ensure(0)
	}
	if err == nil {
		err = w.closeLine()
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("record %s: %w", path, err), f.Close())
	}
	return w, nil
}

// plain is an error for a compressed file, to which no line can be added.
func plain(f *os.File) error {
	head := make([]byte, 8)
	n, err := f.ReadAt(head, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	return refusePacked(head[:n])
}

// NewWriter writes a record to w, which the caller keeps.
func NewWriter(w io.Writer) *Writer { return &Writer{w: w} }

// closeLine ends a last line that is whole but for its newline.
func (w *Writer) closeLine() error {
	if w.size == 0 {
		return nil
	}
	var end [1]byte
	if _, err := w.file.ReadAt(end[:], w.size-1); err != nil || end[0] == '\n' {
		return err
	}
	return w.put([]byte{'\n'})
}

// wholeLines is how many bytes of f are whole lines, as [Read] takes them: the
// last one may lack its newline.
func wholeLines(f *os.File) (int64, error) {
	end, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return 0, err
	}
	size := end
	buf := make([]byte, 1<<16)
	for end > 0 {
		n := min(end, int64(len(buf)))
		if _, err := f.ReadAt(buf[:n], end-n); err != nil {
			return 0, err
		}
		if i := bytes.LastIndexByte(buf[:n], '\n'); i >= 0 {
			end += int64(i) + 1 - n
			break
		}
		end -= n
	}
	if size-end > maxLine {
		return end, nil
	}
	rest := make([]byte, size-end)
	if _, err := f.ReadAt(rest, end); err != nil && !errors.Is(err, io.EOF) {
		return 0, err
	}
	if json.Valid(rest) {
		return size, nil
	}
	return end, nil
}

// ensure has the disk, and the limit on a file's size, promise room for n more
// bytes and the reserve.
func (w *Writer) ensure(n int64) error {
	if w.file == nil {
		return nil
	}
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_FSIZE, &limit); err != nil {
		return fmt.Errorf("%s: getrlimit: %w", w.file.Name(), err)
	}
	if uint64(w.size+n+reserve) > limit.Cur {
		return fmt.Errorf("%s: %w: files of this process may have %d bytes; raise that (ulimit -f)", w.file.Name(), unix.EFBIG, limit.Cur)
	}
	if w.size+n+reserve <= w.ensured {
		return nil
	}
	want := w.size + n + 4*reserve
	err := unix.Fallocate(int(w.file.Fd()), unix.FALLOC_FL_KEEP_SIZE, 0, want)
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS) {
		err = nil // this file system makes no promises
	}
	if err != nil {
		return fmt.Errorf("%s: %w; free some room or choose another --record", w.file.Name(), err)
	}
	w.ensured = want
	return nil
}

// Path is the file's name, "" for a writer without one.
func (w *Writer) Path() string {
	if w.file == nil {
		return ""
	}
	return w.file.Name()
}

// Write appends one line.
func (w *Writer) Write(l Line) error {
	b, err := Marshal(l)
	if err != nil {
		return err
	}
	_, closing := l.(End)
	return w.append(b, closing)
}

// append writes a line's text; closing: it is the End.
func (w *Writer) append(b []byte, closing bool) (err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.ended:
		return errors.New("record: a line after its end")
	case w.err != nil && !closing:
		return w.err
	}
	if !closing {
		err = w.ensure(int64(len(b)))
	}
	if err == nil {
		err = w.put(b)
	}
	if err != nil && w.err == nil {
		w.err = fmt.Errorf("record: %w", err)
	}
	w.ended = closing
	if err != nil {
		return fmt.Errorf("record: %w", err)
	}
	return nil
}

// put writes one line whole or not at all.
func (w *Writer) put(b []byte) error {
	n, err := w.w.Write(b)
	if err != nil {
		if w.file != nil && n > 0 {
			err = errors.Join(err, w.file.Truncate(w.size))
		}
		return err
	}
	w.size += int64(len(b))
	return nil
}

// Close returns the unused reserve and closes the file, and removes one without
// a line: a command that failed before it began leaves nothing. It may be
// called twice.
func (w *Writer) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.file == nil {
		return nil
	}
	err := w.file.Truncate(w.size)
	if w.size == 0 {
		err = errors.Join(err, os.Remove(w.file.Name()))
	}
	err = errors.Join(err, w.file.Close())
	w.file, w.ended = nil, true
	if err != nil {
		return fmt.Errorf("record: %w", err)
	}
	return nil
}

const stateVar = "XDG_STATE_HOME"

// StateWarning says that $XDG_STATE_HOME is passed over, "" where it is not.
func StateWarning() string {
	v := os.Getenv(stateVar)
	if v == "" || filepath.IsAbs(v) {
		return ""
	}
	return fmt.Sprintf("%s=%q is not an absolute path, and so passed over (XDG Base Directory Specification)", stateVar, v)
}

// Dir is where records go that were not given a name:
// $XDG_STATE_HOME/xferbench, by default ~/.local/state/xferbench. The variable
// counts only with an absolute path: see [StateWarning].
func Dir() (string, error) {
	state := os.Getenv(stateVar)
	if !filepath.IsAbs(state) {
		home, err := os.UserHomeDir()
		if err != nil {
			return "", fmt.Errorf("no place for records: %w; set XDG_STATE_HOME, or use --record FILE or --no-record", err)
		}
		state = filepath.Join(home, ".local", "state")
	}
	return filepath.Join(state, "xferbench"), nil
}

// CreateDefault makes a new record in [Dir], named after the time and id.
func CreateDefault(start time.Time, id string) (*Writer, error) {
	dir, err := Dir()
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("record: %w; use --record FILE or --no-record", err)
	}
	return Create(filepath.Join(dir, start.UTC().Format("20060102T150405.000Z")+"-"+id+".jsonl"))
}
