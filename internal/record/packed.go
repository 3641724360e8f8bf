package record

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
)

// maxUnpacked is how much a compressed record may hold; one of 10^6 samples holds
// 0.3 GB. A few megabytes can be made to unpack to any size.
const maxUnpacked = 4 << 30

// packings are the compressed formats that records come in, by their first bytes.
var packings = []struct{ name, magic string }{
	{"gzip", "\x1f\x8b"}, {"zstd", "\x28\xb5\x2f\xfd"}, {"xz", "\xfd7zXZ\x00"}, {"bzip2", "BZh"}, {"zip", "PK\x03\x04"},
}

// packing names the compressed format that text begins like; "" is none.
func packing(text []byte) string {
	for _, p := range packings {
		if bytes.HasPrefix(text, []byte(p.magic)) {
			return p.name
		}
	}
	return ""
}

// refusePacked is the error of a compressed file where a plain one is written or
// followed.
func refusePacked(text []byte) error {
	if name := packing(text); name != "" {
		return fmt.Errorf("a compressed file (%s): unpack it first", name)
	}
	return nil
}

// unpacked is r, or what r holds where that is compressed by gzip. Its reader fails
// with [errCut] where the compressed file ends early.
func unpacked(r io.Reader) (*bufio.Reader, error) {
	br := bufio.NewReaderSize(r, 1<<16)
	head, err := br.Peek(8)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	switch name := packing(head); name {
	case "":
		return br, nil
	case "gzip":
		z := &unzipper{from: br, left: maxUnpacked}
		return bufio.NewReaderSize(z, 1<<16), nil
	default:
		return nil, fmt.Errorf("compressed by %s: records are read plain or by gzip; unpack it first", name)
	}
}

// errCut says that a compressed file ends before its data does.
var errCut = errors.New("the compressed file ends early")

// unzipper reads gzip and stops after maxUnpacked bytes.
type unzipper struct {
	from io.Reader
	z    *gzip.Reader
	left int64
}

func (u *unzipper) Read(p []byte) (int, error) {
	if u.z == nil {
		var err error
		if u.z, err = gzip.NewReader(u.from); err != nil {
			return 0, u.named(err)
		}
	}
	n, err := u.z.Read(p)
	if u.left -= int64(n); u.left < 0 {
		return 0, fmt.Errorf("gzip: more than %d bytes unpacked: unpack it first if that is a record", int64(maxUnpacked))
	}
	return n, u.named(err)
}

func (u *unzipper) named(err error) error {
	switch {
	case err == nil || err == io.EOF: //nolint:errorlint // a reader's end is never wrapped
		return err
	case errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF):
		return errCut
	}
	return fmt.Errorf("gzip: %w", err)
}
