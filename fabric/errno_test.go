package fabric

import (
	"errors"
	"io/fs"
	"syscall"
	"testing"
)

// What errors.Is finds in the error of a call that libfabric refused.
func TestErrorsIs(t *testing.T) {
	_, err := need(t).Find(Hints{Provider: "nonesuch"})
	for _, target := range []error{ErrUnavailable, ErrNoData, syscall.ENODATA} {
		if !errors.Is(err, target) {
			t.Errorf("%v is not %v", err, target)
		}
	}
	for _, target := range []error{ErrUnsupported, ErrAgain, syscall.EAGAIN, syscall.ENOMEM} {
		if errors.Is(err, target) {
			t.Errorf("%v is %v", err, target)
		}
	}
	var code Errno
	if !errors.As(err, &code) || code != ErrNoData {
		t.Errorf("the code is %d", int(code))
	}
	if !errors.Is(&Error{Errno: ErrAccess}, fs.ErrPermission) {
		t.Error("EACCES is not fs.ErrPermission")
	}
}

// The table of words that serves without a library says what the library says.
func TestErrnoWords(t *testing.T) {
	need(t)
	for e, words := range ownWords {
		if e.Error() != words {
			t.Errorf("%d: fi_strerror says %q, the table %q", int(e), e.Error(), words)
		}
	}
	if ErrNoData.Error() != "No data available" || ErrNoData.words() != "no data available" {
		t.Errorf("FI_ENODATA: %q, %q", ErrNoData.Error(), ErrNoData.words())
	}
}
