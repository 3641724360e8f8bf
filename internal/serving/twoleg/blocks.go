package twoleg

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// BlocksHeader is the header of an answer in which `xferbench proxy` says what the
// prefill engine handed over, as [Handed.String] writes it.
const BlocksHeader = "X-Xferbench-Kv-Blocks"

// Handed is what a prefill engine's parameters say of the KV cache that they hand
// over. Nothing in it is proven; it says what a transfer has to move.
type Handed struct {
	// Groups is how many KV blocks there are of each layer group, in the engine's
	// order: with sliding windows, vLLM hands over the last blocks alone.
	Groups []int
	// Tokens is how many prompt tokens the blocks hold, 0 if not said (before 0.20).
	Tokens int
	// TP is the prefill engine's tensor-parallel size, 0 if not said.
	TP int
	// Push: the prefill engine writes the blocks, and counts what it wrote
	// (NixlPushConnector); otherwise the decode engine reads them.
	Push bool
}

// Limits of what is handed over.
const (
	maxGroups = 1 << 10
	maxBlocks = 1 << 26 // of a group
	maxTP     = 1 << 12
)

// HandedBy reads what parameters hand over. Releases without layer groups list the
// ids of the blocks alone, which is one group.
func HandedBy(params json.RawMessage) (h Handed, err error) {
	var p struct {
		IDs    json.RawMessage `json:"remote_block_ids"`
		Tokens int             `json:"remote_num_tokens"`
		TP     int             `json:"tp_size"`
		Mode   string          `json:"transfer_mode"`
	}
	if err := json.Unmarshal(params, &p); err != nil {
		return h, fmt.Errorf("%s: %w", ParamsKey, err)
	}
	h = Handed{Tokens: p.Tokens, TP: p.TP, Push: p.Mode == "push"}
	var lists [][]json.Number
	if json.Unmarshal(p.IDs, &lists) != nil {
		lists = make([][]json.Number, 1)
		if err := json.Unmarshal(p.IDs, &lists[0]); err != nil {
			return Handed{}, fmt.Errorf("remote_block_ids: %w", err)
		}
	}
	for _, ids := range lists {
		n := 0
		for _, id := range ids {
			if id != "0" { // the null block: what a window has given up
				n++
			}
		}
		h.Groups = append(h.Groups, n)
	}
	return h, h.check()
}

func (h Handed) check() error {
	if len(h.Groups) == 0 || len(h.Groups) > maxGroups {
		return fmt.Errorf("%d lists of blocks: want 1 to %d", len(h.Groups), maxGroups)
	}
	for _, n := range h.Groups {
		if n < 0 || n > maxBlocks {
			return fmt.Errorf("%d blocks of a layer group: want 0 to %d", n, maxBlocks)
		}
	}
	if h.Tokens < 0 || h.TP < 0 || h.TP > maxTP {
		return fmt.Errorf("%d tokens, tensor-parallel size %d: want 0 or more, and at most %d ranks", h.Tokens, h.TP, maxTP)
	}
	return nil
}

// Blocks is how many blocks there are in all groups together.
func (h Handed) Blocks() (n int64) {
	for _, k := range h.Groups {
		n += int64(k)
	}
	return n
}

// String is the value of [BlocksHeader]: "5,32; tokens=1000; tp=2; push".
func (h Handed) String() string {
	var b strings.Builder
	for i, n := range h.Groups {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(strconv.Itoa(n))
	}
	if h.Tokens > 0 {
		fmt.Fprintf(&b, "; tokens=%d", h.Tokens)
	}
	if h.TP > 0 {
		fmt.Fprintf(&b, "; tp=%d", h.TP)
	}
	if h.Push {
		b.WriteString("; push")
	}
	return b.String()
}

// ParseHanded reads the value of [BlocksHeader]. What a newer proxy may add is
// skipped.
func ParseHanded(s string) (h Handed, err error) {
	parts := strings.Split(s, ";")
	for _, n := range strings.Split(parts[0], ",") {
		k, err := strconv.Atoi(strings.TrimSpace(n))
		if err != nil {
			return Handed{}, errors.New(BlocksHeader + ": " + strconv.Quote(n) + " is no number of blocks")
		}
		h.Groups = append(h.Groups, k)
	}
	for _, part := range parts[1:] {
		key, value, _ := strings.Cut(strings.TrimSpace(part), "=")
		switch key {
		case "tokens":
			h.Tokens, err = strconv.Atoi(value)
		case "tp":
			h.TP, err = strconv.Atoi(value)
		case "push":
			h.Push = true
		}
		if err != nil {
			return Handed{}, fmt.Errorf("%s: %s: %w", BlocksHeader, key, err)
		}
	}
	if err := h.check(); err != nil {
		return Handed{}, fmt.Errorf("%s: %w", BlocksHeader, err)
	}
	return h, nil
}
