package transport

import (
	"errors"
	"strings"
	"testing"

	"github.com/xferbench/xferbench/fabric"
	"github.com/xferbench/xferbench/ucx"
)

// What a user reads names the flag; what the binding says does not.
func TestFlagged(t *testing.T) {
	for hint := range fabricHints {
		e := &fabric.Error{Provider: "tcp", Hint: hint, Kind: fabric.ErrUnavailable}
		if strings.Contains(e.Error(), "--") {
			t.Errorf("the binding names a flag: %v", e)
		}
		if err := fabricError(e); !strings.Contains(err.Error(), "--") || !errors.Is(err, ErrUnavailable) {
			t.Errorf("%v: no flag is named", err)
		}
	}
	for hint := range ucxHints {
		e := &ucx.Error{Call: "loading", Hint: hint, Kind: ucx.ErrUnsupported}
		if strings.Contains(e.Error(), "--") || strings.Contains(e.Error(), "ucx:") {
			t.Errorf("the binding names a flag or a provider: %v", e)
		}
		if err := ucxError(e); strings.Contains(err.Error(), "UCX_TLS") || !errors.Is(err, ErrUnsupported) {
			t.Errorf("%v: not in this program's words", err)
		}
	}
	if err := Flagged(nil); err != nil {
		t.Error(err)
	}
}
