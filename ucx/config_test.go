package ucx

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestResolve(t *testing.T) {
	v113, v122 := Version{Major: 1, Minor: 13}, Version{Major: 1, Minor: 22}
	all := map[string]string{"UCX_RNDV_THRESH": "inf", "UCX_MAX_RMA_RAILS": "2", "UCX_IB_PCI_RELAXED_ORDERING": "try", "UCX_RC_FENCE": "none", "ERR_HANDLING": "peer"}
	with := func(change map[string]string) map[string]string {
		m := map[string]string{}
		for k, v := range all {
			m[k] = v
		}
		for k, v := range change {
			if m[k] = v; v == "" {
				delete(m, k)
			}
		}
		return m
	}
	tests := map[string]struct {
		cfg     Config
		v       Version
		efa     bool
		environ []string
		want    map[string]string
		modify  map[string]string // what ucp_config_modify gets, where it matters
	}{
		"NIXL's":          {v: v113, want: all},
		"NIXL's on EFA":   {v: v113, efa: true, want: with(map[string]string{"UCX_ADDRESS_VERSION": "v2"})},
		"NIXL's, newer":   {v: v122, want: with(map[string]string{"UCX_MAX_HCA_PER_GPU": "auto", "UCX_RNDV_PIPELINE_ERROR_HANDLING": "y"})},
		"newer on EFA":    {v: v122, efa: true, want: with(map[string]string{"UCX_MAX_HCA_PER_GPU": "auto", "UCX_RNDV_PIPELINE_ERROR_HANDLING": "y", "UCX_ADDRESS_VERSION": "v2", "UCX_MAX_COMPONENT_MDS": "32"})},
		"transports":      {cfg: Config{TLS: "tcp,cuda_copy"}, v: v113, want: with(map[string]string{"UCX_TLS": "tcp,cuda_copy"})},
		"rails":           {cfg: Config{Rails: 8}, v: v113, want: with(map[string]string{"UCX_MAX_RMA_RAILS": "8"})},
		"the environment": {v: v113, environ: []string{"UCX_RNDV_THRESH=8k", "HOME=/root"}, want: with(map[string]string{"UCX_RNDV_THRESH": "8k"}), modify: map[string]string{"RNDV_THRESH": ""}},
		"the provider wins over the environment": {cfg: Config{TLS: "tcp"}, v: v113, environ: []string{"UCX_TLS=rc"},
			want: with(map[string]string{"UCX_TLS": "tcp"})},
		"the environment's devices win over Bind's": {cfg: Config{NetDevices: "eth0"}, v: v113, environ: []string{"UCX_NET_DEVICES=eth1"},
			want: with(map[string]string{"UCX_NET_DEVICES": "eth1"}), modify: map[string]string{"NET_DEVICES": ""}},
		"options win over all": {cfg: Config{TLS: "tcp", Options: map[string]string{"UCX_TLS": "sm", "RC_FENCE": "auto", "ERR_HANDLING": "none"}}, v: v113,
			environ: []string{"UCX_RC_FENCE=weak"},
			want:    with(map[string]string{"UCX_TLS": "sm", "UCX_RC_FENCE": "auto", "ERR_HANDLING": "none"}), modify: map[string]string{"TLS": "sm", "RC_FENCE": "auto"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			p, err := resolve(tt.cfg, tt.v, tt.efa, tt.environ, nil)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, p.inForce); diff != "" {
				t.Errorf("in force: %s", diff)
			}
			got := map[string]string{}
			for _, s := range p.set {
				if _, twice := got[s.key]; twice {
					t.Errorf("%s is set twice", s.key)
				}
				got[s.key] = s.value
			}
			for k, want := range tt.modify {
				if got[k] != want {
					t.Errorf("ucp_config_modify of %s gets %q, want %q", k, got[k], want)
				}
			}
			if _, ok := got[ErrHandling]; ok {
				t.Errorf("%s was passed to UCX, which does not know it", ErrHandling)
			}
		})
	}
}

func TestResolveRefuses(t *testing.T) {
	known := map[string]bool{"TLS": true, "RNDV_THRESH": true}
	for name, o := range map[string]map[string]string{
		"an unknown key":   {"RNDV_TRESH": "1"},
		"a mode":           {"ERR_HANDLING": "all"},
		"a key both ways":  {"UCX_TLS": "tcp", "TLS": "tcp"},
		"a key with space": {"TLS ": "tcp"},
	} {
		if _, err := resolve(Config{Options: o}, Version{Major: 1, Minor: 13}, false, nil, known); !errors.Is(err, ErrSetting) {
			t.Errorf("%s: error %v, want ErrSetting", name, err)
		}
	}
	p, err := resolve(Config{}, Version{Major: 1, Minor: 13}, false, nil, known)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"this UCX does not know UCX_MAX_RMA_RAILS: left out", "this UCX does not know UCX_IB_PCI_RELAXED_ORDERING: left out", "this UCX does not know UCX_RC_FENCE: left out"}
	if diff := cmp.Diff(want, p.notes); diff != "" {
		t.Error(diff)
	}
}

func TestKnownSettings(t *testing.T) {
	got := knownSettings("#\n# UCX global configuration\n#\n\n# value: <level>\nUCX_LOG_LEVEL=WARN\n\n# inherits: UCX_DC_FENCE, UCX_RC_FENCE\nUCX_DC_MLX5_FENCE=auto\n# Set UCX_THIS=x to\nUCX_EMPTY=\n# inherits: UCX_IB_SL\n")
	want := map[string]bool{"LOG_LEVEL": true, "DC_FENCE": true, "RC_FENCE": true, "DC_MLX5_FENCE": true, "EMPTY": true, "IB_SL": true}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestHasEFA(t *testing.T) {
	for name, tt := range map[string]struct {
		ids  [][2]string
		want bool
	}{
		"EFA":         {[][2]string{{"0x8086", "0x1572"}, {"0x1d0f", "0xefa1"}}, true},
		"ENA alone":   {[][2]string{{"0x1d0f", "0xec20"}}, false},
		"another efa": {[][2]string{{"0x8086", "0xefa0"}}, false},
		"none":        {nil, false},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			for i, id := range tt.ids {
				dir := filepath.Join(root, "bus/pci/devices", string(rune('a'+i)))
				if err := os.MkdirAll(dir, 0o755); err != nil {
					t.Fatal(err)
				}
				for n, f := range []string{"vendor", "device"} {
					if err := os.WriteFile(filepath.Join(dir, f), []byte(id[n]+"\n"), 0o644); err != nil {
						t.Fatal(err)
					}
				}
			}
			if got, err := hasEFA(root); err != nil || got != tt.want {
				t.Errorf("hasEFA = %v, %v; want %v", got, err, tt.want)
			}
		})
	}
}
