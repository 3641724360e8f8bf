package sim

import (
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
)

// tally is what the engine counts; guarded by Engine.mu.
type tally struct {
	promptTokens, generated, requests                              int64
	localCompute, localHit, external                               int64
	prefixQueries, prefixHits, externalQueries, externalHits       int64
	failedTransfers, failedNotifications, expired                  int64
	xfer, post, bytes, descs                                       histogram
	ttft, e2e, queue, prefill, decode, inference, kvComputed, itls histogram
	running, waiting                                               int64
}

// histogram is one of Prometheus' kind.
type histogram struct {
	bounds []float64
	counts []uint64
	n      uint64
	sum    float64
}

var (
	timeBounds = []float64{0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80, 160, 640, 2560}
	sizeBounds = []float64{1, 10, 20, 50, 100, 200, 500, 1e3, 2e3, 5e3, 1e4, 2e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10}
)

func (t *tally) init() {
	for _, h := range []*histogram{&t.xfer, &t.post, &t.ttft, &t.e2e, &t.queue, &t.prefill, &t.decode, &t.inference, &t.itls} {
		*h = histogram{bounds: timeBounds, counts: make([]uint64, len(timeBounds))}
	}
	for _, h := range []*histogram{&t.bytes, &t.descs, &t.kvComputed} {
		*h = histogram{bounds: sizeBounds, counts: make([]uint64, len(sizeBounds))}
	}
}

func (h *histogram) add(v float64) {
	h.n++
	h.sum += v
	for i, b := range h.bounds {
		if v <= b {
			h.counts[i]++
		}
	}
}

// moved counts a transfer.
func (t *tally) moved(m Moved) {
	t.xfer.addTime(m.Total)
	t.post.addTime(m.Post)
	t.bytes.add(float64(m.Bytes))
	t.descs.add(float64(m.Descriptors))
}

func (h *histogram) addTime(d time.Duration) { h.add(d.Seconds()) }

// page writes the metrics page.
type page struct {
	w      io.Writer
	labels []*dto.LabelPair
	hide   []string
	err    error
}

func pair(k, v string) *dto.LabelPair { return &dto.LabelPair{Name: &k, Value: &v} }

func (p *page) family(name string, kind dto.MetricType, ms ...*dto.Metric) {
	for _, h := range p.hide {
		if strings.Contains(name, h) {
			return
		}
	}
	if p.err != nil {
		return
	}
	help := "Simulated."
	for _, m := range ms {
		m.Label = append(m.Label, p.labels...)
	}
	_, p.err = expfmt.MetricFamilyToText(p.w, &dto.MetricFamily{Name: &name, Help: &help, Type: &kind, Metric: ms})
}

func (p *page) counter(name string, v int64, labels ...*dto.LabelPair) {
	p.family(name, dto.MetricType_COUNTER, counterMetric(v, labels...))
}

func counterMetric(v int64, labels ...*dto.LabelPair) *dto.Metric {
	f := float64(v)
	return &dto.Metric{Label: labels, Counter: &dto.Counter{Value: &f}}
}

func (p *page) gauge(name string, v float64, labels ...*dto.LabelPair) {
	p.family(name, dto.MetricType_GAUGE, &dto.Metric{Label: labels, Gauge: &dto.Gauge{Value: &v}})
}

func (p *page) histogram(name string, h histogram) {
	d := &dto.Histogram{SampleCount: &h.n, SampleSum: &h.sum}
	for i := range h.bounds {
		d.Bucket = append(d.Bucket, &dto.Bucket{UpperBound: &h.bounds[i], CumulativeCount: &h.counts[i]})
	}
	p.family(name, dto.MetricType_HISTOGRAM, &dto.Metric{Histogram: d})
}

// before reports whether the release that the engine plays is older than 0.minor.
func (c Config) before(minor int) bool {
	_, rest, _ := strings.Cut(c.Release, ".")
	m, _, _ := strings.Cut(rest, ".")
	n, err := strconv.Atoi(m)
	return err == nil && strings.HasPrefix(c.Release, "0.") && n < minor
}

func (e *Engine) metrics(w http.ResponseWriter, _ *http.Request) {
	for _, in := range e.cfg.Faults {
		if in.Fault == NoMetrics {
			http.NotFound(w, nil)
			return
		}
	}
	var out strings.Builder
	e.mu.Lock()
	p := &page{w: &out, labels: []*dto.LabelPair{pair("engine", "0"), pair("model_name", e.cfg.Model)}, hide: e.cfg.HideSeries}
	e.m.write(p, e.cfg, float64(e.cfg.Blocks-1-e.pool.Available())/float64(e.cfg.Blocks-1))
	e.mu.Unlock()
	if p.err != nil {
		http.Error(w, fmt.Sprintf("metrics: %v", p.err), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", string(expfmt.NewFormat(expfmt.TypeTextPlain)))
	_, _ = io.WriteString(w, out.String()) // the client went away: nothing to do
}

func (t *tally) write(p *page, c Config, usage float64) {
	p.gauge("vllm:num_requests_running", float64(t.running))
	p.gauge("vllm:num_requests_waiting", float64(t.waiting))
	p.gauge("vllm:kv_cache_usage_perc", usage)
	p.counter("vllm:prefix_cache_queries_total", t.prefixQueries)
	p.counter("vllm:prefix_cache_hits_total", t.prefixHits)
	p.counter("vllm:external_prefix_cache_queries_total", t.externalQueries)
	p.counter("vllm:external_prefix_cache_hits_total", t.externalHits)
	p.counter("vllm:prompt_tokens_total", t.promptTokens)
	p.counter("vllm:generation_tokens_total", t.generated)
	if !c.before(16) {
		p.family("vllm:prompt_tokens_by_source_total", dto.MetricType_COUNTER,
			counterMetric(t.localCompute, pair("source", "local_compute")),
			counterMetric(t.localHit, pair("source", "local_cache_hit")),
			counterMetric(t.external, pair("source", "external_kv_transfer")))
	}
	p.histogram("vllm:time_to_first_token_seconds", t.ttft)
	p.histogram("vllm:inter_token_latency_seconds", t.itls)
	p.histogram("vllm:e2e_request_latency_seconds", t.e2e)
	p.histogram("vllm:request_queue_time_seconds", t.queue)
	p.histogram("vllm:request_inference_time_seconds", t.inference)
	p.histogram("vllm:request_prefill_time_seconds", t.prefill)
	p.histogram("vllm:request_decode_time_seconds", t.decode)
	p.histogram("vllm:request_prefill_kv_computed_tokens", t.kvComputed)
	if c.Role != Unified {
		p.histogram("vllm:nixl_xfer_time_seconds", t.xfer)
		p.histogram("vllm:nixl_post_time_seconds", t.post)
		p.histogram("vllm:nixl_bytes_transferred", t.bytes)
		p.histogram("vllm:nixl_num_descriptors", t.descs)
		p.counter("vllm:nixl_num_failed_transfers_total", t.failedTransfers)
		p.counter("vllm:nixl_num_failed_notifications_total", t.failedNotifications)
		p.counter("vllm:nixl_num_kv_expired_reqs_total", t.expired)
	}
	labels := []*dto.LabelPair{pair("block_size", strconv.Itoa(c.Geometry.BlockTokens)), pair("cache_dtype", c.DType), pair("num_gpu_blocks", strconv.Itoa(c.Blocks)),
		pair("enable_prefix_caching", map[bool]string{true: "True", false: "False"}[c.Caching])}
	if !c.before(32) {
		// One rank's memory, with the rest that is left over.
		bytes := c.Blocks*c.Geometry.BytesPerToken/c.Geometry.Ranks*c.Geometry.BlockTokens + 7
		labels = append(labels, pair("kv_cache_memory_bytes", strconv.Itoa(bytes)))
	}
	p.gauge("vllm:cache_config_info", 1, labels...)
}
