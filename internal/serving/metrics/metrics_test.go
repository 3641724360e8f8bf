package metrics

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const page = `# HELP vllm:prompt_tokens_by_source_total Number of prompt tokens by source.
# TYPE vllm:prompt_tokens_by_source_total counter
vllm:prompt_tokens_by_source_total{engine="0",model_name="m",source="local_compute"} 17.0
vllm:prompt_tokens_by_source_total{engine="0",model_name="m",source="external_kv_transfer"} 8000.0
vllm:prompt_tokens_by_source_total{engine="1",model_name="m",source="external_kv_transfer"} 16.0
# TYPE vllm:nixl_xfer_time_seconds histogram
vllm:nixl_xfer_time_seconds_bucket{engine="0",le="0.005"} 0.0
vllm:nixl_xfer_time_seconds_bucket{engine="0",le="+Inf"} 2.0
vllm:nixl_xfer_time_seconds_sum{engine="0"} 0.0123456789
vllm:nixl_xfer_time_seconds_count{engine="0"} 2.0
# TYPE vllm:nixl_bytes_transferred histogram
vllm:nixl_bytes_transferred_bucket{engine="0",le="+Inf"} 2.0
vllm:nixl_bytes_transferred_sum{engine="0"} 4.58752e+08
vllm:nixl_bytes_transferred_count{engine="0"} 2.0
# TYPE vllm:cache_config_info gauge
vllm:cache_config_info{block_size="16",enable_prefix_caching="False",engine="0",num_gpu_blocks="8500"} 1.0
`

func TestParse(t *testing.T) {
	r, err := Parse(strings.NewReader(page))
	if err != nil {
		t.Fatal(err)
	}
	want := map[Count]int64{LocalCompute: 17, ExternalKV: 8016, TransferNS: 12_345_679, Transfers: 2, TransferBytes: 458_752_000}
	for c := range counts {
		v, ok := r.Get(c)
		if w, there := want[c]; ok != there || v != w {
			t.Errorf("%s: %d, %v; want %d, %v", c.Name(), v, ok, w, there)
		}
	}
	off := false
	if diff := cmp.Diff(Cache{Blocks: 8500, BlockTokens: 16, PrefixCaching: &off}, r.Cache); diff != "" {
		t.Errorf("cache (-want +got):\n%s", diff)
	}
}

func TestParseRefuses(t *testing.T) {
	for name, in := range map[string]string{
		"no page":        "<html>not found</html>",
		"cut in a value": "# TYPE vllm:prompt_tokens_total counter\nvllm:prompt_tokens_total{engine=\"0\"} ",
		"not a number":   "# TYPE vllm:prompt_tokens_total counter\nvllm:prompt_tokens_total NaN\n",
		"negative":       "# TYPE vllm:prompt_tokens_total counter\nvllm:prompt_tokens_total -1\n",
	} {
		if r, err := Parse(strings.NewReader(in)); err == nil {
			t.Errorf("%s: read as %+v", name, r)
		}
	}
}

// As vLLM 0.32.0 counts a request that failed before it was scheduled.
func TestNegativeQueueTime(t *testing.T) {
	read := func(sum string, n int) Reading {
		r, err := Parse(strings.NewReader(fmt.Sprintf("# TYPE vllm:request_queue_time_seconds histogram\nvllm:request_queue_time_seconds_bucket{le=\"+Inf\"} %d\n"+
			"vllm:request_queue_time_seconds_sum %s\nvllm:request_queue_time_seconds_count %d\n", n, sum, n)))
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	good, bad, later := read("2", 1), read("-11916.9", 2), read("-11914.4", 3)
	if d, reset := bad.Since(good); d.Has(QueueNS) || len(reset) > 0 {
		t.Errorf("the failed request: %v, reset %v; want no time and no restart", d, reset)
	}
	d, reset := later.Since(bad)
	if v, ok := d.Get(QueueNS); !ok || v != 25e8 || len(reset) > 0 {
		t.Errorf("the next one queued for %d ns (%v, reset %v), want 2.5 s", v, ok, reset)
	}
}

// Without the _total of a counter or the _sum of a histogram a proof would read
// nothing, forever zero, and call every run clean.
func TestNames(t *testing.T) {
	for c, want := range map[Count]string{
		FailedXfers: "vllm:nixl_num_failed_transfers_total",
		ExternalKV:  `vllm:prompt_tokens_by_source_total{source="external_kv_transfer"}`,
		Descriptors: "vllm:nixl_num_descriptors_sum",
		Transfers:   "vllm:nixl_bytes_transferred_count",
	} {
		if got := c.Name(); got != want {
			t.Errorf("name %s, want %s", got, want)
		}
	}
}

func TestSince(t *testing.T) {
	var before, after Reading
	before.Set(PromptTokens, 100)
	before.Set(Transfers, 5)
	before.Set(ExpiredLeases, 1)
	after.Set(PromptTokens, 350)
	after.Set(Transfers, 2)
	after.Set(ExternalKV, 7)
	d, reset := after.Since(before)
	if diff := cmp.Diff([]Count{Transfers, ExpiredLeases}, reset); diff != "" {
		t.Errorf("reset (-want +got):\n%s", diff)
	}
	if v, ok := d.Get(PromptTokens); v != 250 || !ok {
		t.Errorf("prompt tokens %d, %v", v, ok)
	}
	if v, ok := d.Get(ExternalKV); v != 7 || !ok {
		t.Errorf("a series that appeared: %d, %v; want 7", v, ok)
	}
}

// The pages of real engines have what their releases are known to have.
func TestCapturedPages(t *testing.T) {
	files, err := filepath.Glob("../../../testdata/engines/*/*/*.prom")
	if err != nil || len(files) < 40 {
		t.Fatalf("%d pages, %v", len(files), err)
	}
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		r, err := Parse(bytes.NewReader(data))
		if err != nil {
			t.Errorf("%s: %v", f, err)
			continue
		}
		if !r.Has(PromptTokens, Requests, PrefixHits, QueueNS, PrefillNS, FirstTokenNS) {
			t.Errorf("%s: lacks a series that every release has", f)
		}
		if r.Cache.Blocks == 0 || r.Cache.BlockTokens == 0 {
			t.Errorf("%s: no block pool: %+v", f, r.Cache)
		}
	}
}

// What pages say of the cache. A block's bytes by hand: layers × tokens of a block ×
// bytes of a token and layer, over the tensors that layer groups share.
func TestCapturedCaches(t *testing.T) {
	for name, want := range map[string]struct{ tokens, bytes int64 }{
		"0.15.1/unified-256/unified":    {16, 28 * 16 * 2048},
		"0.32.0/unified-256/unified":    {32, 28 * 32 * 2048},
		"0.32.0/windows-1000/decode":    {32, 14 * 32 * 2048},
		"0.32.0/gemma3-1000/decode":     {32, 2 * 32 * 2048},
		"0.32.0/mla-tp1-2-1000/decode":  {16, 4 * 16 * 1152},
		"0.32.0/mla-tp1-2-1000/prefill": {16, 4 * 16 * 1152},
		"0.32.0/push-600/prefill":       {32, 6 * 32 * 2048},
	} {
		data, err := os.ReadFile("../../../testdata/engines/" + name + "-after.prom")
		if err != nil {
			t.Fatal(err)
		}
		r, err := Parse(bytes.NewReader(data))
		if err != nil {
			t.Fatal(err)
		}
		c := r.Cache
		if int64(c.BlockTokens) != want.tokens || c.DType != "" || c.BlockHi > 0 && (want.bytes < c.BlockLo || want.bytes > c.BlockHi) {
			t.Errorf("%s: %+v, want %d tokens and %d bytes in a block", name, c, want.tokens, want.bytes)
		}
		if strings.HasPrefix(name, "0.32") && (c.BlockLo < want.bytes*99/100 || c.BlockHi > want.bytes*101/100) {
			t.Errorf("%s: %d to %d bytes in a block, of %d", name, c.BlockLo, c.BlockHi, want.bytes)
		}
	}
}

func TestCacheLabels(t *testing.T) {
	const plain = `block_size="16",num_gpu_blocks="100",kv_cache_memory_bytes="10500"`
	for labels, want := range map[string]Cache{
		plain:                             {Blocks: 100, BlockTokens: 16, BlockLo: 104, BlockHi: 105},
		plain + `,cache_dtype="fp8_e4m3"`: {Blocks: 100, BlockTokens: 16, BlockLo: 104, BlockHi: 105, DType: "fp8_e4m3"},
		plain + `,effective_attention_block_size="528",mamba_page_size_padded="1081344"`:            {Blocks: 100, BlockTokens: 528},
		plain + `,mamba_cache_dtype="auto",mamba_ssm_cache_dtype="float32",mamba_block_size="2304"`: {Blocks: 100, BlockTokens: 16, StateDType: "float32"},
		plain + `,sliding_window="4096"`:                                    {Blocks: 100, BlockTokens: 16},
		plain + `,num_gpu_blocks_override="100"`:                            {Blocks: 100, BlockTokens: 16},
		`block_size="None",num_gpu_blocks="-4",kv_cache_memory_bytes="1e9"`: {},
	} {
		r, err := Parse(strings.NewReader("# TYPE vllm:cache_config_info gauge\nvllm:cache_config_info{" + labels + "} 1\n"))
		if diff := cmp.Diff(want, r.Cache); err != nil || diff != "" {
			t.Errorf("%s: %v (-want +got):\n%s", labels, err, diff)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(page))
	f.Add([]byte("# TYPE vllm:nixl_bytes_transferred summary\nvllm:nixl_bytes_transferred_sum 1\n"))
	f.Fuzz(func(t *testing.T, in []byte) {
		r, err := Parse(bytes.NewReader(in))
		if err != nil {
			return
		}
		for c := range counts {
			if v, ok := r.Get(c); v < 0 && !c.time() || !ok && v != 0 {
				t.Fatalf("%s is %d, %v", c.Name(), v, ok)
			}
		}
		if d, reset := r.Since(r); len(reset) > 0 || d.val != [counts]int64{} {
			t.Fatalf("a page since itself: %v, %v", d, reset)
		}
	})
}

// A page of anything costs what its length says, and not a hundred times that.
func TestForeignPage(t *testing.T) {
	long := strings.Repeat("a 1\n", MaxPage/4)
	if n := len(ours([]byte(long))); n > maxForeign {
		t.Errorf("%d bytes would be parsed", n)
	}
	if n := len(ours([]byte(long[:MaxPage-1000] + page))); n > 2*len(page) {
		t.Errorf("%d bytes would be parsed for a page of %d that counts", n, len(page))
	}
	if _, err := Parse(strings.NewReader(long + "\n")); err == nil || !strings.Contains(err.Error(), "longer than") {
		t.Errorf("%v, want that it is too long", err)
	}
	if _, err := Parse(strings.NewReader("<html>Hello</html>\n")); err == nil {
		t.Error("a web page is a page of metrics")
	}
}
