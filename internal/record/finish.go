package record

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
)

// Finish closes the record path, whose writer is gone: a last line that was cut
// off is replaced by e, in the room that was kept for it, and what is left of
// that room is given back. A record that has its end keeps it, and one without
// a line is removed, as [Writer.Close] does.
func Finish(path string, e End) (err error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if errors.Is(err, os.ErrNotExist) {
		return nil // its writer removed it
	}
	if err != nil {
		return fmt.Errorf("record: %w", err)
	}
	defer func() {
		if err = errors.Join(err, f.Close()); err != nil {
			err = fmt.Errorf("record %s: %w", path, err)
		}
	}()
	size, err := wholeLines(f)
	if err != nil {
		return err
	}
	if size == 0 {
		return os.Remove(path)
	}
	last, err := lastLine(f, size)
	if err != nil {
		return err
	}
	var head struct {
		Type string `json:"type"`
	}
	if err := json.Unmarshal(last, &head); err != nil {
		return err
	}
	if head.Type == (End{}).lineType() {
		return f.Truncate(size)
	}
	b, err := Marshal(e)
	if err != nil {
		return err
	}
	if !bytes.HasSuffix(last, []byte("\n")) {
		b = append([]byte("\n"), b...)
	}
	// Cutting first would give the room back, on a disk that may be full.
	if _, err := f.WriteAt(b, size); err != nil {
		return errors.Join(err, f.Truncate(size))
	}
	return f.Truncate(size + int64(len(b)))
}

// lastLine is the last of the whole lines that end at size, its newline too.
func lastLine(f *os.File, size int64) ([]byte, error) {
	for n := min(size, 1<<12); ; n = min(size, n*16) {
		b := make([]byte, n)
		if _, err := f.ReadAt(b, size-n); err != nil {
			return nil, err
		}
		if i := bytes.LastIndexByte(b[:n-1], '\n'); i >= 0 || n == size {
			return b[i+1:], nil
		}
		if n > maxLine {
			return nil, fmt.Errorf("its last line is longer than %d bytes", maxLine)
		}
	}
}
