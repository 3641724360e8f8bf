package strict

import (
	"strings"
	"testing"
	"time"
)

type target struct {
	Name  string          `yaml:"name"`
	N     uint8           `yaml:"n"`
	Wait  time.Duration   `yaml:"wait"`
	On    bool            `yaml:"on"`
	Share float64         `yaml:"share"`
	List  []string        `yaml:"list"`
	In    struct{ A int } `yaml:"in"`
}

func TestUnmarshal(t *testing.T) {
	got := target{Name: "kept", N: 3}
	if err := Unmarshal([]byte("n: 7\nwait: 10s\nlist: [a, b]\n"), &got); err != nil || got.Name != "kept" || got.N != 7 || got.Wait != 10*time.Second || len(got.List) != 2 {
		t.Errorf("%v %+v", err, got)
	}
	for text, want := range map[string]string{
		"nmae: x":                       `unknown field "nmae"`,
		"n: 1\nn: 2":                    "already defined",
		"n: 300":                        "line 1: 300: too large, or below 0",
		"name: a\nwait: 3":              "line 2: 3: want a time with its unit, such as 10s",
		"n: x":                          "line 1: x: want a whole number",
		"on: maybe":                     "line 1: maybe: want true or false",
		"share: x":                      "line 1: x: want a number",
		"{":                             "could not find",
		strings.Repeat("#", MaxBytes+1): "longer than",
	} {
		var v target
		if err := Unmarshal([]byte(text), &v); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "Go ") {
			t.Errorf("%.40q: %v, want %q", text, err, want)
		}
	}
	var v struct {
		N int `yaml:"n"`
	}
	if err := Peek([]byte("n: 1\nother: 2\n"), &v); err != nil || v.N != 1 {
		t.Errorf("peek: %v %+v", err, v)
	}
}
