package transport

import (
	"bytes"
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/xferbench/xferbench/cgo/loop"
	"github.com/xferbench/xferbench/cgo/mem"
	"github.com/xferbench/xferbench/internal/testenv"
)

// wrongLabel changes the secret labels in a target's address, as a stranger must
// guess them.
func wrongLabel(t *testing.T, address []byte) []byte {
	t.Helper()
	var a map[string]any
	d := json.NewDecoder(bytes.NewReader(address))
	d.UseNumber()
	if err := d.Decode(&a); err != nil {
		t.Fatal(err)
	}
	changed := 0
	if lanes, ok := a["lanes"].([]any); ok {
		for _, l := range lanes {
			l.(map[string]any)["secret"] = json.Number("81985529216486895")
			changed++
		}
	}
	if labels, ok := a["labels"].([]any); ok {
		for i := range labels {
			labels[i] = 19088743
			changed++
		}
	}
	if changed == 0 {
		t.Fatalf("no labels in %s", address)
	}
	b, err := json.Marshal(a)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// Data without the receiver's label is not taken for the peer's: as remote CQ data it
// is a fault, as a tagged message it stays outside the buffer.
func TestUnknownLabels(t *testing.T) {
	for _, tt := range []struct {
		provider string
		op       loop.Op
		says     string
	}{
		{"tcp", loop.Write, "belongs to no transfer"},
		{"tcp", loop.Send, ""},
		{"tcp;ofi_rxm", loop.Write, "belongs to no transfer"},
		{"tcp;ofi_rxm", loop.Send, ""},
		{"ucx:tcp", loop.Send, ""},
	} {
		t.Run(tt.provider+"/"+tt.op.String(), func(t *testing.T) {
			ctx := context.Background()
			const n = 4096
			var eps [2]Endpoint
			var bufs [2]*mem.Buffer
			var addresses [2][]byte
			for i, role := range []Role{Initiator, Target} {
				ep, err := Open(ctx, Config{Provider: tt.provider, Role: role, Bind: []string{"127.0.0.1"}, Ops: []loop.Op{tt.op},
					Streams: 1, Rails: 1, Poll: loop.Yield, Timeout: time.Second, Device: -1})
				testenv.Need(t, tt.provider, err)
				defer ep.Close()
				buf, err := mem.New(mem.Host, 0, n)
				if err != nil {
					t.Fatal(err)
				}
				if err := ep.Register(buf); err != nil {
					t.Fatal(err)
				}
				if addresses[i], err = ep.Address(); err != nil {
					t.Fatal(err)
				}
				eps[i], bufs[i] = ep, buf
			}
			for i := range bufs[0].Bytes() {
				bufs[0].Bytes()[i] = 0xaa
			}
			if err := eps[1].Connect(ctx, addresses[0]); err != nil {
				t.Fatal(err)
			}
			if err := eps[0].Connect(ctx, wrongLabel(t, addresses[1])); err != nil {
				t.Fatal(err)
			}
			plan, err := loop.NewPlan([]loop.Piece{{Len: n}})
			if err != nil {
				t.Fatal(err)
			}
			plans := []*loop.Plan{plan}
			if err := eps[1].Arm(ctx, tt.op, plans, 1); err != nil {
				t.Fatal(err)
			}
			_, terr := eps[0].Transfer(ctx, tt.op, plans, 1)
			arrived, serr := eps[1].Settle(ctx)
			if terr == nil || serr == nil || arrived != 0 || !strings.Contains(serr.Error(), tt.says) {
				t.Errorf("transfer: %v; %d arrived: %v; want errors, and %q", terr, arrived, serr, tt.says)
			}
			if tt.op == loop.Send && bytes.Contains(bufs[1].Bytes(), []byte{0xaa}) {
				t.Error("the message is in the buffer")
			}
		})
	}
}

// Labels and keys are another's for each endpoint.
func TestLabelsDiffer(t *testing.T) {
	for _, provider := range []string{"tcp", "ucx:tcp"} {
		seen := map[string]bool{}
		for range 4 {
			ep, err := Open(context.Background(), Config{Provider: provider, Bind: []string{"127.0.0.1"}, Ops: []loop.Op{loop.Send},
				Streams: 1, Rails: 1, Timeout: time.Second, Device: -1})
			testenv.Need(t, provider, err)
			buf, err := mem.New(mem.Host, 0, 4096)
			if err != nil {
				t.Fatal(err)
			}
			if err := ep.Register(buf); err != nil {
				t.Fatal(err)
			}
			b, err := ep.Address()
			if err != nil {
				t.Fatal(err)
			}
			var a struct {
				Lanes  []struct{ Secret, Key json.Number }
				Labels []json.Number
			}
			if err := json.Unmarshal(b, &a); err != nil {
				t.Fatal(err)
			}
			for _, l := range a.Lanes {
				seen[l.Secret.String()], seen[l.Key.String()] = true, true
			}
			for _, l := range a.Labels {
				seen[l.String()] = true
			}
			if err := ep.Close(); err != nil {
				t.Error(err)
			}
			if err := buf.Free(); err != nil {
				t.Error(err)
			}
		}
		want := 4
		if provider == "tcp" {
			want = 8 // a key and a label
		}
		if len(seen) != want {
			t.Errorf("%s: %d different secrets in four endpoints, want %d: %v", provider, len(seen), want, seen)
		}
	}
}
