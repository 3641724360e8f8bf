package ucx

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestResolve(t *testing.T) {
	known := map[string]bool{"TLS": true, "RNDV_THRESH": true, tables: true}
	cfg := Config{Errors: ErrorsNone, Settings: []Setting{{Key: "UCX_RNDV_THRESH", Value: "inf", Optional: true}, {Key: "RC_FENCE", Value: "none", Optional: true},
		{Key: "TLS", Value: "tcp"}, {Key: "RNDV_THRESH", Value: "8k"}}}
	p, err := resolve(cfg, []string{"UCX_TLS=rc", "UCX_LOG_LEVEL=warn", "HOME=/root"}, known)
	if err != nil {
		t.Fatal(err)
	}
	want := plan{
		set: []Setting{{Key: "RNDV_THRESH", Value: "inf", Optional: true}, {Key: "TLS", Value: "tcp"}, {Key: "RNDV_THRESH", Value: "8k"},
			{Key: tables, Value: "y", Optional: true}},
		inForce: map[string]string{"UCX_RNDV_THRESH": "8k", "UCX_TLS": "tcp", "UCX_LOG_LEVEL": "warn"},
		errors:  ErrorsNone,
		notes:   []string{"this UCX does not know UCX_RC_FENCE: left out"},
	}
	if diff := cmp.Diff(want, p, cmp.AllowUnexported(plan{})); diff != "" {
		t.Error(diff)
	}
	// A user's own choice of tables stays.
	for _, in := range []struct {
		cfg     Config
		environ []string
	}{{Config{}, []string{"UCX_PROTO_INFO=n"}}, {Config{Settings: []Setting{{Key: tables, Value: "n"}}}, nil}} {
		p, err := resolve(in.cfg, in.environ, nil)
		if err != nil || p.inForce["UCX_PROTO_INFO"] != "n" || len(p.set) != len(in.cfg.Settings) {
			t.Errorf("%+v: %+v, %v", in, p, err)
		}
	}
}

func TestResolveRefuses(t *testing.T) {
	known := map[string]bool{"TLS": true}
	for name, s := range map[string]Setting{
		"an unknown key":   {Key: "RNDV_TRESH", Value: "1"},
		"a key with space": {Key: "TLS ", Value: "tcp"},
	} {
		if _, err := resolve(Config{Settings: []Setting{s}}, nil, known); !errors.Is(err, ErrSetting) {
			t.Errorf("%s: error %v, want ErrSetting", name, err)
		}
	}
}

func TestKnownSettings(t *testing.T) {
	got := knownSettings("#\n# UCX global configuration\n#\n\n# value: <level>\nUCX_LOG_LEVEL=WARN\n\n# inherits: UCX_DC_FENCE, UCX_RC_FENCE\nUCX_DC_MLX5_FENCE=auto\n# Set UCX_THIS=x to\nUCX_EMPTY=\n# inherits: UCX_IB_SL\n")
	want := map[string]bool{"LOG_LEVEL": true, "DC_FENCE": true, "RC_FENCE": true, "DC_MLX5_FENCE": true, "EMPTY": true, "IB_SL": true}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}
