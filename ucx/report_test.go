package ucx

import (
	"encoding/binary"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func readReport(t testing.TB, name string) (text string, key []byte) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	head, text, _ := strings.Cut(string(b), "\n")
	key, err = hex.DecodeString(strings.TrimPrefix(head, "KEY "))
	if err != nil {
		t.Fatal(err)
	}
	return text, key
}

func TestParseReport(t *testing.T) {
	emulated := "software emulation over active messages"
	tests := map[string]Report{
		"report-1.13.1-tcp.txt": {
			Lanes:   []string{"lane[0]: 1:tcp/lo.0 md[0] -> md[0]/tcp/sysdev[255] am am_bw#0 keepalive wireup"},
			Devices: []string{"tcp/lo"},
			Protocol: map[string]string{
				"lanes": "lane[0]: 1:tcp/lo.0 md[0] -> md[0]/tcp/sysdev[255] am am_bw#0 keepalive wireup",
				"read":  emulated, "write": emulated, "send": "0..<egr/short>..8185..<egr/zcopy>..(inf)",
			},
			Emulated: []string{"read", "write"},
		},
		// The key (04) is of cma alone, whose lane UCX 1.13 uses for no put or get;
		// the put and get lines are those of lanes without a key.
		"report-1.13.1-shm.txt": {
			Lanes: []string{
				"lane[0]: 0:sysv/memory.0 md[0] -> md[0]/sysv/sysdev[255] am am_bw#0",
				"lane[1]: 1:posix/memory.0 md[1] -> md[1]/posix/sysdev[255]",
				"lane[2]: 2:cma/memory.0 md[2] -> md[2]/cma/sysdev[255] rma_bw#0",
			},
			Devices: []string{"sysv/memory", "posix/memory", "cma/memory"},
			Protocol: map[string]string{
				"lanes": "lane[0]: 0:sysv/memory.0 md[0] -> md[0]/sysv/sysdev[255] am am_bw#0; " +
					"lane[1]: 1:posix/memory.0 md[1] -> md[1]/posix/sysdev[255]; " +
					"lane[2]: 2:cma/memory.0 md[2] -> md[2]/cma/sysdev[255] rma_bw#0",
				"read": emulated, "write": emulated, "send": "0..<egr/short>..93..<egr/bcopy>..(inf)",
			},
			Emulated: []string{"read", "write"},
		},
		"report-1.18.1-tcp.txt": {
			Lanes:   []string{"lane[0]: 1:tcp/lo.0 md[0] -> md[0]/tcp/sysdev[255] seg 4294967295 am am_bw#0 keepalive wireup"},
			Devices: []string{"tcp/lo"},
			Protocol: map[string]string{
				"lanes": "lane[0]: 1:tcp/lo.0 md[0] -> md[0]/tcp/sysdev[255] seg 4294967295 am am_bw#0 keepalive wireup",
				"read":  "0..inf software emulation tcp/lo", "write": "0..inf software emulation tcp/lo",
				"send": "0..8184 eager short tcp/lo; 8185..inf multi-frag eager copy-in copy-out tcp/lo",
			},
			Emulated: []string{"read", "write"},
		},
		"report-1.18.1-shm.txt": {
			Lanes: []string{
				"lane[0]: 0:sysv/memory.0 md[0] -> md[0]/sysv/sysdev[255] seg 4294967295 am am_bw#0",
				"lane[1]: 1:posix/memory.0 md[1] -> md[1]/posix/sysdev[255] seg 4294967295",
				"lane[2]: 2:cma/memory.0 md[2] -> md[2]/cma/sysdev[255] seg 4294967295 rma_bw#0",
			},
			Devices: []string{"sysv/memory", "posix/memory", "cma/memory"},
			Protocol: map[string]string{
				"lanes": "lane[0]: 0:sysv/memory.0 md[0] -> md[0]/sysv/sysdev[255] seg 4294967295 am am_bw#0; " +
					"lane[1]: 1:posix/memory.0 md[1] -> md[1]/posix/sysdev[255] seg 4294967295; " +
					"lane[2]: 2:cma/memory.0 md[2] -> md[2]/cma/sysdev[255] seg 4294967295 rma_bw#0",
				"read": "0..inf zero-copy cma/memory", "write": "0..inf zero-copy cma/memory",
				"send": "0..92 eager short sysv/memory; 93..8248 eager copy-in copy-out sysv/memory; 8249..inf multi-frag eager copy-in copy-out sysv/memory",
			},
		},
	}
	// Its tables have one more row, and its tcp has put: over two interfaces, but
	// read stays emulated.
	tests["report-1.22.0-tcp.txt"] = Report{
		Lanes: []string{
			"lane[0]: 1:tcp/lo.0 md[0] -> md[0]/tcp/sysdev[255] seg 4294967295 rma_bw#0 am keepalive",
			"lane[1]: 0:tcp/eth0.0 md[0] -> md[0]/tcp/sysdev[255] seg 4294967295 rma_bw#1 wireup",
		},
		Devices: []string{"tcp/lo", "tcp/eth0"},
		Protocol: map[string]string{
			"lanes": "lane[0]: 1:tcp/lo.0 md[0] -> md[0]/tcp/sysdev[255] seg 4294967295 rma_bw#0 am keepalive; " +
				"lane[1]: 0:tcp/eth0.0 md[0] -> md[0]/tcp/sysdev[255] seg 4294967295 rma_bw#1 wireup",
			"read": "0..inf software emulation tcp/lo", "write": "0..inf zero-copy 52% on tcp/lo and 48% on tcp/eth0",
			"send": "0 eager short tcp/lo; 1..16483 eager zero-copy copy-out tcp/lo; 16484..inf multi-frag eager copy-in copy-out tcp/lo",
		},
		Emulated: []string{"read"},
	}
	shm := tests["report-1.18.1-shm.txt"]
	shm.Lanes = []string{
		"lane[0]: 0:sysv/memory.0 md[0] -> md[0]/sysv/sysdev[255] seg 4294967295 am",
		shm.Lanes[1], shm.Lanes[2],
	}
	shm.Protocol = map[string]string{"lanes": strings.Join(shm.Lanes, "; "),
		"read": shm.Protocol["read"], "write": shm.Protocol["write"], "send": shm.Protocol["send"]}
	tests["report-1.22.0-shm.txt"] = shm
	for name, want := range tests {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(want, ParseReport(readReport(t, name))); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// Written by hand after ucp_ep_print_info of UCX 1.13: an operation is direct
// when its lane's memory domain is in the key, whatever the lanes' order.
func TestParseReportReadsTheKey(t *testing.T) {
	const text = `#
#                 lane[0]:  7:rc_mlx5/mlx5_0:1.0 md[4]      -> md[5]/ib/sysdev[0] rma#0 rma_bw#0 am
#                 lane[1]:  8:rc_mlx5/mlx5_1:1.0 md[6]      -> md[7]/ib/sysdev[1] rma#1 rma_bw#1
#
#                  put[1]: 0..<short>..221..<bcopy>..4196..<zcopy>..(inf)
#                  get[1]: 0..<bcopy>..1024..<zcopy>..(inf)
`
	key := func(mds uint64) []byte { return binary.NativeEndian.AppendUint64(nil, mds) }
	if r := ParseReport(text, key(1<<7)); len(r.Emulated) != 0 || r.Protocol["read"] != "lane[1] 0..<bcopy>..1024..<zcopy>..(inf)" {
		t.Errorf("with a key of md 7: %+v", r)
	}
	if r := ParseReport(text, key(1<<6|1<<5)); len(r.Emulated) != 2 {
		t.Errorf("without a key of md 7: %+v", r)
	}
	if r := ParseReport(text, nil); len(r.Emulated) != 2 {
		t.Errorf("without any key: %+v", r)
	}
}

func TestTablesOf(t *testing.T) {
	const log = `[1700000000.123456] [host:42  :0]   +------------------------------+---------------------------+
[1700000000.123457] [host:42  :0]   | xferbench1 inter-node cfg#1  | remote memory read by ucp_get*(multi) into host memory from host |
[1700000000.123458] [host:42  :0]   |                       0..inf | software emulation | tcp/eth0 |
[1700000000.123459] [host:42  :0]   | xferbench12 inter-node cfg#1 | remote memory read by ucp_get*(multi) into host memory from host |
[1700000000.123460] [host:42  :0]   |                       0..inf | zero-copy | rc_mlx5/mlx5_0:1 |
`
	want := "| xferbench1 inter-node cfg#1  | remote memory read by ucp_get*(multi) into host memory from host |\n" +
		"|                       0..inf | software emulation | tcp/eth0 |\n"
	if diff := cmp.Diff(want, tablesOf(log, "xferbench1")); diff != "" {
		t.Error(diff)
	}
}

func TestTablesOfNewerUCX(t *testing.T) {
	b, err := os.ReadFile("testdata/tables-1.22.0-tcp.txt")
	if err != nil {
		t.Fatal(err)
	}
	got := tablesOf(string(b), "xferbench1")
	if n := strings.Count(got, "xferbench1 intra-node"); n != 6 || strings.Contains(got, "+---") || strings.Contains(got, "[vm:") {
		t.Errorf("%d tables of 6:\n%s", n, got)
	}
	if got := tablesOf(string(b), "xferbench"); got != "" {
		t.Errorf("tables of another context: %q", got)
	}
}

func FuzzParseReport(f *testing.F) {
	for _, name := range []string{"report-1.13.1-shm.txt", "report-1.18.1-shm.txt", "report-1.22.0-tcp.txt"} {
		text, key := readReport(f, name)
		f.Add(text, key)
	}
	f.Fuzz(func(t *testing.T, text string, key []byte) {
		r := ParseReport(text, key)
		for _, op := range r.Emulated {
			if op != "read" && op != "write" && op != "send" {
				t.Errorf("emulated operation %q", op)
			}
		}
		if len(r.Lanes) == 0 && len(r.Protocol) > 1 {
			t.Errorf("protocols without a lane: %+v", r)
		}
		tablesOf(text, "xferbench1")
		knownSettings(text)
	})
}
