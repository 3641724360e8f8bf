package trace

import (
	"maps"
	"strings"
	"testing"
)

// The rows are of the form of each source, with numbers made up here.
func TestRead(t *testing.T) {
	for name, tt := range map[string]struct {
		text  string
		want  map[int64]int64
		empty int64
	}{
		"mooncake": {`{"timestamp": 0, "input_length": 6758, "output_length": 500, "hash_ids": [0, 1, 2]}
{"timestamp": 3000, "input_length": 6758, "output_length": 2, "hash_ids": [0, 3]}

{"timestamp": 3001, "input_length": 12, "output_length": 2, "hash_ids": []}`, map[int64]int64{6758: 2, 12: 1}, 0},
		"azure":      {"TIMESTAMP,ContextTokens,GeneratedTokens\r\n2023-11-16 18:17:03.9799600,4808,10\r\n2023-11-16 18:17:04.0319600,3180,8\r\n", map[int64]int64{4808: 1, 3180: 1}, 0},
		"burstgpt":   {"Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n5,ChatGPT,472,18,490,Conversation log\n45,ChatGPT,0,0,0,Conversation log\n", map[int64]int64{472: 1}, 1},
		"vllm bench": {"{\"date\": \"x\", \"completed\": 3,\n \"input_lens\": [100, 200, 100],\n \"output_lens\": [1, 1, 1]}\n", map[int64]int64{100: 2, 200: 1}, 0},
		"usage":      {`{"id":"a","usage":{"prompt_tokens":7,"completion_tokens":1}}` + "\n" + `{"usage":{"input_tokens":9}}`, map[int64]int64{7: 1, 9: 1}, 0},
		"array":      {"\ufeff" + `[{"prompt_len": 5}, {"PROMPT_LEN": 6}]`, map[int64]int64{5: 1, 6: 1}, 0},
		"pandas":     {"arrival_s,input_tokens\n0.5,4808.0\n", map[int64]int64{4808: 1}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			l, err := Read(strings.NewReader(tt.text))
			if err != nil {
				t.Fatal(err)
			}
			n := int64(0)
			for _, k := range tt.want {
				n += k
			}
			if !maps.Equal(l.Requests, tt.want) || l.N != n || l.Empty != tt.empty {
				t.Errorf("got %v, %d requests, %d empty; want %v, %d, %d", l.Requests, l.N, l.Empty, tt.want, n, tt.empty)
			}
		})
	}
}

func TestReadErrors(t *testing.T) {
	for name, tt := range map[string]struct{ text, want string }{
		"nothing":   {" \n", "it is empty"},
		"sharegpt":  {`[{"id":"1","conversations":[{"from":"human","value":"hi"}]}]`, `request 1: "conversations" is text`},
		"prompts":   {`{"prompt": "hi"}`, "write prompt_tokens=N to each row"},
		"no key":    {`{"a": 1}`, "no count of prompt tokens: want one of the keys input_length, contexttokens"},
		"no column": {"a,b\n1,2\n", `no column of prompt tokens in "a,b"`},
		"short row": {"a,prompt_tokens\n1\n", "line 2 has 1 columns"},
		"negative":  {"prompt_tokens\n5\n-1\n", "line 3: -1 tokens in a prompt"},
		"fraction":  {`{"prompt_len": 1.5}`, `"1.5" is no whole number of tokens`},
		"huge":      {`{"prompt_len": 99999999999}`, "want 0 to 1073741824"},
		"string":    {`{"prompt_len": "many"}`, "prompt_len"},
		"only 0":    {"prompt_tokens\n0\n", "no request with a prompt (1 rows of 0 tokens)"},
		"cut off":   {`[{"prompt_len": 5}`, "EOF"},
		"bad line":  {"{\"prompt_len\": 5}\n{\"prompt_len\": \n", "line 2: no JSON object"},
	} {
		t.Run(name, func(t *testing.T) {
			if l, err := Read(strings.NewReader(tt.text)); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, %v; want %q", l, err, tt.want)
			}
		})
	}
}

// FuzzRead: whatever a file holds, it is an error or counts that add up.
func FuzzRead(f *testing.F) {
	f.Add(`{"input_length": 6758}`)
	f.Add("TIMESTAMP,ContextTokens,GeneratedTokens\n2023,4808,10\n")
	f.Add(`[{"usage":{"prompt_tokens":7}},{"input_lens":[1,2]}]`)
	f.Fuzz(func(t *testing.T, text string) {
		l, err := Read(strings.NewReader(text))
		if err != nil {
			return
		}
		n := int64(0)
		for tokens, k := range l.Requests {
			if n += k; tokens < 1 || tokens > MaxTokens || k < 1 {
				t.Errorf("%d prompts of %d tokens", k, tokens)
			}
		}
		if n != l.N || n == 0 || l.Empty < 0 {
			t.Errorf("%d prompts, N is %d, %d empty", n, l.N, l.Empty)
		}
	})
}
