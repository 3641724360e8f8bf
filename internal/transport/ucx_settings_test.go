package transport

import (
	"errors"
	"maps"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/xferbench/xferbench/cgo/loop"
	"github.com/xferbench/xferbench/ucx"
)

func TestUCXSettings(t *testing.T) {
	v113, v122 := ucx.Version{Major: 1, Minor: 13}, ucx.Version{Major: 1, Minor: 22}
	nixl := map[string]string{"RNDV_THRESH": "inf", "MAX_RMA_RAILS": "2", "IB_PCI_RELAXED_ORDERING": "try", "RC_FENCE": "none"}
	// with is NIXL's settings with a change; "" takes one out.
	with := func(change map[string]string) map[string]string {
		m := maps.Clone(nixl)
		for k, v := range change {
			if m[k] = v; v == "" {
				delete(m, k)
			}
		}
		return m
	}
	for name, tt := range map[string]struct {
		w       ucxWant
		v       ucx.Version
		efa     bool
		environ []string
		want    map[string]string
		errors  ucx.ErrorHandling
	}{
		"NIXL's":          {v: v113, want: nixl},
		"NIXL's on EFA":   {v: v113, efa: true, want: with(map[string]string{"ADDRESS_VERSION": "v2"})},
		"NIXL's, newer":   {v: v122, want: with(map[string]string{"MAX_HCA_PER_GPU": "auto", "RNDV_PIPELINE_ERROR_HANDLING": "y"})},
		"newer on EFA":    {v: v122, efa: true, want: with(map[string]string{"MAX_HCA_PER_GPU": "auto", "RNDV_PIPELINE_ERROR_HANDLING": "y", "ADDRESS_VERSION": "v2", "MAX_COMPONENT_MDS": "32"})},
		"transports":      {w: ucxWant{tls: "tcp,cuda_copy"}, v: v113, want: with(map[string]string{"TLS": "tcp,cuda_copy"})},
		"rails":           {w: ucxWant{rails: 8}, v: v113, want: with(map[string]string{"MAX_RMA_RAILS": "8"})},
		"the environment": {v: v113, environ: []string{"UCX_RNDV_THRESH=8k", "HOME=/root"}, want: with(map[string]string{"RNDV_THRESH": ""})},
		"the provider wins over the environment": {w: ucxWant{tls: "tcp"}, v: v113, environ: []string{"UCX_TLS=rc"},
			want: with(map[string]string{"TLS": "tcp"})},
		"the environment's devices win over Bind's": {w: ucxWant{devices: "eth0"}, v: v113, environ: []string{"UCX_NET_DEVICES=eth1"}, want: nixl},
		"options win over all": {w: ucxWant{tls: "tcp", options: map[string]string{"UCX_TLS": "sm", "RC_FENCE": "auto", "ERR_HANDLING": "none"}}, v: v113,
			environ: []string{"UCX_RC_FENCE=weak"}, want: with(map[string]string{"TLS": "sm", "RC_FENCE": "auto"}), errors: ucx.ErrorsNone},
		"error handling": {w: ucxWant{options: map[string]string{"ERR_HANDLING": "peer"}}, v: v113, want: nixl, errors: ucx.ErrorsPeer},
	} {
		t.Run(name, func(t *testing.T) {
			c, err := ucxSettings(tt.w, tt.v, tt.efa, tt.environ)
			if err != nil {
				t.Fatal(err)
			}
			got := map[string]string{}
			for _, s := range c.Settings {
				if _, twice := got[s.Key]; twice {
					t.Errorf("%s is set twice", s.Key)
				}
				got[s.Key] = s.Value
				_, ours := nixl[s.Key]
				_, user := tt.w.options[s.Key]
				if s.Optional && user || !s.Optional && ours && !user {
					t.Errorf("%+v: only what NIXL sets may be left out", s)
				}
			}
			if diff := cmp.Diff(tt.want, got); diff != "" || c.Errors != tt.errors {
				t.Errorf("errors %v, want %v; settings: %s", c.Errors, tt.errors, diff)
			}
		})
	}
}

func TestUCXSettingsRefused(t *testing.T) {
	for name, o := range map[string]map[string]string{
		"a mode":          {"ERR_HANDLING": "all"},
		"a key both ways": {"UCX_TLS": "tcp", "TLS": "tcp"},
	} {
		if _, err := ucxSettings(ucxWant{options: o}, ucx.Version{Major: 1, Minor: 13}, false, nil); !errors.Is(err, ucx.ErrSetting) {
			t.Errorf("%s: error %v, want ErrSetting", name, err)
		}
	}
}

// A record has UCX's settings by their full name; shared memory of UCX before 1.19
// has no error handling, and the record says so.
func TestUCXInForce(t *testing.T) {
	lib := needUCX(t)
	p, err := startPair(t, ucxConfig("ucx:shm", 1), pairBytes)
	if err != nil {
		t.Fatal(err)
	}
	p.run(loop.Read, deal(pairCases()[2].pieces, 1), 1, 5)
	info := p.ep.Info()
	want := "peer"
	if lib.Release().Less(ucx.Version{Major: 1, Minor: 19}) {
		want = "none"
	}
	noted := 0
	for _, n := range info.Notes {
		if strings.HasPrefix(n, "these transports have no peer error handling (") {
			noted++
		}
	}
	if info.Settings["ERR_HANDLING"] != want || (want == "none") != (noted == 1) || info.Settings["UCX_RNDV_THRESH"] != "inf" || info.Settings["UCX_TLS"] != "shm" ||
		info.Settings["UCX_PROTO_INFO"] != "" {
		t.Errorf("settings %v, notes %v", info.Settings, info.Notes)
	}
}
