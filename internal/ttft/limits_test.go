package ttft

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/xferbench/xferbench/internal/record"
	"github.com/xferbench/xferbench/internal/serving/metrics"
)

// Metrics that lose their end while a run is under way end it: each request
// would wait for them.
func TestMetricsThatLoseTheirEnd(t *testing.T) {
	var scrapes, sent atomic.Int32
	long := strings.Repeat("x", metrics.MaxPage+1)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/version":
			_, _ = io.WriteString(w, `{"version":"0.32.0"}`)
		case "/v1/models":
			_, _ = io.WriteString(w, `{"data":[{"id":"m"}]}`)
		case "/metrics":
			if scrapes.Add(1) > 3 {
				_, _ = io.WriteString(w, long)
			}
		default:
			sent.Add(1)
			w.WriteHeader(http.StatusTeapot)
		}
	}))
	defer s.Close()
	err := Run(context.Background(), Config{Arms: []Arm{{Name: "a", Mode: record.ModeUnified, Path: record.PathUnified, Front: s.URL}},
		PromptTokens: []int{8}, MaxTokens: 2, Load: record.LoadClosed, Concurrency: []int{1}, Iterations: 1000, Blocks: 1, Seed: 1,
		Prompts: TokenPrompts, VocabSize: 32_000, Timeout: time.Minute, Settle: time.Millisecond, Record: func(record.Line) error { return nil }})
	if !errors.Is(err, ErrLimit) || !strings.Contains(err.Error(), "3 times in a row") || !strings.Contains(err.Error(), "/metrics") || sent.Load() > 10 {
		t.Errorf("%v after %d requests", err, sent.Load())
	}
}
