package testenv

import (
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
)

// fakeTB records how Need ends a test without ending the real one.
type fakeTB struct {
	testing.TB
	outcome, message string
}

func (f *fakeTB) Helper() {}
func (f *fakeTB) Fatalf(format string, args ...any) {
	f.outcome, f.message = "fail", fmt.Sprintf(format, args...)
	runtime.Goexit()
}
func (f *fakeTB) Skipf(format string, args ...any) {
	f.outcome, f.message = "skip", fmt.Sprintf(format, args...)
	runtime.Goexit()
}

func TestNeed(t *testing.T) {
	missing := errors.New("no such device")
	tests := map[string]struct {
		require string
		err     error
		want    string
	}{
		"present":                    {"efa", nil, ""},
		"absent and not required":    {"netns,ucx", missing, "skip"},
		"absent and required":        {"netns,efa", missing, "fail"},
		"a longer name is no match":  {"efa-direct", missing, "skip"},
		"nothing required, absent":   {"", missing, "skip"},
		"required alone and missing": {"efa", missing, "fail"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Setenv(RequireVar, tt.require)
			f := &fakeTB{}
			done := make(chan struct{})
			go func() { defer close(done); Need(f, "efa", tt.err) }()
			<-done
			if f.outcome != tt.want {
				t.Fatalf("Need ended with %q, want %q", f.outcome, tt.want)
			}
			if tt.err != nil && !strings.Contains(f.message, missing.Error()) {
				t.Errorf("message %q does not carry the reason", f.message)
			}
		})
	}
}
