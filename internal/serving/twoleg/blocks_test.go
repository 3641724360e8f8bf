package twoleg

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// Answers of real prefill engines: the lengths were counted with jq
// (`.kv_transfer_params.remote_block_ids | map(length)`).
func TestHandedByRealEngines(t *testing.T) {
	for name, want := range map[string]Handed{
		"0.15.1/two-leg-1000":   {Groups: []int{63}, TP: 1},
		"0.32.0/two-leg-1000":   {Groups: []int{32}, Tokens: 1000, TP: 1},
		"0.32.0/two-leg-33":     {Groups: []int{2}, Tokens: 33, TP: 1},
		"0.32.0/windows-1000":   {Groups: []int{5, 32}, Tokens: 1000, TP: 1},
		"0.32.0/gemma3-1000":    {Groups: []int{9, 9, 9, 9, 9, 32}, Tokens: 1000, TP: 1},
		"0.32.0/mla-tp1-2-1000": {Groups: []int{63}, Tokens: 1000, TP: 1},
		"0.32.0/states-1000":    {Groups: []int{1, 1, 1, 7}, Tokens: 999, TP: 1},
		"0.32.0/push-600":       {Groups: []int{19}, Tokens: 600, TP: 1, Push: true},
	} {
		answer, err := os.ReadFile(filepath.Join("../../../testdata/engines", name, "prefill-response.json"))
		if err != nil {
			t.Fatal(err)
		}
		params, err := Params(answer)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		got, err := HandedBy(params)
		if diff := cmp.Diff(want, got); err != nil || diff != "" {
			t.Errorf("%s: %v (-want +got):\n%s", name, err, diff)
		}
		if again, err := ParseHanded(got.String()); err != nil || !cmp.Equal(got, again) {
			t.Errorf("%s: %q reads as %+v, %v", name, got, again, err)
		}
	}
}

func TestHandedRefuses(t *testing.T) {
	for in, want := range map[string]string{
		`{"remote_block_ids":[]}`:                         "0 lists of blocks",
		`{"remote_block_ids":7}`:                          "remote_block_ids",
		`{"remote_block_ids":[[1,2],3]}`:                  "remote_block_ids",
		`{"remote_block_ids":[1],"tp_size":-1}`:           "tensor-parallel size -1",
		`{"remote_block_ids":[1],"tp_size":99999}`:        "tensor-parallel size 99999",
		`{"remote_block_ids":[1],"remote_num_tokens":-5}`: "-5 tokens",
		`[]`: ParamsKey,
	} {
		if _, err := HandedBy(json.RawMessage(in)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", in, err, want)
		}
	}
	if h, err := HandedBy(json.RawMessage(`{"remote_block_ids":[[0,0,7,8],[0],[1,2,3,4]]}`)); err != nil || !cmp.Equal(h.Groups, []int{2, 0, 4}) {
		t.Errorf("%+v, %v; want that null blocks do not count", h, err)
	}
	for in, want := range map[string]string{
		"":               `"" is no number of blocks`,
		"5,":             `"" is no number of blocks`,
		"5,x":            `"x" is no number`,
		"-1":             "-1 blocks",
		"5; tp=two":      "tp: ",
		"5; tokens=1e9":  "tokens: ",
		"99999999999999": "99999999999999 blocks",
	} {
		if _, err := ParseHanded(in); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", in, err, want)
		}
	}
	if h, err := ParseHanded("5,32;tp=2;later=x"); err != nil || h.TP != 2 || h.Blocks() != 37 {
		t.Errorf("%+v, %v", h, err)
	}
}

// FuzzParseHanded: what reads as a header is written so that it reads the same.
func FuzzParseHanded(f *testing.F) {
	for _, s := range []string{"5,32; tokens=1000; tp=2; push", "63", "0", " 1 , 2;tp=1", "1;;", "x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		h, err := ParseHanded(s)
		if err != nil {
			return
		}
		if again, err := ParseHanded(h.String()); err != nil || !cmp.Equal(h, again) {
			t.Fatalf("%q is %+v, written %q, read %+v, %v", s, h, h, again, err)
		}
	})
}

// FuzzHandedBy: whatever parameters an engine sends, what is taken from them is
// within its limits and goes through the header unchanged.
func FuzzHandedBy(f *testing.F) {
	for _, s := range []string{`{"remote_block_ids":[[1,2],[3]],"tp_size":2}`, `{"remote_block_ids":[1]}`, `{"remote_block_ids":null}`, `{}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		h, err := HandedBy(in)
		if err != nil {
			return
		}
		if again, err := ParseHanded(h.String()); err != nil || !cmp.Equal(h, again) {
			t.Fatalf("%s is %+v, written %q, read %+v, %v", in, h, h, again, err)
		}
	})
}
