package transport

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"math"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/xferbench/xferbench/cgo/loop"
	"github.com/xferbench/xferbench/cgo/mem"
	"github.com/xferbench/xferbench/internal/kv"
	"github.com/xferbench/xferbench/internal/testenv"
)

// fakeEndpoint takes everything and moves nothing. It keeps the rules that an
// endpoint may count on.
type fakeEndpoint struct {
	t    testing.TB
	cfg  Config
	buf  *mem.Buffer
	conn bool
}

func (e *fakeEndpoint) Info() Info { return Info{Provider: e.cfg.Provider} }
func (e *fakeEndpoint) Lanes() int { return max(e.cfg.Streams, 1) * max(e.cfg.Rails, 1) }
func (e *fakeEndpoint) Register(b *mem.Buffer) error {
	if e.buf != nil || b == nil {
		e.t.Error("registered twice, or nothing")
	}
	e.buf = b
	return nil
}
func (e *fakeEndpoint) Address() ([]byte, error) { return []byte("a"), nil }
func (e *fakeEndpoint) Connect(context.Context, []byte) error {
	if e.conn || e.buf == nil {
		e.t.Error("connected twice, or before a region")
	}
	e.conn = true
	return nil
}
func (e *fakeEndpoint) Arm(_ context.Context, op loop.Op, plans []*loop.Plan, iters int) error {
	if !e.conn || len(plans) != e.Lanes() || iters < 1 || iters > MaxIterations || !knownOp(op) {
		e.t.Errorf("armed with %d plans for %d transfers of %v, connected %v", len(plans), iters, op, e.conn)
	}
	for _, p := range plans {
		for _, q := range p.Pieces() {
			if q.Remote+q.Len < q.Len || q.Remote+q.Len > uint64(e.buf.Len()) {
				e.t.Errorf("piece %+v of a buffer of %d bytes", q, e.buf.Len())
			}
		}
	}
	return nil
}
func (e *fakeEndpoint) Settle(context.Context) (int, error) { return 0, nil }
func (e *fakeEndpoint) Transfer(context.Context, loop.Op, []*loop.Plan, int) ([]loop.Sample, error) {
	return nil, errors.New("a target transferred")
}
func (e *fakeEndpoint) Fault() error { return nil }
func (e *fakeEndpoint) Close() error { return nil }

// servedFake is a served side over fake endpoints; opened is told each Config.
func servedFake(t testing.TB, opened func(Config)) *Served {
	s := &Served{Side: &Side{MaxMemory: 1 << 20, Bind: []string{"127.0.0.1"}, Libfabric: "/mine/libfabric", Libucp: "/mine/libucp"}}
	s.Side.open = func(_ context.Context, c Config) (Endpoint, error) {
		if opened != nil {
			opened(c)
		}
		if c.Role != Target || c.Streams*c.Rails > MaxLanes {
			t.Errorf("opened as %+v", c)
		}
		return &fakeEndpoint{t: t, cfg: c}, nil
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func good() Config {
	return Config{Provider: "tcp", Role: Target, Streams: 1, Timeout: time.Second, Device: -1, Ops: []loop.Op{loop.Read}}
}

// What the initiator says of role and library is not heard.
func TestServedIsATargetWithItsOwnLibrary(t *testing.T) {
	for provider, want := range map[string]string{"tcp": "/mine/libfabric", "fabric:sockets": "/mine/libfabric", "ucx": "/mine/libucp", "ucx:tcp": "/mine/libucp"} {
		for i, role := range []Role{Initiator, Target} {
			var got Config
			s := servedFake(t, func(c Config) { got = c })
			c := good()
			c.Provider, c.Role, c.Library = provider, role, "/tmp/any.so"
			if _, err := s.Open(t.Context(), OpenRequest{i, c}); err != nil {
				t.Fatal(err)
			}
			if got.Role != Target || got.Library != want {
				t.Errorf("%s asked for as role %d: opened as role %d with %s", provider, role, got.Role, got.Library)
			}
		}
	}
}

func TestServedRefusesAbsurdOpens(t *testing.T) {
	for name, change := range map[string]func(*Config){
		"streams 2^62":       func(c *Config) { c.Streams = 1 << 62 },
		"streams × rails":    func(c *Config) { c.Streams, c.Rails = 1<<33, 1<<33 },
		"lanes":              func(c *Config) { c.Streams, c.Rails = 1024, 2 },
		"negative streams":   func(c *Config) { c.Streams = -1 },
		"negative rails":     func(c *Config) { c.Rails = math.MinInt },
		"depth":              func(c *Config) { c.Depth = 1 << 40 },
		"depth of all lanes": func(c *Config) { c.Streams, c.Depth = 1024, 1<<16 },
		"negative depth":     func(c *Config) { c.Depth = -5 },
		"chunk":              func(c *Config) { c.Chunk = math.MaxUint64 },
		"poll":               func(c *Config) { c.Poll = 7 },
		"timeout 4 ns":       func(c *Config) { c.Timeout = 4 },
		"timeout 0":          func(c *Config) { c.Timeout = 0 },
		"negative timeout":   func(c *Config) { c.Timeout = -time.Second },
		"endless timeout":    func(c *Config) { c.Timeout = math.MaxInt64 },
		"device":             func(c *Config) { c.Device = math.MaxInt },
		"negative device":    func(c *Config) { c.Device = -2 },
		"operation":          func(c *Config) { c.Ops = []loop.Op{17} },
		"operation twice":    func(c *Config) { c.Ops = []loop.Op{loop.Read, loop.Read} },
		"bind":               func(c *Config) { c.Bind = []string{"host.example"} },
		"many binds":         func(c *Config) { c.Bind = slices.Repeat([]string{"127.0.0.1"}, 1000) },
		"peers":              func(c *Config) { c.Peers = []string{"host.example"} },
		"many peers":         func(c *Config) { c.Peers = slices.Repeat([]string{"127.0.0.1"}, 1000) },
		"long provider":      func(c *Config) { c.Provider = "fabric:" + strings.Repeat("x", 1000) },
		"memcpy":             func(c *Config) { c.Provider = "memcpy" },
		"no provider":        func(c *Config) { c.Provider = "" },
		"a path as TLS":      func(c *Config) { c.Provider = "ucx:/tmp/libuct_x.so" },
		"a path as provider": func(c *Config) { c.Provider = "fabric:../x" },
		"libfabric option":   func(c *Config) { c.Options = map[string]string{"write-landing": "/x"} },
		"long option": func(c *Config) {
			c.Provider, c.Options = "ucx", map[string]string{"RNDV_THRESH": strings.Repeat("1", 9999)}
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := servedFake(t, nil)
			c := good()
			change(&c)
			if _, err := s.Open(t.Context(), OpenRequest{0, c}); !errors.Is(err, ErrRefused) {
				t.Errorf("opened: %v", err)
			}
		})
	}
	s := servedFake(t, nil)
	for _, id := range []int{-1, math.MinInt, math.MaxInt} {
		if _, err := s.Open(t.Context(), OpenRequest{id, good()}); !errors.Is(err, ErrRefused) {
			t.Errorf("endpoint %d: %v", id, err)
		}
	}
	n := 0
	for ; n <= maxEndpoints; n++ {
		if _, err := s.Open(t.Context(), OpenRequest{n, good()}); err != nil {
			break
		}
	}
	if n != maxEndpoints {
		t.Errorf("%d endpoints were opened at a time", n)
	}
	wide := good()
	wide.Streams = MaxLanes
	s = servedFake(t, nil)
	for n = 0; n < 10; n++ {
		if _, err := s.Open(t.Context(), OpenRequest{n, wide}); err != nil {
			break
		}
	}
	if n*MaxLanes != maxSessionLanes {
		t.Errorf("%d endpoints of %d lanes were opened at a time", n, MaxLanes)
	}
	if _, err := s.Shut(t.Context(), EndpointRequest{0}); err != nil {
		t.Error(err)
	}
	if _, err := s.Open(t.Context(), OpenRequest{0, wide}); err != nil {
		t.Errorf("after one was shut: %v", err)
	}
}

func TestServedRefusesAbsurdSeals(t *testing.T) {
	s := servedFake(t, nil)
	for _, bind := range [][]string{{"host.example"}, slices.Repeat([]string{"127.0.0.1"}, 1000)} {
		if _, err := s.Routes(t.Context(), RoutesRequest{Bind: bind}); !errors.Is(err, ErrRefused) {
			t.Errorf("routes for %d addresses: %v", len(bind), err)
		}
	}
	if _, err := s.Seal(t.Context(), SealRequest{make([]Connection, maxConnections+1)}); !errors.Is(err, ErrRefused) {
		t.Errorf("sealed: %v", err)
	}
}

// A target takes the addresses that it was told, else the initiator's Bind, and never
// everybody.
func TestServedAdmitsTheInitiator(t *testing.T) {
	for _, tt := range []struct{ bind, peers, want []string }{
		{[]string{"127.0.0.1"}, nil, []string{"127.0.0.1"}},
		{[]string{"127.0.0.1"}, []string{"127.0.0.1", "127.0.0.9"}, []string{"127.0.0.1", "127.0.0.9"}},
	} {
		var got Config
		s := servedFake(t, func(c Config) { got = c })
		c := good()
		c.Bind, c.Peers = tt.bind, tt.peers
		if _, err := s.Open(t.Context(), OpenRequest{0, c}); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(got.Peers, tt.want) {
			t.Errorf("bind %v, peers %v: admits %v", tt.bind, tt.peers, got.Peers)
		}
	}
}

func TestServedRefusesAbsurdPlans(t *testing.T) {
	s := servedFake(t, nil)
	ctx := t.Context()
	for _, r := range []MemoryRequest{{Kind: "disk", Bytes: 1}, {Kind: mem.Host, Device: -1, Bytes: 1}, {Kind: mem.CUDA, Device: 1 << 40, Bytes: 1},
		{Kind: mem.Host}, {Kind: mem.Host, Bytes: math.MaxUint64}, {Kind: mem.Host, Bytes: 1 << 21}} {
		if _, err := s.Memory(ctx, r); err == nil {
			t.Errorf("memory %+v was given", r)
		}
	}
	if _, err := s.Register(ctx, RegisterRequest{}); err == nil {
		t.Error("an endpoint that is not open was registered")
	}
	if _, err := s.Open(ctx, OpenRequest{0, good()}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Connect(ctx, ConnectRequest{Endpoint: 0}); !errors.Is(err, ErrRefused) {
		t.Errorf("connected before registration: %v", err)
	}
	if _, err := s.Memory(ctx, MemoryRequest{Kind: mem.Host, Bytes: 1 << 20}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Register(ctx, RegisterRequest{}); err != nil {
		t.Fatal(err)
	}
	ok := PlanRequest{Lanes: 1, Op: loop.Read, KV: kv.Request{Bytes: 1 << 20, Shape: kv.Contiguous}}
	if _, err := s.Plan(ctx, ok); err != nil {
		t.Fatal(err)
	}
	for what, call := range map[string]func() error{
		"Fill":   func() error { _, err := s.Fill(ctx, PayloadRequest{}); return err },
		"Poison": func() error { _, err := s.Poison(ctx, PayloadRequest{}); return err },
		"Check":  func() error { _, err := s.Check(ctx, PayloadRequest{}); return err },
		"Arm":    func() error { _, err := s.Arm(ctx, ArmRequest{Iters: 1}); return err },
		"Settle": func() error { _, err := s.Settle(ctx, SettleRequest{}); return err },
	} {
		if err := call(); !errors.Is(err, ErrRefused) {
			t.Errorf("%s before the connection: %v", what, err)
		}
	}
	if _, err := s.Connect(ctx, ConnectRequest{Endpoint: 0, Address: make([]byte, maxAddress+1)}); !errors.Is(err, ErrRefused) {
		t.Errorf("a huge address: %v", err)
	}
	if _, err := s.Connect(ctx, ConnectRequest{Endpoint: 0}); err != nil {
		t.Fatal(err)
	}
	model := kv.Uniform("m", 10_000, 1<<16, 1<<16, 1<<16, kv.BF16)
	for name, change := range map[string]func(*PlanRequest){
		"negative number":  func(r *PlanRequest) { r.Plan = -1 },
		"huge number":      func(r *PlanRequest) { r.Plan = math.MaxInt },
		"endpoint":         func(r *PlanRequest) { r.Endpoint = -7 },
		"lanes":            func(r *PlanRequest) { r.Lanes = 1 << 62 },
		"negative lanes":   func(r *PlanRequest) { r.Lanes = -1 },
		"operation":        func(r *PlanRequest) { r.Op = -3 },
		"chunk":            func(r *PlanRequest) { r.Chunk = math.MaxUint64 },
		"nothing":          func(r *PlanRequest) { r.KV.Bytes = 0 },
		"negative bytes":   func(r *PlanRequest) { r.KV.Bytes = -1 },
		"more than memory": func(r *PlanRequest) { r.KV.Bytes = 1<<20 + 1 },
		"its own limits":   func(r *PlanRequest) { r.KV.Bytes, r.KV.MaxBytes = math.MaxInt64, math.MaxInt64 },
		"tokens":           func(r *PlanRequest) { r.KV = kv.Request{Model: model, Tokens: math.MaxInt64} },
		"blocks": func(r *PlanRequest) {
			r.KV = kv.Request{Model: model, Tokens: 1 << 40, BlockTokens: 1, Shape: kv.Fragmented}
		},
		"negative blocks":   func(r *PlanRequest) { r.KV = kv.Request{Model: model, Tokens: 1, BlockTokens: -1} },
		"tensor parallel":   func(r *PlanRequest) { r.KV = kv.Request{Model: model, Tokens: 1, TensorParallel: -1} },
		"layers":            func(r *PlanRequest) { r.KV = kv.Request{Model: kv.Uniform("m", 1<<60, 1, 1, 1, kv.BF16), Tokens: 1} },
		"unknown data type": func(r *PlanRequest) { m := model; m.DType = "x"; r.KV = kv.Request{Model: m, Tokens: 1} },
	} {
		r := ok
		r.Plan = 1
		change(&r)
		if _, err := s.Plan(ctx, r); err == nil {
			t.Errorf("%s: planned", name)
		}
	}
	for _, n := range []int{0, -1, MaxIterations + 1, math.MaxInt} {
		if _, err := s.Arm(ctx, ArmRequest{Iters: n}); !errors.Is(err, ErrRefused) {
			t.Errorf("%d transfers: %v", n, err)
		}
	}
	if _, err := s.Arm(ctx, ArmRequest{Iters: 2}); err != nil {
		t.Error(err)
	}
	if _, err := s.Arm(ctx, ArmRequest{Iters: 2}); !errors.Is(err, ErrRefused) {
		t.Errorf("armed twice: %v", err)
	}
	if _, err := s.Settle(ctx, SettleRequest{}); err != nil {
		t.Error(err)
	}
	if _, err := s.Connect(ctx, ConnectRequest{Endpoint: 0}); !errors.Is(err, ErrRefused) {
		t.Errorf("connected twice: %v", err)
	}
}

// Pieces are bounded for one plan and for a session, before they are made.
func TestPiecesAreBounded(t *testing.T) {
	x, err := kv.New(kv.Request{Bytes: 64 << 20, Shape: kv.Contiguous})
	if err != nil {
		t.Fatal(err)
	}
	if n, err := CheckPlan(x, 1, 1); !errors.Is(err, ErrTooLarge) {
		t.Errorf("64 MiB in pieces of 1 byte: %d, %v", n, err)
	}
	// The bound is one: no split has more.
	for _, lanes := range []int{1, 3, 16} {
		for _, chunk := range []uint64{0, 4095, 4096, 1 << 20, 3 << 20} {
			n, err := CheckPlan(x, lanes, chunk)
			if err != nil {
				t.Fatal(err)
			}
			got := 0
			for _, l := range split(extent{x.All(), uint64(x.Bytes), x.Count()}, lanes, chunk) {
				got += len(l)
			}
			if got > n || got < n-2*lanes-1 {
				t.Errorf("%d lanes, chunk %d: %d pieces, bound %d", lanes, chunk, got, n)
			}
		}
	}
	s := servedFake(t, nil)
	s.session().pieces = maxSessionPieces - 100
	if _, err := s.Open(t.Context(), OpenRequest{0, good()}); err != nil {
		t.Fatal(err)
	}
	r := PlanRequest{Lanes: 1, Op: loop.Read, Chunk: 1, KV: kv.Request{Bytes: 1000, Shape: kv.Contiguous}}
	if _, err := s.Plan(t.Context(), r); !errors.Is(err, ErrTooLarge) {
		t.Errorf("pieces of a session: %v", err)
	}
}

// harmful are words in the names of UCX's settings that reach beyond a
// transfer; "LOG_ACK_REQ_FREQ" is a logarithm.
var harmful = regexp.MustCompile(`FILE|DIR\b|_DIR_|PATH$|SOCK_PATH|MODULE|(^|_)LOG_(?:[^A]|A[^C])|SIGN|GDB|VFS|DEST|HOOK|RELOC|DLOPEN|MAIL|PROFILE|STATS|DEBUG|HANDLE_ERRORS|ERROR_SIG|^MEM_|PORT_RANGE|SOURCE_ADDR|SRC_ADDR|MEMTRACK|WARN_`)

func TestUCXOptionsOfAnInitiator(t *testing.T) {
	for k, v := range map[string]string{"RNDV_THRESH": "inf", "ZCOPY_THRESH": "8k", "MAX_RMA_RAILS": "2", "TCP_TX_SEG_SIZE": "16kb", "RC_FENCE": "none",
		"IB_PCI_RELAXED_ORDERING": "try", "RC_MLX5_TX_NUM_GET_BYTES": "inf", "POSIX_FIFO_SIZE": "128", "ERR_HANDLING": "none", "NET_DEVICES": "mlx5_0:1,mlx5_1:1",
		"RNDV_SCHEME": "get_zcopy", "PROTO_ENABLE": "n", "CUDA_COPY_BW": "10000MBs"} {
		if err := checkUCXOption(k, v); err != nil {
			t.Errorf("%s=%s: %v", k, v, err)
		}
	}
	for k, v := range map[string]string{"MODULE_DIR": "/tmp", "MODULES": "all", "LOG_FILE": "x", "LOG_LEVEL": "info", "PROFILE_FILE": "x", "PROFILE_MODE": "log",
		"STATS_DEST": "x", "HANDLE_ERRORS": "debug", "ERROR_SIGNALS": "11", "ERROR_MAIL_TO": "a", "GDB_COMMAND": "sh", "DEBUG_SIGNO": "9", "MEM_EVENTS": "yes",
		"MEM_MALLOC_HOOKS": "yes", "VFS_ENABLE": "y", "VFS_SOCK_PATH": "x", "TCP_CM_REUSEADDR": "y", "POSIX_DIR": "x", "PROTO_INFO_DIR": "x", "MEMTRACK_DEST": "x",
		"NET_DEVICES": "eth0", "TLS": "tcp", "PROTO_INFO": "y", "NEW_AND_UNKNOWN": "1", "": "", "RNDV_THRESH\x00": "1", "rndv_thresh": "1", "ASYNC_SIGNO": "9"} {
		if err := checkUCXOption(k, v); !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "UCX_"+k) {
			t.Errorf("%s=%s: %v", k, v, err)
		}
	}
	if err := checkUCXOption("RNDV_THRESH", "/etc/x"); !errors.Is(err, ErrRefused) {
		t.Errorf("a path as value: %v", err)
	}
	// Through Open, with and without UCX_; who started the side is free.
	for _, key := range []string{"MODULE_DIR", "UCX_MODULE_DIR"} {
		c := good()
		c.Provider, c.Options = "ucx", map[string]string{key: "tmp"}
		s := servedFake(t, nil)
		if _, err := s.Open(t.Context(), OpenRequest{0, c}); !errors.Is(err, ErrRefused) {
			t.Errorf("%s: %v", key, err)
		}
		s.Trusted = true
		if _, err := s.Open(t.Context(), OpenRequest{0, c}); err != nil {
			t.Errorf("%s of the user who started the side: %v", key, err)
		}
	}
}

// Of all settings that the installed UCX has, none passes that reaches beyond a
// transfer, and the greater part of those of transports does.
func TestUCXOptionsOfTheInstalledUCX(t *testing.T) {
	commands := map[string]func() *exec.Cmd{
		"installed": func() *exec.Cmd { return exec.CommandContext(t.Context(), "ucx_info", "-cf") },
		"Debian 13": func() *exec.Cmd { return testenv.Debian13(t).Command(t.Context(), "ucx_info", "-cf") },
	}
	for name, command := range commands {
		t.Run(name, func(t *testing.T) {
			out, err := command().Output()
			testenv.Need(t, "ucx_info", err)
			keys := regexp.MustCompile(`(?m)^(?:# )?UCX_([A-Z0-9_]+)=`).FindAllStringSubmatch(string(out), -1)
			passed := 0
			for _, k := range keys {
				if !ucxTuning.MatchString(k[1]) {
					continue
				}
				passed++
				if harmful.MatchString(k[1]) {
					t.Errorf("UCX_%s passes", k[1])
				}
			}
			t.Logf("%d of %d settings pass", passed, len(keys))
			if len(keys) < 100 || passed < len(keys)/3 {
				t.Errorf("%d of %d settings pass", passed, len(keys))
			}
		})
	}
}

// callServed makes a call from its name and JSON as the control channel does.
func callServed(ctx context.Context, s *Served, name string, data []byte) {
	switch name {
	case "Memory":
		decoded(ctx, data, s.Memory)
	case "Open":
		decoded(ctx, data, s.Open)
	case "Register":
		decoded(ctx, data, s.Register)
	case "Connect":
		decoded(ctx, data, s.Connect)
	case "Plan":
		decoded(ctx, data, s.Plan)
	case "Fill":
		decoded(ctx, data, s.Fill)
	case "Poison":
		decoded(ctx, data, s.Poison)
	case "Check":
		decoded(ctx, data, s.Check)
	case "Arm":
		decoded(ctx, data, s.Arm)
	case "Settle":
		decoded(ctx, data, s.Settle)
	case "Drop":
		decoded(ctx, data, s.Drop)
	case "Shut":
		decoded(ctx, data, s.Shut)
	}
}

func decoded[Q, A any](ctx context.Context, data []byte, f func(context.Context, Q) (A, error)) {
	var q Q
	if json.Unmarshal(data, &q) == nil {
		_, _ = f(ctx, q) // any error is right; a panic is not
	}
}

// Whatever calls come in whatever order, nothing panics and the endpoints see
// only what they may.
func FuzzServed(f *testing.F) {
	session := `Memory {"kind":"host","bytes":65536}
Open {"endpoint":1,"config":{"Provider":"tcp","Streams":2,"Timeout":1000000000,"Device":-1,"Ops":[0]}}
Register {"endpoint":1}
Connect {"endpoint":1,"address":"YQ=="}
Plan {"plan":3,"endpoint":1,"op":0,"lanes":2,"chunk_bytes":1024,"kv":{"Bytes":65536,"Shape":"contiguous"}}
Fill {"plan":3,"key":5}
Check {"plan":3,"key":5}
Arm {"plan":3,"iters":2}
Settle {"plan":3}
Plan {"plan":4,"endpoint":1,"op":0,"lanes":2,"name":"x","list":{"pieces":[{"Local":5,"Remote":7,"Len":9}],"regions":3,"remote_stride":20}}
Arm {"plan":4,"iters":1}
Settle {"plan":4}
Drop {"plan":4}
Memory {"buffer":7,"kind":"host","bytes":64}
Shut {"endpoint":1}`
	f.Add([]byte(session))
	f.Add([]byte(strings.ReplaceAll(session, `"endpoint":1`, `"endpoint":-1`)))
	f.Add([]byte(strings.ReplaceAll(session, `"Streams":2`, `"Streams":4611686018427387904,"Rails":4`)))
	f.Add([]byte(strings.ReplaceAll(session, `"Shape":"contiguous"`, `"Tokens":1,"Model":{"Layers":2,"Heads":8,"KVHeads":8,"HeadDim":8,"DType":"bf16"},"Shape":"fragmented"`)))
	f.Add([]byte(session + "\n" + session))
	f.Fuzz(func(t *testing.T, in []byte) {
		s := servedFake(t, nil)
		for i, line := range bytes.Split(in, []byte("\n")) {
			if i == 40 {
				break
			}
			name, data, _ := bytes.Cut(line, []byte(" "))
			callServed(t.Context(), s, string(name), data)
		}
	})
}
