package record

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// What a killed writer leaves, and what becomes of it.
func TestFinish(t *testing.T) {
	const run, sample, ended = `{"type":"run","schema":1,"id":"x"}` + "\n", `{"type":"sample","bytes":1}` + "\n", `{"type":"end","status":"ok"}` + "\n"
	long := `{"type":"event","message":"` + strings.Repeat("x", 1<<17) + `"}` + "\n"
	for name, tt := range map[string]struct {
		in     string
		status string // of the end; "": no file
	}{
		"whole lines":           {run + sample, StatusFailed},
		"cut off":               {run + sample + `{"type":"sample","by`, StatusFailed},
		"cut off, longer":       {run + `{"type":"event","message":"` + strings.Repeat("x", 1<<16), StatusFailed},
		"only the run":          {run, StatusFailed},
		"a long last line":      {run + long, StatusFailed},
		"closed":                {run + sample + ended, StatusOK},
		"closed, then resumed":  {run + ended + sample, StatusFailed},
		"nothing":               {"", ""},
		"a run line cut off":    {`{"type":"run","sch`, ""},
		"no file":               {"-", ""},
		"closed, with the rest": {run + ended + `{"ty`, StatusOK},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "r.jsonl")
			if tt.in != "-" {
				if err := os.WriteFile(path, []byte(tt.in), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if err := Finish(path, End{Status: StatusFailed, Error: "gone", ExitCode: 3}); err != nil {
				t.Fatal(err)
			}
			if tt.status == "" {
				if _, err := os.Stat(path); !os.IsNotExist(err) {
					t.Errorf("a file is left: %v", err)
				}
				return
			}
			r, err := Open(path)
			if err != nil {
				t.Fatal(err)
			}
			if r.End == nil || r.End.Status != tt.status {
				t.Errorf("end %+v, want %s", r.End, tt.status)
			}
			b, err := os.ReadFile(path)
			if err != nil || !strings.HasSuffix(string(b), "}\n") || strings.Count(string(b), "\n") != strings.Count(tt.in, "\n")+map[bool]int{true: 1}[tt.status == StatusFailed] {
				t.Errorf("%v, lines of %.200q", err, b)
			}
		})
	}
}
