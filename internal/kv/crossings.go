package kv

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/xferbench/xferbench/internal/report/table"
	"github.com/xferbench/xferbench/internal/units"
)

// Crossings is what prompts of a model move in one deployment.
type Crossings struct {
	Model      Model
	Deployment Deployment
	Tokens     []int64
	Rows       []Crossing
}

// NewCrossings works out what prompts of tokens move.
func NewCrossings(m Model, d Deployment, tokens []int64) (*Crossings, error) {
	if len(tokens) == 0 {
		return nil, fmt.Errorf("what crosses is of prompts: give --tokens")
	}
	if err := d.fill(); err != nil {
		return nil, err
	}
	c := &Crossings{Model: m, Deployment: d, Tokens: tokens}
	for _, n := range tokens {
		row, err := m.Crossing(int(n), d)
		if err != nil {
			return nil, err
		}
		c.Rows = append(c.Rows, row)
	}
	return c, nil
}

// CrossingFormats returns the names that [Crossings.Write] knows.
func CrossingFormats() []string { return []string{"text", "json"} }

// Write writes what crosses to w as "text" or "json"; in JSON all numbers are integers
// with their unit in the key.
func (c *Crossings) Write(w io.Writer, format string) error {
	var buf bytes.Buffer
	var err error
	switch format {
	case "text":
		c.text(&buf)
	case "json":
		err = c.json(&buf)
	default:
		err = fmt.Errorf("unknown format %q; use %s", format, strings.Join(CrossingFormats(), " or "))
	}
	if err != nil {
		return err
	}
	_, err = w.Write(buf.Bytes())
	return err
}

// spanOf writes a range, or one number where both ends are the same.
func spanOf(lo, hi int64) string {
	if lo == hi {
		return units.FormatCount(lo)
	}
	return units.FormatCount(lo) + " to " + units.FormatCount(hi)
}

func (c *Crossings) text(b *bytes.Buffer) {
	d := c.Deployment
	for _, l := range c.Model.facts() {
		fmt.Fprintf(b, "# %s\n", l)
	}
	manager := map[bool]string{true: "with", false: "without"}[d.Hybrid]
	fmt.Fprintf(b, "# %s, prefill on %s, decode on %s, %s the hybrid KV cache manager\n", d.Connector, count(d.PrefillTP, "rank"), count(d.DecodeTP, "rank"), manager)
	for i, r := range c.Rows {
		fmt.Fprintf(b, "\n%s tokens: %s B (%s), all ranks together\n", units.FormatCount(c.Tokens[i]), spanOf(r.BytesLo, r.BytesHi), units.FormatMB(r.BytesHi))
		fmt.Fprintf(b, "%s descriptors in %s\n", spanOf(r.DescriptorsLo, r.DescriptorsHi), count(r.Transfers, "transfer"))
		rows := [][]string{{"list", "layers", "window", "block", "blocks", "B per block", "bytes"}}
		for _, g := range r.Groups {
			rows = append(rows, []string{string(g.Kind), units.FormatCount(int64(g.Layers)), orDash(g.Window), orDash(g.BlockTokens),
				spanOf(int64(g.BlocksLo), int64(g.BlocksHi)), units.FormatCount(g.BytesPerBlock), spanOf(g.BytesLo, g.BytesHi)})
		}
		for _, l := range table.Layout(table.Of(rows, 2), len(rows)-1, 0) {
			b.WriteString(l + "\n")
		}
	}
}

func orDash(n int) string {
	if n == 0 {
		return "-"
	}
	return units.FormatCount(int64(n))
}

type jsonCrossings struct {
	Model       string         `json:"model"`
	DType       string         `json:"dtype"`
	Connector   string         `json:"connector"`
	Hybrid      bool           `json:"hybrid"`
	PrefillTP   int            `json:"prefill_tensor_parallel"`
	DecodeTP    int            `json:"decode_tensor_parallel"`
	DraftLayers int            `json:"draft_layers"`
	Rows        []jsonCrossing `json:"rows"`
}

type jsonCrossing struct {
	Tokens        int64       `json:"tokens"`
	BytesLo       int64       `json:"bytes_lo"`
	BytesHi       int64       `json:"bytes_hi"`
	DescriptorsLo int64       `json:"descriptors_lo"`
	DescriptorsHi int64       `json:"descriptors_hi"`
	Transfers     int         `json:"transfers"`
	Lists         []jsonBlock `json:"lists"`
}

type jsonBlock struct {
	Kind        Kind  `json:"kind"`
	Layers      int   `json:"layers"`
	Window      int   `json:"window_tokens,omitempty"`
	BlockTokens int   `json:"block_tokens,omitempty"`
	BlocksLo    int   `json:"blocks_lo"`
	BlocksHi    int   `json:"blocks_hi"`
	BlockBytes  int64 `json:"block_bytes"`
	BytesLo     int64 `json:"bytes_lo"`
	BytesHi     int64 `json:"bytes_hi"`
}

func (c *Crossings) json(b *bytes.Buffer) error {
	d := c.Deployment
	dtype := c.Model.DType
	if d.CacheDType != "" {
		dtype = d.CacheDType
	}
	out := jsonCrossings{Model: c.Model.Name, DType: string(dtype), Connector: d.Connector, Hybrid: d.Hybrid, PrefillTP: d.PrefillTP,
		DecodeTP: d.DecodeTP, DraftLayers: d.DraftLayers}
	for i, r := range c.Rows {
		row := jsonCrossing{Tokens: c.Tokens[i], BytesLo: r.BytesLo, BytesHi: r.BytesHi, DescriptorsLo: r.DescriptorsLo, DescriptorsHi: r.DescriptorsHi,
			Transfers: r.Transfers}
		for _, g := range r.Groups {
			row.Lists = append(row.Lists, jsonBlock{g.Kind, g.Layers, g.Window, g.BlockTokens, g.BlocksLo, g.BlocksHi, g.BytesPerBlock, g.BytesLo, g.BytesHi})
		}
		out.Rows = append(out.Rows, row)
	}
	e := json.NewEncoder(b)
	e.SetIndent("", "  ")
	return e.Encode(out)
}
