package launch

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/xferbench/xferbench/internal/record"
)

// What the record says of the engines comes from their commands and environments.
func TestServing(t *testing.T) {
	f, err := Parse(fmt.Appendf(nil, preset, "newest"))
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]record.Serving{}
	for _, a := range f.Arms() {
		got[a.Name] = a.Serving
	}
	if d := cmp.Diff(map[string]record.Serving{
		"tcp":     {Connector: "NixlConnector", Backend: "UCX", Provider: "ucx:tcp", Op: "read", BatchTokens: 8448},
		"efa":     {Connector: "NixlConnector", Backend: "LIBFABRIC", Provider: "efa", Op: "read", BatchTokens: 8448},
		"unified": {BatchTokens: 8448},
	}, got); d != "" {
		t.Error(d)
	}
	for config, want := range map[string]record.Serving{
		`{"kv_connector":"NixlConnector"}`: {Connector: "NixlConnector", Backend: "UCX", Op: "read"},
		`{"kv_connector":"NixlPushConnector","kv_connector_extra_config":{"backends":["UCX","LIBFABRIC"]}}`: {Connector: "NixlPushConnector", Op: "write"},
		`{"kv_connector":"MooncakeConnector"}`: {Connector: "MooncakeConnector"},
		`{"kv_connector":`:                     {},
	} {
		e := Engine{Argv: []string{"vllm", "--max-num-batched-tokens=many", "--kv-transfer-config", "{}", "--kv-transfer-config=" + config}}
		if d := cmp.Diff(want, e.serving()); d != "" {
			t.Errorf("%s:\n%s", config, d)
		}
	}
	for tls, want := range map[string]string{"": "", "all": "", "tcp": "ucx:tcp", "cuda_copy,self,rc": "ucx:rc", "rc,tcp": ""} {
		e := Engine{Env: map[string]string{"UCX_TLS": tls}}
		if got := e.provider("UCX"); got != want {
			t.Errorf("UCX_TLS=%s is %q, want %q", tls, got, want)
		}
	}
}

// A library is found where a process of the group has it mapped, and only one file of
// it counts.
func TestLoaded(t *testing.T) {
	dir := t.TempDir()
	load := func(name string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte("not a library"), 0o600); err != nil {
			t.Fatal(err)
		}
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		b, err := syscall.Mmap(int(f.Fd()), 0, 4, syscall.PROT_READ, syscall.MAP_PRIVATE)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = syscall.Munmap(b) })
		return path
	}
	load("libucp_plugin.so")
	if got := loaded(syscall.Getpgrp(), "UCX"); got != "" {
		t.Errorf("found %s", got)
	}
	want := load("libucp-6a5a94c3.so.0.0.0")
	if got := loaded(syscall.Getpgrp(), "UCX"); got != want {
		t.Errorf("found %q, want %s", got, want)
	}
	load("libucp.so.0")
	if got := loaded(syscall.Getpgrp(), "UCX") + loaded(syscall.Getpgrp(), "LIBFABRIC") + loaded(1<<30, "UCX"); got != "" {
		t.Errorf("found %s where two are, or none", got)
	}
	if got := mapped([]byte(strings.Repeat("x", 1<<17)), "libucp.so"); got != nil {
		t.Errorf("found %v", got)
	}
}
