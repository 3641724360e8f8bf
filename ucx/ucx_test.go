package ucx

import (
	"errors"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/xferbench/xferbench/cgo/dl"
	"github.com/xferbench/xferbench/cgo/loop"
	"github.com/xferbench/xferbench/cgo/mem"
	"github.com/xferbench/xferbench/internal/testenv"
)

func load(t *testing.T) *Library {
	t.Helper()
	l, err := Load("")
	testenv.Need(t, "ucx", err)
	return l
}

// transports is a config of those of UCX_TLS alone.
func transports(tls string) Config { return Config{Settings: []Setting{{Key: "TLS", Value: tls}}} }

var tcp = transports("tcp")

// with is tcp with one setting more.
func with(key, value string) Config {
	c := transports("tcp")
	c.Settings = append(c.Settings, Setting{Key: key, Value: value})
	return c
}

func TestLoad(t *testing.T) {
	l := load(t)
	if !strings.Contains(l.Path(), "libucp.so") {
		t.Errorf("path %q", l.Path())
	}
	if l.Release().Major < 1 || !strings.HasPrefix(l.Version(), "1.") {
		t.Errorf("version %q, %+v", l.Version(), l.Release())
	}
	for _, k := range []string{"TLS", "NET_DEVICES", "RNDV_THRESH", "TCP_TX_SEG_SIZE"} {
		if !l.known[k] {
			t.Errorf("UCX_%s is not among the %d settings that UCX knows", k, len(l.known))
		}
	}
	if again, err := Load(""); err != nil || again != l {
		t.Errorf("a second Load gave %v, %v", again, err)
	}
}

func TestLoadSaysWhatIsMissing(t *testing.T) {
	_, err := Load("/nonexistent/libucp.so.0")
	if !errors.Is(err, ErrUnavailable) {
		t.Fatalf("error %v, want ErrUnavailable", err)
	}
	for _, want := range []string{"/nonexistent/libucp.so.0", "cannot open shared object file", string(HintLoad)} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error %q lacks %q", err, want)
		}
	}
	if _, err := Load("libm.so.6"); !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "ucp_init_version") {
		t.Errorf("libm as libucp: %v", err)
	}
}

// UCX before 1.20 takes over signals when it is loaded and initialised; they
// must be as Go left them.
func TestSignalActionsStay(t *testing.T) {
	actions := func() map[int][2]uintptr {
		m := map[int][2]uintptr{}
		for s := 1; s < 32; s++ {
			if h, flags, err := dl.SignalHandler(s); err == nil {
				m[s] = [2]uintptr{h, uintptr(flags)}
			}
		}
		return m
	}
	before := actions()
	c, err := load(t).Open(tcp)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for s, a := range actions() {
		if a != before[s] {
			t.Errorf("%v: action %x, was %x", syscall.Signal(s), a, before[s])
		}
	}
}

func TestOpenSaysWhichTransportIsMissing(t *testing.T) {
	_, err := load(t).Open(transports("warp"))
	if !errors.Is(err, ErrUnavailable) || !errors.Is(err, ErrNoDevice) || errors.Is(err, ErrUnreachable) || errors.Is(err, ErrSetting) {
		t.Fatalf("error %v, want ErrUnavailable and ErrNoDevice alone", err)
	}
	for _, want := range []string{"UCX_TLS=warp", "'warp' is not available", "tcp", "no usable transports/devices", "ucx_info -d"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error %q lacks %q", err, want)
		}
	}
}

func TestOpenRefusesSettings(t *testing.T) {
	l := load(t)
	for name, tt := range map[string]struct {
		cfg  Config
		want string
	}{
		"no such setting": {with("RNDV_TRESH", "8k"), "UCX_RNDV_TRESH=8k"},
		"no such value":   {with("RNDV_THRESH", "much"), "UCX_RNDV_THRESH=much"},
	} {
		t.Run(name, func(t *testing.T) {
			c, err := l.Open(tt.cfg)
			if err == nil {
				c.Close()
			}
			if !errors.Is(err, ErrSetting) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want ErrSetting that names %s", err, tt.want)
			}
		})
	}
}

// A variable that UCX cannot read is the cause that is named, whatever else is asked
// for: UCX does not even say what it knows then.
func TestOpenNamesTheVariable(t *testing.T) {
	load(t)
	if os.Getenv("UCX_RNDV_THRESH") == "abc" {
		l, err := Load("")
		if err != nil {
			t.Fatal(err)
		}
		_, err = l.Open(tcp)
		var e *Error
		if !errors.Is(err, ErrSetting) || !errors.As(err, &e) || !slices.Contains(e.Environment, "UCX_RNDV_THRESH=abc") {
			t.Errorf("%v does not name the variable", err)
		}
		return
	}
	cmd := exec.Command(testenv.Self(t), "-test.run=^TestOpenNamesTheVariable$")
	cmd.Env = append(os.Environ(), "UCX_RNDV_THRESH=abc")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestContext(t *testing.T) {
	c, err := load(t).Open(with("UCX_TCP_TX_SEG_SIZE", "16k"))
	if err != nil {
		t.Fatal(err)
	}
	if s := c.Settings(); s["UCX_TLS"] != "tcp" || s["UCX_TCP_TX_SEG_SIZE"] != "16k" || s["UCX_HANDLE_ERRORS"] != "none" {
		t.Errorf("settings %v", s)
	}
	buf, err := mem.New(mem.Host, 0, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	defer buf.Free()
	r := loop.Region{Address: buf.Address(), Len: 1 << 20}
	if !c.SupportsCUDA() {
		_, err := c.Register(loop.Region{Address: r.Address, Len: r.Len, CUDA: true})
		if !errors.Is(err, ErrUnsupported) || !strings.Contains(err.Error(), "cuda_copy") {
			t.Errorf("registering CUDA memory: %v", err)
		}
	}
	if _, err := c.Register(loop.Region{}); err == nil {
		t.Error("an empty region was taken")
	}
	m, err := c.Register(r)
	if err != nil {
		t.Fatal(err)
	}
	w, err := c.NewWorker(m)
	if err != nil {
		t.Fatal(err)
	}
	if a, err := w.Address(); err != nil || len(a.Worker) == 0 || len(a.Key) == 0 || a.Base != r.Address || a.Len != r.Len {
		t.Errorf("address %+v, %v", a, err)
	}
	if err := w.Connect(Address{Key: m.Key()}); err == nil {
		t.Error("an empty address was taken")
	}
	if c.Close() == nil || m.Close() == nil {
		t.Error("a context, or a memory, with open children was closed")
	}
	c.Settings()["UCX_TLS"] = "rc"
	if c.Settings()["UCX_TLS"] != "tcp" {
		t.Error("a caller changed the settings of the context")
	}
	for range 2 {
		if err := errors.Join(w.Close(), m.Close(), c.Close()); err != nil {
			t.Error(err)
		}
	}
}

// What UCX says must not reach standard output, where results go: neither its
// warnings nor, at a user's UCX_LOG_LEVEL, its chatter.
func TestStandardOutputStaysClean(t *testing.T) {
	load(t)
	if os.Getenv("XFERBENCH_TEST_CHATTER") != "" {
		l, err := Load("")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := l.Open(transports("warp")); err == nil {
			t.Error("transport warp exists")
		}
		c, err := l.Open(tcp)
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
		return
	}
	for _, level := range []string{"", "debug"} {
		cmd := exec.Command(testenv.Self(t), "-test.run=^TestStandardOutputStaysClean$")
		cmd.Env = append(os.Environ(), "XFERBENCH_TEST_CHATTER=1", "UCX_PROTO_INFO=y", "UCX_BOGUS=1")
		if level != "" {
			cmd.Env = append(cmd.Env, "UCX_LOG_LEVEL="+level)
		}
		var out, errs strings.Builder
		cmd.Stdout, cmd.Stderr = &out, &errs
		if err := cmd.Run(); err != nil {
			t.Fatalf("%v\n%s%s", err, out.String(), errs.String())
		}
		if out.String() != "PASS\n" {
			t.Errorf("UCX_LOG_LEVEL=%q: standard output holds %q", level, out.String())
		}
		if heard := strings.Contains(errs.String(), "warp"); heard != (level != "") {
			t.Errorf("UCX_LOG_LEVEL=%q: standard error holds %q", level, errs.String())
		}
	}
}

// The table of words that serves without a library says what the library says.
func TestStatusWords(t *testing.T) {
	load(t)
	for s, words := range ownWords {
		if s.Error() != words {
			t.Errorf("%d: ucs_status_string says %q, the table %q", int(s), s.Error(), words)
		}
	}
	if s := Status(-99); s.words() != "UCX status -99" {
		t.Errorf("a code that is not in the table: %q", s.words())
	}
}
