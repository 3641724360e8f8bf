package transport

import (
	"os"
	"strings"
	"testing"
)

// sanitizer is the address sanitizer's runtime in this process, or "". It must
// come before every other preloaded library, and another root may not have it.
func sanitizer(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		t.Fatal(err)
	}
	for l := range strings.SplitSeq(string(b), "\n") {
		if f := strings.Fields(l); len(f) == 6 && strings.Contains(f[5], "/libasan.so") {
			return f[5]
		}
	}
	return ""
}
