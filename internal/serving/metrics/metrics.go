// Package metrics reads the Prometheus pages of vLLM engines and takes from
// them what proves that a KV cache moved: counts before and after a request.
//
// Which series exist depends on the release, so that readings go by capability:
// a count is there or it is not, and nothing is assumed for one that is not.
package metrics

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// MaxPage is the longest page, in bytes, that is read: an engine's has some
// 100 kB for each of its data parallel ranks.
const MaxPage = 8 << 20

// Count names one number of a page.
type Count int

// Counts of an engine. All grow only; times are in nanoseconds.
const (
	PromptTokens   Count = iota // prompt sizes, computed or not: no proof of anything
	Requests                    // finished requests
	LocalCompute                // prompt tokens computed here (0.16)
	LocalCacheHit               // prompt tokens from the prefix cache (0.16)
	ExternalKV                  // prompt tokens loaded from another engine (0.16)
	KVComputed                  // prompt tokens computed, of finished requests (0.13)
	PrefixHits                  // prefix cache hits, tokens
	ExternalHits                // tokens found in another engine's cache (0.11.1)
	Transfers                   // NIXL transfers
	TransferBytes               // sum of the lengths of their descriptors
	Descriptors                 // after merging
	TransferNS                  // from posting to the poll that saw the end
	PostNS                      // of posting
	FailedXfers                 // NIXL transfers that failed
	FailedNotifies              // NIXL notifications that failed
	ExpiredLeases               // prefill: blocks released because nobody fetched them (0.15)
	QueueNS                     // arrival to scheduled; on a decode engine the KV load is in it
	PrefillNS                   // scheduled to first token
	DecodeNS                    // first to last token
	FirstTokens                 // requests whose first token is out
	FirstTokenNS                // arrival to first token
	counts
)

// series says where on the page a count stands.
type series struct {
	name  string
	part  byte    // 't' counter, 's' sum and 'c' count of a histogram
	scale float64 // to the count's unit
	label string  // label=value that a sample must have
}

var where = [counts]series{
	PromptTokens:   {"vllm:prompt_tokens_total", 't', 1, ""},
	Requests:       {"vllm:e2e_request_latency_seconds", 'c', 1, ""},
	LocalCompute:   {"vllm:prompt_tokens_by_source_total", 't', 1, "source=local_compute"},
	LocalCacheHit:  {"vllm:prompt_tokens_by_source_total", 't', 1, "source=local_cache_hit"},
	ExternalKV:     {"vllm:prompt_tokens_by_source_total", 't', 1, "source=external_kv_transfer"},
	KVComputed:     {"vllm:request_prefill_kv_computed_tokens", 's', 1, ""},
	PrefixHits:     {"vllm:prefix_cache_hits_total", 't', 1, ""},
	ExternalHits:   {"vllm:external_prefix_cache_hits_total", 't', 1, ""},
	Transfers:      {"vllm:nixl_bytes_transferred", 'c', 1, ""},
	TransferBytes:  {"vllm:nixl_bytes_transferred", 's', 1, ""},
	Descriptors:    {"vllm:nixl_num_descriptors", 's', 1, ""},
	TransferNS:     {"vllm:nixl_xfer_time_seconds", 's', 1e9, ""},
	PostNS:         {"vllm:nixl_post_time_seconds", 's', 1e9, ""},
	FailedXfers:    {"vllm:nixl_num_failed_transfers_total", 't', 1, ""},
	FailedNotifies: {"vllm:nixl_num_failed_notifications_total", 't', 1, ""},
	ExpiredLeases:  {"vllm:nixl_num_kv_expired_reqs_total", 't', 1, ""},
	QueueNS:        {"vllm:request_queue_time_seconds", 's', 1e9, ""},
	PrefillNS:      {"vllm:request_prefill_time_seconds", 's', 1e9, ""},
	DecodeNS:       {"vllm:request_decode_time_seconds", 's', 1e9, ""},
	FirstTokens:    {"vllm:time_to_first_token_seconds", 'c', 1, ""},
	FirstTokenNS:   {"vllm:time_to_first_token_seconds", 's', 1e9, ""},
}

// Name is the series of the count as vLLM names it, with the label that picks
// it.
func (c Count) Name() string {
	if c < 0 || c >= counts {
		return fmt.Sprintf("count %d", int(c))
	}
	s := where[c]
	name := s.name
	switch s.part {
	case 's':
		name += "_sum"
	case 'c':
		name += "_count"
	}
	if s.label != "" {
		k, v, _ := strings.Cut(s.label, "=")
		name += "{" + k + `="` + v + `"}`
	}
	return name
}

// time reports whether the count is a sum of durations.
func (c Count) time() bool { return where[c].scale == 1e9 }

// Reading is the counts of one or several engines at one time. The zero value
// has none.
type Reading struct {
	val  [counts]int64
	have [counts]bool
	// Cache describes the block pool, if the page does.
	Cache Cache
	// At is when the page was asked for; the caller sets it.
	At time.Time
}

// Cache is what vllm:cache_config_info says of an engine's block pool.
type Cache struct {
	Blocks int // num_gpu_blocks, with the null block; 0: not said
	// BlockTokens is how many tokens a KV block of an attention layer holds, 0 if not
	// said: effective_attention_block_size where it is there, since engines with
	// state-space layers make their blocks larger than the block_size that they were
	// started with.
	BlockTokens   int
	PrefixCaching *bool // nil: not said
	// DType is the cache's type in vLLM's words, such as "fp8"; "": not said, or auto,
	// which is the checkpoint's.
	DType string
	// ConvDType and StateDType are the types of the convolution's and of the recurrent
	// state of state-space layers, in the same words.
	ConvDType, StateDType string
	// BlockLo and BlockHi bound the bytes that one block takes on one rank, over all
	// its layers; 0: not said. vLLM fills kv_cache_memory_bytes with as many blocks as
	// go in, so that the two are less than a part in num_gpu_blocks apart.
	BlockLo, BlockHi int64
}

// Get returns a count and whether the page has it.
func (r Reading) Get(c Count) (int64, bool) { return r.val[c], r.have[c] }

// Has reports whether all of cs are there.
func (r Reading) Has(cs ...Count) bool {
	for _, c := range cs {
		if !r.have[c] {
			return false
		}
	}
	return true
}

// Set gives a count a value; it is for tests and simulations.
func (r *Reading) Set(c Count, v int64) { r.val[c], r.have[c] = v, true }

// Since returns what was counted between before and r, and the counts that went
// backwards, because the engine was restarted in between. A count that only
// r has began at zero: Prometheus clients show a labelled series from its first
// use on. A time that went backwards is left out: vLLM 0.32.0 counts a
// request that failed before it was scheduled as one that queued for less than
// nothing.
func (r Reading) Since(before Reading) (d Reading, reset []Count) {
	d = r
	for c := range counts {
		if !r.have[c] {
			if before.have[c] {
				reset = append(reset, c)
			}
			continue
		}
		if d.val[c] -= before.val[c]; d.val[c] < 0 && c.time() {
			d.val[c], d.have[c] = 0, false
		} else if d.val[c] < 0 {
			reset = append(reset, c)
		}
	}
	return d, reset
}

// Plus adds the counts of another engine; a count is there if either has it.
func (r Reading) Plus(o Reading) Reading {
	for c := range counts {
		r.val[c] += o.val[c]
		r.have[c] = r.have[c] || o.have[c]
	}
	return r
}

// Parse reads a page in Prometheus' text format. Samples of several engines
// behind one page (data parallel ranks) are added up.
func Parse(in io.Reader) (Reading, error) {
	page, err := io.ReadAll(io.LimitReader(in, MaxPage+1))
	if err != nil {
		return Reading{}, fmt.Errorf("metrics page: %w", err)
	}
	if len(page) > MaxPage {
		return Reading{}, fmt.Errorf("metrics page: longer than %d bytes", MaxPage)
	}
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(bytes.NewReader(ours(page)))
	if err != nil {
		return Reading{}, fmt.Errorf("metrics page: %w", err)
	}
	var r Reading
	for c := range counts {
		s := where[c]
		family := families[s.name]
		if family == nil {
			continue
		}
		sum, found := 0.0, false
		for _, m := range family.Metric {
			if v, ok := s.of(m); ok {
				sum, found = sum+v*s.scale, true
			}
		}
		if !found {
			continue
		}
		if math.IsNaN(sum) || sum < 0 && !c.time() || math.Abs(sum) > 1<<62 {
			return Reading{}, fmt.Errorf("metrics page: %s is %v", c.Name(), sum)
		}
		r.Set(c, int64(math.Round(sum)))
	}
	if family := families[cacheConfig]; family != nil {
		for _, m := range family.Metric {
			r.Cache = cacheOf(m)
		}
	}
	return r, nil
}

// maxForeign is how many bytes without any of our series are parsed, only to say
// what is wrong with them. Parsing takes a second and a hundred times the memory
// for each MiB of short lines.
const maxForeign = 64 << 10

// ours are the page's lines about series that are counted here; of a page that
// has none, its beginning.
func ours(page []byte) []byte {
	var out []byte
	for line := range bytes.Lines(page) {
		name := bytes.TrimLeft(line, " \t")
		if bytes.HasPrefix(name, []byte("#")) {
			// "# TYPE name …": the word after the next.
			_, name, _ = bytes.Cut(bytes.TrimLeft(name[1:], " \t"), []byte(" "))
		}
		for _, n := range names {
			if bytes.HasPrefix(name, n) {
				out = append(out, line...)
				break
			}
		}
	}
	if len(out) > 0 {
		return out
	}
	if len(page) <= maxForeign {
		return page
	}
	return page[:bytes.LastIndexByte(page[:maxForeign], '\n')+1]
}

// names are the families that are read.
var names = func() [][]byte {
	all := [][]byte{[]byte(cacheConfig)}
	for _, s := range where {
		if !slices.ContainsFunc(all, func(n []byte) bool { return string(n) == s.name }) {
			all = append(all, []byte(s.name))
		}
	}
	return all
}()

const cacheConfig = "vllm:cache_config_info"

// of returns the sample's value if it is the series'.
func (s series) of(m *dto.Metric) (float64, bool) {
	if k, v, labelled := strings.Cut(s.label, "="); labelled && label(m, k) != v {
		return 0, false
	}
	switch {
	case s.part == 't' && m.Counter != nil:
		return m.Counter.GetValue(), true
	case s.part == 't' && m.Untyped != nil:
		return m.Untyped.GetValue(), true
	case s.part == 's' && m.Histogram != nil:
		return m.Histogram.GetSampleSum(), true
	case s.part == 'c' && m.Histogram != nil:
		return float64(m.Histogram.GetSampleCount()), true
	}
	return 0, false
}

func label(m *dto.Metric, name string) string {
	for _, l := range m.Label {
		if l.GetName() == name {
			return l.GetValue()
		}
	}
	return ""
}

// cacheOf reads the labels of vllm:cache_config_info.
func cacheOf(m *dto.Metric) Cache {
	var c Cache
	number := func(name string) int64 {
		if n, err := strconv.ParseInt(label(m, name), 10, 64); err == nil && n > 0 && n < 1<<48 {
			return n
		}
		return 0
	}
	blocks, bytes := number("num_gpu_blocks"), number("kv_cache_memory_bytes")
	c.Blocks = int(blocks)
	c.BlockTokens = int(cmp.Or(number("effective_attention_block_size"), number("block_size")))
	if on, err := strconv.ParseBool(label(m, "enable_prefix_caching")); err == nil {
		c.PrefixCaching = &on
	}
	for name, to := range map[string]*string{"cache_dtype": &c.DType, "mamba_cache_dtype": &c.ConvDType, "mamba_ssm_cache_dtype": &c.StateDType} {
		if t := label(m, name); t != "auto" {
			*to = t
		}
	}
	// Of a pool whose size was given, or whose pages are padded to that of a state,
	// the memory says nothing about what moves; nor do lists of blocks where all layers
	// have a window.
	plain := true
	for _, name := range []string{"num_gpu_blocks_override", "sliding_window", "mamba_page_size_padded", "skip_page_size_padded", "mamba_block_size"} {
		plain = plain && slices.Contains([]string{"None", ""}, label(m, name))
	}
	if plain && blocks > 0 && bytes > 0 {
		c.BlockLo, c.BlockHi = bytes/(blocks+1)+1, bytes/blocks
	}
	return c
}
