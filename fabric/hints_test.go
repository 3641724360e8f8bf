package fabric

import (
	"testing"

	"github.com/xferbench/xferbench/cgo/loop"
)

// What fi_getinfo is asked for.
func TestQuery(t *testing.T) {
	q := Hints{Provider: "tcp", Source: "127.0.0.1"}.query()
	if q.provider != "tcp" || q.node != "127.0.0.1" || !q.manual || q.mode != ModeContext|ModeContext2 ||
		q.mrMode != MRLocal|MRVirtAddr|MRAllocated|MRProvKey|MREndpoint || q.opFlags != opDeliveryComplete {
		t.Errorf("the zero value: %+v", q)
	}
	if q.caps&capRMA == 0 || q.caps&(capTagged|capHMEM) != 0 {
		t.Errorf("the zero value: capabilities %#x", q.caps)
	}
	h := Hints{Ops: []loop.Op{loop.Send}, CUDA: true, Caps: LocalComm, AutoProgress: true, Mode: ModeContext, MRMode: MRProvKey}
	if q := h.query(); q.manual || q.mode != ModeContext || q.mrMode != MRProvKey|MRHMEM || q.caps&capRMA != 0 || q.opFlags != 0 ||
		q.caps&(capTagged|capHMEM|LocalComm) != capTagged|capHMEM|LocalComm {
		t.Errorf("send of GPU memory: %+v", q)
	}
	h.Sends = Slots
	if q := h.query(); q.caps&capTagged != 0 {
		t.Errorf("slots ask for tags: %+v", q)
	}
	h = Hints{Ops: []loop.Op{loop.Write}, Landing: RemoteCount}
	if q := h.query(); q.opFlags != 0 || !h.acked() || h.sends() != NoSends {
		t.Errorf("counted writes: %+v", q)
	}
}

// An answer names nothing but what was asked for.
func TestFindIsExact(t *testing.T) {
	lib := need(t)
	for _, h := range []Hints{{Provider: "tcp;ofi_rxm"}, {Provider: "shm"}, {}} {
		f, err := lib.Find(h)
		if err != nil {
			t.Errorf("%+v: %v", h, err)
			continue
		}
		for _, i := range f.Interfaces {
			if h.Provider != "" && i.Provider != h.Provider || i.Type != "rdm" {
				t.Errorf("%+v: %s of type %s", h, i.Provider, i.Type)
			}
		}
		first := f.Interfaces[0]
		f.Free()
		f.Free()
		if e, err := f.Open(first, EndpointConfig{Depth: 1}); err == nil {
			t.Error("an interface that was freed was opened")
			e.Close()
		}
	}
}
