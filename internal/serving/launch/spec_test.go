package launch

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "rewrite the golden files")

const preset = `
vllm: "%s"
model: /models/Qwen2.5-7B
served_model_name: qwen
num_gpu_blocks: 8500
engines:
  tcp-p: {role: prefill, arm: tcp, url: "http://10.0.0.1:8100", preset: ucx-tcp, gpus: "0"}
  tcp-d: {role: decode, arm: tcp, url: "http://10.0.0.2:8200", preset: ucx-tcp, host: "ssh://node2", env: {UCX_NET_DEVICES: eth0}}
  efa-p: {role: prefill, arm: efa, url: "http://10.0.0.1:8101", preset: libfabric-efa, args: [--max-num-seqs, "1"]}
  efa-d: {role: decode, arm: efa, url: "http://10.0.0.2:8201", preset: libfabric-efa, host: "ssh://node2"}
  unified: {url: "http://10.0.0.1:8300", preset: unified}
`

// The commands of the presets stand in goldens, which have been read against the
// options of both releases.
func TestPresets(t *testing.T) {
	for _, release := range []string{"0.15.1", "newest"} {
		f, err := Parse(fmt.Appendf(nil, preset, release))
		if err != nil {
			t.Fatal(err)
		}
		var b strings.Builder
		for _, name := range f.names() {
			e := f.Engines[name]
			fmt.Fprintf(&b, "%s: role %s, arm %s, host %q\n", name, e.Role, e.Arm, e.Host)
			for _, k := range slices.Sorted(maps.Keys(e.Env)) {
				fmt.Fprintf(&b, "  %s=%s\n", k, e.Env[k])
			}
			fmt.Fprintf(&b, "  %s\n", strings.Join(e.Argv, " "))
		}
		path := filepath.Join("testdata", "preset-"+release+".txt")
		if *update {
			if err := os.WriteFile(path, []byte(b.String()), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(string(want), b.String()); d != "" {
			t.Errorf("%s (-want +got):\n%s", release, d)
		}
		// A preset has nothing to be warned of, except what args spoil.
		for _, p := range f.Check(8000, 16) {
			if want := `arm efa: --max-num-seqs is "8" on efa-d and "1" on efa-p`; p.Text != want {
				t.Errorf("%s: %+v", release, p)
			}
		}
		if d := cmp.Diff(map[string]string{"tcp": "UCX", "efa": "LIBFABRIC"}, f.Backends()); d != "" {
			t.Errorf("backends (-want +got):\n%s", d)
		}
		arms := f.Arms()
		if len(arms) != 3 || arms[0].Name != "efa" || arms[1].Name != "tcp" || arms[2].Front != "http://10.0.0.1:8300" || arms[1].Model != "qwen" {
			t.Errorf("arms %+v", arms)
		}
	}
}

// The files with which the captured engines were started are read, and there is
// nothing wrong with them but what is known.
func TestFilesOfTheCapturedEngines(t *testing.T) {
	files, err := filepath.Glob("../../../testdata/engines/launch-*.yaml")
	if err != nil || len(files) < 2 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	for _, path := range files {
		f, err := Load(path)
		if err != nil {
			t.Errorf("%v", err)
			continue
		}
		for _, p := range f.Check(2000, 16) {
			t.Errorf("%s: %+v", path, p)
		}
		arms := f.Arms()
		if len(arms) != 2 || len(arms[0].Prefill) != 1 || len(arms[0].Decode) != 1 || arms[1].Front == "" || arms[0].KV.BytesPerToken != 57_344 {
			t.Errorf("%s: arms %+v", path, arms)
		}
		if e := f.Engines["prefill"]; strings.Contains(strings.Join(e.Argv, " "), "${") || e.Env["VLLM_NIXL_SIDE_CHANNEL_PORT"] != "5600" {
			t.Errorf("%s: prefill engine %+v", path, e)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	const ok = "engines: {unified: {url: 'http://h:1', argv: [x]}}"
	if _, err := Parse([]byte(ok)); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct{ in, want string }{
		"empty":               {"", "no engines"},
		"unknown key":         {"engine: {}\n" + ok, "unknown field"},
		"unknown engine key":  {"engines: {unified: {url: 'http://h:1', argv: [x], ports: 1}}", "unknown field"},
		"key twice":           {ok + "\n" + ok, "already defined"},
		"no YAML":             {"engines: [", ""},
		"no command":          {"engines: {unified: {url: 'http://h:1'}}", "neither argv nor preset"},
		"both commands":       {"model: m\nengines: {unified: {url: 'http://h:1', argv: [x], preset: unified}}", "exclude each other"},
		"unknown preset":      {"model: m\nengines: {prefill: {url: 'http://h:1', preset: tcp}}", "unknown preset"},
		"preset without name": {"engines: {unified: {url: 'http://h:1', preset: unified}}", "needs the file's model"},
		"preset of a role":    {"model: m\nengines: {unified: {url: 'http://h:1', preset: ucx-tcp}}", "does not fit the role"},
		"role":                {"engines: {x: {url: 'http://h:1', argv: [x]}}", `role "x"`},
		"no url":              {"engines: {unified: {argv: [x]}}", "url"},
		"host":                {"engines: {unified: {url: 'http://h:1', argv: [x], host: node2}}", `host "node2"`},
		"host with an option": {"engines: {unified: {url: 'http://h:1', argv: [x], host: 'ssh://-oProxyCommand=x'}}", "host"},
		"variable":            {"engines: {unified: {url: 'http://h:1', argv: ['${x}']}}", "not among the variables"},
		"env name":            {"engines: {unified: {url: 'http://h:1', argv: [x], env: {'A B': c}}}", "environment variable"},
		"only prefill":        {"engines: {prefill: {url: 'http://h:1', argv: [x]}}", "at least one prefill and one decode"},
		"unified in a pair":   {"engines: {prefill: {url: 'http://h:1', argv: [x]}, unified: {arm: disaggregated, url: 'http://h:2', argv: [x]}}", "stands alone"},
		"one url twice":       {"engines: {prefill: {url: 'http://h:1', argv: [x]}, decode: {url: 'http://h:1/', argv: [x]}}", "the same url"},
		"negative":            {"ready_timeout_s: -1\n" + ok, "ready_timeout_s is -1"},
		"side channel":        {"engines: {prefill: {url: 'http://h:1', argv: [x], side_channel: nowhere}}", "side_channel"},
		"name":                {"engines: {'../x': {role: unified, url: 'http://h:1', argv: [x]}}", "letters, digits"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := Parse([]byte(tt.in)); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want %q", err, tt.want)
			}
		})
	}
}

func TestCheck(t *testing.T) {
	const good = `{"kv_connector":"NixlConnector","kv_load_failure_policy":"fail"}`
	pair := func(prefill, decode string) string {
		return fmt.Sprintf("engines: {prefill: {url: 'http://h:1', %s}, decode: {url: 'http://h:2', %s}}", prefill, decode)
	}
	flags := func(kv string, more ...string) string {
		argv := append([]string{"vllm", "--no-enable-prefix-caching", "--max-num-batched-tokens=9000", "--kv-transfer-config", kv}, more...)
		return "argv: ['" + strings.Join(argv, "', '") + "']"
	}
	for name, tt := range map[string]struct {
		in    string
		want  string
		fatal bool
	}{
		"NIXL_BACKEND in the environment": {pair(flags(good)+", env: {NIXL_BACKEND: LIBFABRIC}", flags(good)), "NIXL_BACKEND=LIBFABRIC in its environment has no effect", false},
		"NIXL_BACKEND in the command":     {pair(flags(good, "NIXL_BACKEND=UCX"), flags(good)), "NIXL_BACKEND=UCX in its command has no effect", false},
		"block sizes":                     {pair(flags(good, "--block-size", "16"), flags(good, "--block-size=32")), "--block-size is", true},
		"pools":                           {pair(flags(good, "--num-gpu-blocks-override", "10"), flags(good)), "--num-gpu-blocks-override is", false},
		"policy":                          {pair(flags(good), flags(`{"kv_connector":"NixlConnector","kv_load_failure_policy":"recompute"}`)), `kv_load_failure_policy is "recompute"`, false},
		"policy at the wrong place": {pair(flags(`{"kv_connector":"NixlConnector","kv_load_failure_policy":"fail","kv_connector_extra_config":{"kv_load_failure_policy":"fail"}}`), flags(good)),
			"where nothing reads it", false},
		"backends":            {pair(flags(`{"kv_connector":"NixlConnector","kv_load_failure_policy":"fail","kv_connector_extra_config":{"backends":["LIBFABRIC"]}}`), flags(good)), "NIXL backends are", true},
		"push connector":      {pair(flags(`{"kv_connector":"NixlPushConnector","kv_load_failure_policy":"fail"}`), flags(good)), "kv_connector is", true},
		"no connector":        {pair("argv: [vllm, --no-enable-prefix-caching, --max-num-batched-tokens, '9000']", flags(good)), "no --kv-transfer-config", true},
		"no JSON":             {pair(flags("{"), flags(good)), "is no JSON", true},
		"prefix caching":      {pair(flags(good, "--enable-prefix-caching"), flags(good)), "prefix caching is not off", false},
		"prompt in pieces":    {pair(flags(good, "--max-num-batched-tokens", "2048"), flags(good)), "computed in pieces", false},
		"prompt does not fit": {pair(flags(good, "--max-model-len", "4096"), flags(good)), "--max-model-len 4096 is less", true},
	} {
		t.Run(name, func(t *testing.T) {
			f, err := Parse([]byte(tt.in))
			if err != nil {
				t.Fatal(err)
			}
			found := false
			for _, p := range f.Check(8000, 16) {
				found = found || strings.Contains(p.Text, tt.want) && p.Fatal == tt.fatal
			}
			if !found {
				t.Errorf("problems %+v, want %q, fatal %v", f.Check(8000, 16), tt.want, tt.fatal)
			}
		})
	}
	f, err := Parse([]byte(pair(flags(good), flags(good))))
	if err != nil {
		t.Fatal(err)
	}
	if p := f.Check(8000, 16); len(p) > 0 {
		t.Errorf("a good pair: %+v", p)
	}
}

func TestFlagsOf(t *testing.T) {
	got := flagsOf([]string{"vllm", "serve", "m", "--a", "1", "--b=2", "--no-c", "--d_e", "x", "--f", "--a", "3", "-v", "--g=", "--no-h", "val"})
	want := map[string]string{"a": "3", "b": "2", "c": "false", "d-e": "x", "f": "true", "g": "", "no-h": "val"}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(fmt.Sprintf(preset, "newest")))
	f.Add([]byte("engines: {unified: {url: 'http://h:1', argv: ['${a}'], env: {A: b}}}\nvariables: {a: b}"))
	f.Add([]byte("a: &x [*x]"))
	f.Fuzz(func(t *testing.T, in []byte) {
		file, err := Parse(in)
		if err != nil {
			return
		}
		// Whatever is read is complete and can be looked at.
		file.Check(100, 10)
		for _, a := range file.Arms() {
			if _, err := a.Resolve("", ""); err != nil {
				t.Fatalf("%q: %v", in, err)
			}
		}
		for name, e := range file.Engines {
			if len(e.Argv) == 0 || e.URL == "" || e.name != name {
				t.Fatalf("%q: engine %+v", in, e)
			}
		}
	})
}
