package twoleg

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func mustParse(t testing.TB, s string) Object {
	t.Helper()
	obj, err := ParseObject([]byte(s))
	if err != nil {
		t.Fatal(err)
	}
	return obj
}

// decoded is a JSON text as Go values, so that order and spaces do not count.
func decoded(t testing.TB, s []byte) any {
	t.Helper()
	var v any
	if err := json.Unmarshal(s, &v); err != nil {
		t.Fatalf("%s: %v", s, err)
	}
	return v
}

func TestPrefillBody(t *testing.T) {
	const ask = `"kv_transfer_params":{"do_remote_decode":true,"do_remote_prefill":false,"remote_engine_id":null,"remote_block_ids":null,"remote_host":null,"remote_port":null}`
	tests := map[string]struct{ in, want string }{
		"completion": {
			`{"model":"m","prompt":[1,2],"stream":true,"stream_options":{"include_usage":true},"max_tokens":16,"min_tokens":16,"temperature":0}`,
			`{"model":"m","prompt":[1,2],"temperature":0,"stream":false,"max_tokens":1,"ignore_eos":true,` + ask + `}`},
		"chat with its own limit": {
			`{"messages":[{"role":"user","content":"a } \" b"}],"max_completion_tokens":9,"min_completion_tokens":3}`,
			`{"messages":[{"role":"user","content":"a } \" b"}],"max_completion_tokens":1,"stream":false,"max_tokens":1,"ignore_eos":true,` + ask + `}`},
		"stop words": {
			`{"prompt":"x","stop":["a"],"stop_token_ids":[1],"ignore_eos":false}`,
			`{"prompt":"x","stream":false,"max_tokens":1,"ignore_eos":true,` + ask + `}`},
		"empty": {`{}`, `{"stream":false,"max_tokens":1,"ignore_eos":true,` + ask + `}`},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := PrefillBody(mustParse(t, tt.in))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(decoded(t, []byte(tt.want)), decoded(t, got)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestDecodeBodyIsTheRequestAndTheParametersVerbatim(t *testing.T) {
	const params = `{"do_remote_prefill":true, "remote_blocks_expiry_time":1763966682.123456789012, "remote_block_ids":[[9007199254740993]]}`
	got, err := DecodeBody(mustParse(t, `{"prompt":[1], "stream" : true}`), json.RawMessage(params))
	if err != nil {
		t.Fatal(err)
	}
	if want := `{"prompt":[1],"stream":true,"kv_transfer_params":` + params + `}`; string(got) != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestParams(t *testing.T) {
	const whole = `{"do_remote_prefill":true,"do_remote_decode":false,"remote_block_ids":[[1,2]],"remote_engine_id":"e","remote_host":"h","remote_port":5600,"tp_size":1}`
	tests := map[string]struct {
		answer string
		want   string // or the reason in the error
		ok     bool
	}{
		"nested ids":   {`{"id":"x","kv_transfer_params":` + whole + `,"usage":{}}`, whole, true},
		"flat ids":     {`{"kv_transfer_params":` + strings.Replace(whole, "[[1,2]]", "[1,2]", 1) + `}`, strings.Replace(whole, "[[1,2]]", "[1,2]", 1), true},
		"missing":      {`{"id":"x"}`, "member is missing", false},
		"null":         {`{"kv_transfer_params":null}`, "it is null", false},
		"no object":    {`{"kv_transfer_params":7}`, "not a JSON object", false},
		"answer cut":   {`{"kv_transfer_params":{`, "ends too early", false},
		"not for us":   {`{"kv_transfer_params":` + strings.Replace(whole, "prefill\":true", "prefill\":false", 1) + `}`, "do_remote_prefill is not true", false},
		"no ids":       {`{"kv_transfer_params":` + strings.Replace(whole, "[[1,2]]", "[[]]", 1) + `}`, "remote_block_ids is empty", false},
		"null ids":     {`{"kv_transfer_params":` + strings.Replace(whole, "[[1,2]]", "null", 1) + `}`, "remote_block_ids is missing or null", false},
		"no host":      {`{"kv_transfer_params":` + strings.Replace(whole, `"remote_host":"h",`, "", 1) + `}`, "remote_host is missing or null", false},
		"invalid deep": {`{"kv_transfer_params":` + strings.Replace(whole, "[[1,2]]", "[[1,,2]]", 1) + `}`, "not valid JSON", false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := Params([]byte(tt.answer))
			if tt.ok {
				if err != nil || string(got) != tt.want {
					t.Errorf("got %s, %v; want %s", got, err, tt.want)
				}
				return
			}
			if !errors.Is(err, ErrNoParams) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want ErrNoParams with %q", err, tt.want)
			}
		})
	}
}

func TestCheck(t *testing.T) {
	tests := map[string]struct {
		in string
		ok bool
	}{
		"token ids":       {`{"prompt":[1,2]}`, true},
		"text":            {`{"prompt":"[[a"}`, true},
		"n of one":        {`{"prompt":"a","n":1}`, true},
		"n as a float":    {`{"prompt":"a","n":1.0}`, true},
		"n of null":       {`{"prompt":"a","n":null}`, true},
		"one text":        {`{"prompt": [ "a" ] }`, true},
		"one list of ids": {`{"prompt":[[1,2,3]]}`, true},
		"no prompt":       {`{"prompt":[]}`, true},
		"chat":            {`{"messages":[[1]]}`, true},
		"n of two":        {`{"prompt":"a","n":2}`, false},
		"n above one":     {`{"prompt":"a","n":1.5}`, false},
		"n as a text":     {`{"prompt":"a","n":"two"}`, false},
		"list of texts":   {`{"prompt":["a","b"]}`, false},
		"list of ids":     {`{"prompt":[ [1],[2]]}`, false},
		"with parameters": {`{"prompt":"a","kv_transfer_params":{}}`, false},
	}
	for name, tt := range tests {
		if err := Check(mustParse(t, tt.in)); (err == nil) != tt.ok || err != nil && !errors.Is(err, ErrRequest) {
			t.Errorf("%s: %v, want ok %v", name, err, tt.ok)
		}
	}
}

func TestGetTakesTheLast(t *testing.T) {
	o := mustParse(t, `{"a":1,"a":2,"\u0061":3}`)
	if string(o.Get("a")) != "3" || len(o.Without("a")) != 0 {
		t.Errorf("got %s and %d left, want 3 and 0", o.Get("a"), len(o.Without("a")))
	}
}

// FuzzParseObject: whatever encoding/json takes as an object splits into the
// members that it finds, and comes back as the same value.
func FuzzParseObject(f *testing.F) {
	for _, s := range []string{`{}`, `{"a":1}`, ` { "a" : [1,{"b":"]}\\\""}] , "c":null } `, `{"a":"\\"}`, `{"a"`, `{"a":}`, `[1]`, `{"a":1}x`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		obj, err := ParseObject(in)
		var ref map[string]json.RawMessage
		if json.Unmarshal(in, &ref) != nil || ref == nil {
			return // we may take more than JSON, never less
		}
		if err != nil {
			t.Fatalf("%q: %v", in, err)
		}
		for k, v := range ref {
			if got := obj.Get(k); string(got) != string(v) {
				t.Fatalf("%q: member %q is %q, want %q", in, k, got, v)
			}
		}
		out, err := obj.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(decoded(t, in), decoded(t, out)); diff != "" {
			t.Fatalf("%q came back changed:\n%s", in, diff)
		}
	})
}

func BenchmarkPrefillBody(b *testing.B) {
	ids := make([]string, 8000)
	rng := rand.New(rand.NewPCG(1, 2))
	for i := range ids {
		ids[i] = fmt.Sprint(rng.IntN(150_000))
	}
	body := []byte(`{"model":"m","prompt":[` + strings.Join(ids, ",") + `],"stream":true,"max_tokens":16}`)
	b.SetBytes(int64(len(body)))
	for b.Loop() {
		obj, err := ParseObject(body)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := PrefillBody(obj); err != nil {
			b.Fatal(err)
		}
	}
}
