// Package launch starts the engines of a TTFT run from a file, on this host or
// over ssh, and stops them again: readiness with a deadline, equal settings
// checked, logs kept, everything stopped by process group, GPU memory given back.
package launch

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/xferbench/xferbench/internal/strict"

	"github.com/xferbench/xferbench/internal/remote"
	"github.com/xferbench/xferbench/internal/ttft"
)

// Roles of an engine.
const (
	RolePrefill = "prefill"
	RoleDecode  = "decode"
	RoleUnified = "unified"
)

// File is a launch file: YAML, whose unknown keys are errors.
type File struct {
	// VLLM is the release that the engines run, such as "0.15.1"; "newest" or
	// empty: not checked, and presets are those of the newest release known here.
	VLLM string `yaml:"vllm"`
	NIXL string `yaml:"nixl"` // release, for the reader
	// Model is the model's path or name and ServedName what it is called in
	// requests; presets need the first.
	Model      string `yaml:"model"`
	ServedName string `yaml:"served_model_name"`
	// Settings that presets pass to all engines alike; 0: the preset's own.
	BlockTokens      int `yaml:"block_size_tokens"`
	Blocks           int `yaml:"num_gpu_blocks"`
	MaxModelLen      int `yaml:"max_model_len"`
	MaxBatchedTokens int `yaml:"max_num_batched_tokens"`
	MaxSeqs          int `yaml:"max_num_seqs"`
	// BytesPerToken is what a token takes in the KV cache; 0: from the model's name.
	BytesPerToken int64 `yaml:"bytes_per_token"`
	// Variables stand as ${NAME} in the values of engines.
	Variables map[string]string `yaml:"variables"`
	// Logs is the folder for the engines' output; empty: a new one beside records.
	Logs string `yaml:"logs"`
	// ReadyTimeoutS and StopTimeoutS bound starting (600) and stopping (30) in
	// seconds.
	ReadyTimeoutS int `yaml:"ready_timeout_s"`
	StopTimeoutS  int `yaml:"stop_timeout_s"`
	// SSHCommand is how to start ssh, in the shell's words; empty: ssh.
	SSHCommand string            `yaml:"ssh_command"`
	Engines    map[string]Engine `yaml:"engines"`

	path string
}

// Engine is one engine of a [File].
type Engine struct {
	Role string `yaml:"role"` // prefill, decode, unified; default: the engine's name
	// Arm groups engines into deployments that are compared; default: "unified"
	// for a unified engine, "disaggregated" for the others.
	Arm  string `yaml:"arm"`
	Host string `yaml:"host"` // empty or "local", or ssh://[user@]host[:port]
	URL  string `yaml:"url"`  // where this host reaches the engine
	// Preset makes the command: unified, ucx-tcp or libfabric-efa. Argv replaces
	// it, Args follow it and win over it.
	Preset string            `yaml:"preset"`
	Argv   []string          `yaml:"argv"`
	Args   []string          `yaml:"args"`
	Env    map[string]string `yaml:"env"`
	GPUs   string            `yaml:"gpus"` // CUDA_VISIBLE_DEVICES
	// SideChannel is host:port of NIXL's handshake; default: the URL's host, and
	// 5600 and up.
	SideChannel   string   `yaml:"side_channel"`
	ReadyPath     string   `yaml:"ready_path"`      // default /health
	ReadyTimeoutS int      `yaml:"ready_timeout_s"` // overrides the file's
	LogReady      []string `yaml:"log_ready"`       // texts that the log must hold to be ready
	// LogFirstTransfer are texts that the log holds after a transfer; their
	// absence is a warning.
	LogFirstTransfer []string `yaml:"log_first_transfer"`

	name string
}

// Load reads a file. Relative paths in it stay relative to the working
// directory of the engines, which is this process's, or the home over ssh.
func Load(path string) (*File, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	f, err := Parse(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	f.path = path
	return f, nil
}

// Parse reads the text of a file, fills in defaults and expands presets, so that
// afterwards each engine has its whole Argv and Env.
func Parse(data []byte) (*File, error) {
	f := &File{}
	if err := strict.Unmarshal(data, f); err != nil {
		return nil, err
	}
	if len(f.Engines) == 0 {
		return nil, errors.New("no engines")
	}
	for _, n := range []struct {
		name string
		v    int
	}{{"block_size_tokens", f.BlockTokens}, {"num_gpu_blocks", f.Blocks}, {"max_model_len", f.MaxModelLen}, {"max_num_batched_tokens", f.MaxBatchedTokens},
		{"max_num_seqs", f.MaxSeqs}, {"bytes_per_token", int(f.BytesPerToken)}, {"ready_timeout_s", f.ReadyTimeoutS}, {"stop_timeout_s", f.StopTimeoutS}} {
		if n.v < 0 {
			return nil, fmt.Errorf("%s is %d", n.name, n.v)
		}
	}
	f.ReadyTimeoutS = orElse(f.ReadyTimeoutS, 600)
	f.StopTimeoutS = orElse(f.StopTimeoutS, 30)
	for i, name := range f.names() {
		e := f.Engines[name]
		e.name = name
		if err := f.complete(&e, i); err != nil {
			return nil, fmt.Errorf("engine %s: %w", name, err)
		}
		f.Engines[name] = e
	}
	return f, f.checkArms()
}

func orElse(v, other int) int {
	if v == 0 {
		return other
	}
	return v
}

// names are the engines' in order.
func (f *File) names() []string { return slices.Sorted(maps.Keys(f.Engines)) }

var (
	variable   = regexp.MustCompile(`\$\{([A-Za-z_][A-Za-z0-9_]*)\}`)
	envName    = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)
	engineName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]*$`)
)

// expand puts variables into s.
func (f *File) expand(s string) (string, error) {
	var missing string
	out := variable.ReplaceAllStringFunc(s, func(m string) string {
		v, ok := f.Variables[m[2:len(m)-1]]
		if !ok {
			missing = m
		}
		return v
	})
	if missing != "" {
		return "", fmt.Errorf("%s in %q is not among the variables", missing, s)
	}
	return out, nil
}

// complete checks an engine and fills it in; i counts engines.
func (f *File) complete(e *Engine, i int) error {
	if !engineName.MatchString(e.name) {
		return errors.New("the name must consist of letters, digits, '.', '_' and '-'")
	}
	if e.Role == "" {
		e.Role = e.name
	}
	if !slices.Contains([]string{RolePrefill, RoleDecode, RoleUnified}, e.Role) {
		return fmt.Errorf("role %q; use prefill, decode or unified", e.Role)
	}
	if e.Arm == "" {
		e.Arm = map[bool]string{true: RoleUnified, false: "disaggregated"}[e.Role == RoleUnified]
	}
	if !engineName.MatchString(e.Arm) {
		return fmt.Errorf("arm %q: the name must consist of letters, digits, '.', '_' and '-'", e.Arm)
	}
	base, err := ttft.BaseURL(e.URL)
	if err != nil {
		return fmt.Errorf("url: %w", err)
	}
	e.URL = base
	if e.Host == "local" {
		e.Host = ""
	}
	if _, err := f.host(e.Host); err != nil {
		return fmt.Errorf("host %w, or local", err)
	}
	if e.ReadyPath == "" {
		e.ReadyPath = "/health"
	}
	if !strings.HasPrefix(e.ReadyPath, "/") || e.ReadyTimeoutS < 0 {
		return fmt.Errorf("ready_path %q, ready_timeout_s %d", e.ReadyPath, e.ReadyTimeoutS)
	}
	e.ReadyTimeoutS = orElse(e.ReadyTimeoutS, f.ReadyTimeoutS)
	if err := e.sideChannel(i); err != nil {
		return err
	}
	if err := f.command(e); err != nil {
		return err
	}
	env := map[string]string{}
	for k, v := range e.Env {
		if !envName.MatchString(k) {
			return fmt.Errorf("%q cannot be the name of an environment variable", k)
		}
		if env[k], err = f.expand(v); err != nil {
			return err
		}
	}
	e.Env = env
	argv := make([]string, len(e.Argv))
	for i, a := range e.Argv {
		if argv[i], err = f.expand(a); err != nil {
			return err
		}
		if strings.ContainsRune(argv[i], 0) {
			return errors.New("a NUL byte in argv")
		}
	}
	e.Argv = argv
	return nil
}

// host is where an engine runs. ssh asks nothing there: engines start at once.
func (f *File) host(name string) (remote.Host, error) {
	h, err := remote.ParseHost(name)
	if h.Target != "" {
		h.SSH = f.SSHCommand
	}
	return h, err
}

func (e *Engine) sideChannel(i int) error {
	if e.Role == RoleUnified {
		return nil
	}
	if e.SideChannel == "" {
		u, err := url.Parse(e.URL)
		if err != nil {
			return err
		}
		e.SideChannel = net.JoinHostPort(u.Hostname(), strconv.Itoa(5600+i))
	}
	if _, port, err := net.SplitHostPort(e.SideChannel); err != nil || port == "" {
		return fmt.Errorf("side_channel %q: want host:port", e.SideChannel)
	}
	return nil
}

// command completes Argv and Env from preset and settings.
func (f *File) command(e *Engine) error {
	switch {
	case len(e.Argv) > 0 && e.Preset != "":
		return errors.New("argv and preset exclude each other; add to a preset with args")
	case len(e.Argv) == 0 && e.Preset == "":
		return fmt.Errorf("neither argv nor preset; presets are %s", strings.Join(Presets(), ", "))
	}
	env := map[string]string{}
	if e.Preset != "" {
		argv, preset, err := f.preset(e)
		if err != nil {
			return err
		}
		e.Argv = argv
		maps.Copy(env, preset)
	}
	if e.Role != RoleUnified {
		host, port, err := net.SplitHostPort(e.SideChannel)
		if err != nil {
			return err
		}
		env["VLLM_NIXL_SIDE_CHANNEL_HOST"], env["VLLM_NIXL_SIDE_CHANNEL_PORT"] = host, port
	}
	if e.GPUs != "" {
		env["CUDA_VISIBLE_DEVICES"] = e.GPUs
	}
	maps.Copy(env, e.Env)
	e.Env = env
	e.Argv = append(slices.Clone(e.Argv), e.Args...)
	e.Args = nil
	return nil
}

// checkArms holds each arm to a set of roles that makes a deployment.
func (f *File) checkArms() error {
	roles := map[string]map[string]int{}
	urls := map[string]string{}
	for _, name := range f.names() {
		e := f.Engines[name]
		if roles[e.Arm] == nil {
			roles[e.Arm] = map[string]int{}
		}
		roles[e.Arm][e.Role]++
		if other, twice := urls[e.URL]; twice {
			return fmt.Errorf("engines %s and %s have the same url %s", other, name, e.URL)
		}
		urls[e.URL] = name
	}
	for _, arm := range slices.Sorted(maps.Keys(roles)) {
		r := roles[arm]
		switch {
		case r[RoleUnified] > 1 || r[RoleUnified] == 1 && len(r) > 1:
			return fmt.Errorf("arm %s: a unified engine stands alone", arm)
		case r[RoleUnified] == 0 && (r[RolePrefill] == 0 || r[RoleDecode] == 0):
			return fmt.Errorf("arm %s: it takes at least one prefill and one decode engine", arm)
		}
	}
	return nil
}

// Arms are the deployments of the file, in order of their names.
func (f *File) Arms() []ttft.Arm {
	byName := map[string]*ttft.Arm{}
	var order []string
	for _, name := range f.names() {
		e := f.Engines[name]
		a := byName[e.Arm]
		if a == nil {
			a = &ttft.Arm{Name: e.Arm, Model: f.ServedName, KV: ttft.Geometry{BytesPerToken: f.BytesPerToken}, Serving: e.serving()}
			byName[e.Arm] = a
			order = append(order, e.Arm)
		}
		a.Serving = agreed(a.Serving, e.serving())
		switch e.Role {
		case RolePrefill:
			a.Prefill = append(a.Prefill, e.URL)
		case RoleDecode:
			a.Decode = append(a.Decode, e.URL)
		default:
			a.Front = e.URL
		}
	}
	slices.Sort(order)
	out := make([]ttft.Arm, 0, len(order))
	for _, n := range order {
		out = append(out, *byName[n])
	}
	return out
}

// logDir is where the engines' output goes.
func (f *File) logDir(state string, at time.Time) string {
	if f.Logs != "" {
		return f.Logs
	}
	return filepath.Join(state, "logs-"+at.UTC().Format("20060102T150405Z"))
}
