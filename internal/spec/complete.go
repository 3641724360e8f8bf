package spec

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	"github.com/xferbench/xferbench/internal/fault"
)

// Defaults of a design.
const (
	defaultBlocks    = 10
	defaultMinBlocks = 6
	// untilBlocks bounds a run that stops by the width of its intervals; its budget
	// usually comes first.
	untilBlocks = 1000
)

// Complete fills in what was left to the tool, so that the spec, run again, is
// the same experiment: the seed too. What does not fit together is an error of
// kind Usage.
func (s *Spec) Complete() error {
	if s.Seed == nil {
		var b [8]byte
		if _, err := rand.Read(b[:]); err != nil {
			return err
		}
		n := binary.LittleEndian.Uint64(b[:]) >> 32 // short enough to retype
		s.Seed = &n
	}
	if r := s.Raw; r != nil && len(r.Size) == 0 && len(r.Tokens) == 0 {
		r.Tokens = Tokens{8000}
	}
	if t := s.TTFT; t != nil {
		if err := t.load(); err != nil {
			return err
		}
	}
	s.Design.complete(s.TTFT != nil)
	return s.digest()
}

// load checks the kind of load, and fills in one request at a time.
func (t *TTFTWorkload) load() error {
	switch {
	case t.Measurement != "online" && t.Measurement != "offline":
		return fault.Usagef("--measurement %q: want online or offline", t.Measurement)
	case t.Measurement == "offline" && len(t.Rate)+len(t.Concurrency) > 0:
		return fault.Usagef("--measurement offline sends all requests at once; leave --rate and --concurrency out")
	case len(t.Rate) > 0 && len(t.Concurrency) > 0:
		return fault.Usagef("--rate and --concurrency exclude each other: a rate does not wait for answers")
	case t.Measurement == "online" && len(t.Rate) == 0 && len(t.Concurrency) == 0:
		t.Concurrency = List[int]{1}
	}
	return nil
}

func (d *Design) complete(ttft bool) {
	number := func(p **int, n int) {
		if *p == nil {
			*p = &n
		}
	}
	given := d.Blocks != nil
	switch {
	case ttft:
		// Each block has at least one request.
		number(&d.Blocks, max(1, min(defaultBlocks, d.Iterations)))
	case d.UntilCI > 0:
		number(&d.Blocks, untilBlocks)
	default:
		number(&d.Blocks, defaultBlocks)
	}
	least := defaultMinBlocks
	if given || ttft {
		least = max(1, min(least, *d.Blocks))
	}
	number(&d.MinBlocks, least)
}

// digest takes the sums of the files that are named.
func (s *Spec) digest() error {
	var names []string
	if s.Raw != nil {
		names = append(names, s.Raw.Model)
	}
	if s.TTFT != nil {
		names = append(names, s.TTFT.KVModel, s.TTFT.Launch)
		if s.TTFT.Sim {
			names = append(names, s.TTFT.Engine.Model)
		}
	}
	s.Files = nil
	for _, n := range names {
		if n == "" {
			continue
		}
		if i, err := os.Stat(n); err == nil && i.IsDir() {
			n = filepath.Join(n, "config.json")
		}
		data, err := os.ReadFile(n)
		if errors.Is(err, os.ErrNotExist) {
			continue // a preset's name, or refused by whoever reads it
		}
		if err != nil {
			return fault.Usagef("%w", err)
		}
		if s.Files == nil {
			s.Files = map[string]string{}
		}
		sum := sha256.Sum256(data)
		s.Files[n] = hex.EncodeToString(sum[:])
	}
	return nil
}

// Redacted is a copy without what gives access: the token of a peer.
func (s *Spec) Redacted() *Spec {
	out := *s
	if address, _, ok := strings.Cut(s.Hosts.Peer, "#"); ok {
		out.Hosts.Peer = address + "#…"
	}
	return &out
}

// Difference names the first key in which two completed specs are different
// experiments, with both values; "" for none. How long to measure, how long to
// wait and how the peer is reached may change from one start to the next.
func Difference(there, here *Spec) (string, error) {
	a, err := there.comparable()
	if err != nil {
		return "", err
	}
	b, err := here.comparable()
	if err != nil {
		return "", err
	}
	return FirstDifference("", a, b), nil
}

// comparable is what tells one experiment from another.
func (s *Spec) comparable() (map[string]any, error) {
	c := *s
	c.Design.Blocks, c.Design.MinBlocks, c.Design.Budget, c.Design.UntilCI = nil, nil, 0, 0
	c.Hosts = Hosts{Bind: c.Hosts.Bind, NoNamespace: c.Hosts.NoNamespace}
	if c.Raw != nil {
		r := *c.Raw
		r.Timeout = 0
		c.Raw = &r
	}
	b, err := c.JSON()
	if err != nil {
		return nil, err
	}
	var out map[string]any
	return out, json.Unmarshal(b, &out)
}

// FirstDifference names the first value below path in which two trees of JSON
// (map[string]any and its values) differ, with both; "" for none.
func FirstDifference(path string, there, here any) string {
	a, isA := there.(map[string]any)
	b, isB := here.(map[string]any)
	if (isA || there == nil) && (isB || here == nil) { // an empty section is left out
		keys := slices.Sorted(maps.Keys(a))
		for k := range b {
			if _, both := a[k]; !both {
				keys = append(keys, k)
			}
		}
		slices.Sort(keys)
		for _, k := range keys {
			if d := FirstDifference(strings.TrimPrefix(path+"."+k, "."), a[k], b[k]); d != "" {
				return d
			}
		}
		return ""
	}
	if reflect.DeepEqual(there, here) {
		return ""
	}
	return fmt.Sprintf("%s is %s there and %s here", path, word(there), word(here))
}

func word(v any) string {
	if v == nil {
		return "not set"
	}
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Sprint(v)
	}
	return string(b)
}
