package efaemu

import (
	"fmt"
	"slices"
	"strconv"
	"testing"

	"github.com/xferbench/xferbench/internal/testenv"
)

// A knob is a set of options that makes the device behave in one way, and what
// must be seen of it.
type knob struct {
	name    string
	options Options
	args    []string // of both clients
	// chunk is the bytes of one operation. Longer ones than a packet cannot be
	// sent over efa-direct.
	chunk  int
	effect func(t *testing.T, fabric string, initiator *side)
}

// transferSize is the bytes of each transfer of the matrix. It is no multiple
// of any chunk.
const transferSize = 500_001

var knobs = []knob{
	{name: "plain", chunk: 8192},
	{name: "small-queue", chunk: 8192, options: Options{SendQueue: 4}, effect: anyTransfer("eagain")},
	{name: "shuffle", chunk: 8192, options: Options{Shuffle: 11}, effect: anyTransfer("out_of_order")},
	{name: "small-rdma", chunk: 5000, options: Options{MaxRDMASize: 5000}},
	{name: "rnr", chunk: 8192, options: Options{RNREvery: 3}},
	{name: "rails", chunk: 8192, options: Options{Devices: 2}, args: []string{"-n", "3", "-t"}, effect: usesBothDevices},
	{name: "rough", chunk: 5000, args: []string{"-n", "3", "-t"}, options: Options{
		SendQueue: 8, Shuffle: 12, MaxRDMASize: 5000, RNREvery: 5, Devices: 2,
	}},
}

// anyTransfer expects the word to be other than 0 in one of the initiator's
// transfers.
func anyTransfer(word string) func(*testing.T, string, *side) {
	return func(t *testing.T, _ string, initiator *side) {
		t.Helper()
		for i := range initiator.transfers {
			if initiator.number(t, i, word) != 0 {
				return
			}
		}
		t.Errorf("%s is 0 in every transfer: the knob has no effect", word)
	}
}

func usesBothDevices(t *testing.T, _ string, initiator *side) {
	t.Helper()
	// Three rails on two devices: the last shares the first device.
	for i, words := range initiator.transfers {
		if got := words["domains"]; got != "rdmap0s6,rdmap0s7,rdmap0s6" {
			t.Errorf("transfer %d ran on %s", i, got)
		}
	}
}

// operations are those that a fabric offers on a profile.
func operations(fabric string, profile Profile) []string {
	if fabric == "efa-direct" && profile != P5 {
		return []string{"send"} // efa-direct emulates nothing, and asks for RDMA read and write
	}
	return []string{"read", "write", "writedata", "send"}
}

// TestTransfers moves data between two processes in every way that the efa
// provider has, under every knob, and verifies each byte.
func TestTransfers(t *testing.T) {
	for _, lib := range []library{installed, newer} {
		for _, fabric := range []string{"efa", "efa-direct"} {
			t.Run(lib.name+"/"+fabric, func(t *testing.T) {
				if fabric == "efa-direct" && lib.name == installed.name {
					testenv.Declare(t, "libfabric 1.17 has no efa-direct")
				}
				testProfiles(t, lib, fabric)
			})
		}
	}
}

func testProfiles(t *testing.T, lib library, fabric string) {
	for _, profile := range []Profile{P5, P4d, G5} {
		for _, k := range knobs {
			// The older generations with nothing and with everything at once.
			if profile != P5 && k.name != "plain" && k.name != "rough" {
				continue
			}
			t.Run(fmt.Sprintf("%s/%s", profile, k.name), func(t *testing.T) {
				t.Parallel()
				testTransfer(t, lib, fabric, profile, k)
			})
		}
	}
}

func testTransfer(t *testing.T, lib library, fabric string, profile Profile, k knob) {
	opt := k.options
	opt.Profile = profile
	if profile == G5 {
		opt.MaxRDMASize = 0 // has none to limit
	}
	_, env := setup(t, opt)
	args := append([]string{"-f", fabric, "-s", strconv.Itoa(transferSize), "-c", strconv.Itoa(k.chunk)}, k.args...)
	ops := operations(fabric, profile)
	args = append(args, ops...)
	target, initiator := &side{args: args}, &side{args: args}
	run(t, lib, client(t), env, target, initiator)
	checkTransfers(t, lib, profile, ops, transferSize, k.chunk, target, initiator)
	if k.effect != nil && !t.Failed() && len(ops) > 1 {
		k.effect(t, fabric, initiator)
	}
}

// checkTransfers expects every byte right, an event for each chunk, and the
// device described truly.
func checkTransfers(t *testing.T, lib library, profile Profile, ops []string, size, chunk int, target, initiator *side) {
	t.Helper()
	for _, s := range []*side{target, initiator} {
		if s.exit != 0 || len(s.transfers) != len(ops) {
			t.Fatalf("exit %d after %d of %d transfers\n%s", s.exit, len(s.transfers), len(ops), s.stderr)
		}
	}
	part, err := profile.partID()
	if err != nil {
		t.Fatal(err)
	}
	for i, op := range ops {
		want := map[string]string{
			"op": op, "wrong": "0", "firmware": FirmwareVersion, "device": fmt.Sprintf("%#x", part), "pci_slot": "6",
		}
		if lib.name == newer.name && slices.Contains([]string{"read", "write"}, op) {
			want["emulated_read"] = yesNo(profile == G5)
			want["emulated_write"] = yesNo(profile != P5)
		}
		for _, s := range []*side{target, initiator} {
			for name, value := range want {
				if got := s.transfers[i][name]; got != value {
					t.Errorf("%s: %s=%s, want %s", op, name, got, value)
				}
			}
		}
		events := uint64(0)
		if op == "writedata" || op == "send" {
			events = uint64((size + chunk - 1) / chunk)
		}
		if got := target.number(t, i, "events"); got != events {
			t.Errorf("%s: the target saw %d events, want %d", op, got, events)
		}
	}
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

// TestInOrder is the control of the shuffling knob: without it, efa-direct's
// one-sided operations complete in the order they were posted. (Immediate data
// is not in it: a datum that waits for its receiver completes late.)
func TestInOrder(t *testing.T) {
	t.Parallel()
	_, env := setup(t, Options{})
	args := []string{"-f", "efa-direct", "-s", "262144", "-c", "4096", "read", "write"}
	target, initiator := &side{args: args}, &side{args: args}
	run(t, newer, client(t), env, target, initiator)
	if initiator.exit != 0 || len(initiator.transfers) != 2 {
		t.Fatalf("exit %d\n%s", initiator.exit, initiator.stderr)
	}
	for i, words := range initiator.transfers {
		if initiator.number(t, i, "out_of_order") != 0 {
			t.Errorf("%s completed out of order without shuffling", words["op"])
		}
	}
}

// TestDlopen does the same through a libfabric that the program opens at run
// time with RTLD_LOCAL, as the tool does: the preloaded device must stand in
// front of that libfabric's libibverbs, too.
func TestDlopen(t *testing.T) {
	for _, lib := range []library{installed, newer} {
		t.Run(lib.name, func(t *testing.T) {
			t.Parallel()
			testenv.Need(t, "libfabric", clients.dlopen())
			_, env := setup(t, Options{})
			ops := operations("efa", P5)
			args := append([]string{"-s", strconv.Itoa(transferSize), "-c", "8192"}, ops...)
			target, initiator := &side{args: args}, &side{args: args}
			run(t, lib, clients.dir+"/emuclient-dl", env, target, initiator)
			checkTransfers(t, lib, P5, ops, transferSize, 8192, target, initiator)
		})
	}
}
