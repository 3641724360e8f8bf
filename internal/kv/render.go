package kv

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/xferbench/xferbench/internal/report/table"
	"github.com/xferbench/xferbench/internal/units"
)

// Formats returns the names that [Study.Write] knows.
func Formats() []string { return []string{"text", "markdown", "csv", "json"} }

// Write writes the study to w: "text" in at most 80 columns for the sizes of
// real caches, "markdown", "csv" (one line a size and shape) or "json"; in the
// last two all numbers are integers with their unit in the key.
func (s *Study) Write(w io.Writer, format string) error {
	var buf bytes.Buffer
	var err error
	switch format {
	case "text":
		s.text(&buf)
	case "markdown":
		s.markdown(&buf)
	case "csv":
		err = s.csv(&buf)
	case "json":
		err = s.json(&buf)
	default:
		err = fmt.Errorf("unknown format %q; use %s", format, strings.Join(Formats(), ", "))
	}
	if err != nil {
		return err
	}
	_, err = w.Write(buf.Bytes())
	return err
}

// linksPerTable keeps a table of ideal times inside 80 columns.
const linksPerTable = 7

// facts are the lines above the tables.
func (s *Study) facts() []string {
	r := s.Rank
	out := r.facts()
	if r.TensorParallel > 1 {
		line := fmt.Sprintf("tensor parallel %d: %s per token and rank", r.TensorParallel, units.FormatExact(r.BytesPerToken()))
		if r.Replicas > 1 {
			line += fmt.Sprintf("; %d ranks hold the same", r.Replicas)
		}
		out = append(out, line, "all figures below are one rank's")
	}
	regions := fmt.Sprintf("%s: %d regions, blocks of %d tokens", s.Layout, s.Regions, s.BlockTokens)
	if s.BlockBytes > 0 {
		regions += fmt.Sprintf(", %s per block and region", units.FormatExact(s.BlockBytes))
	}
	out = append(out, regions)
	if s.Layout == Split && !slices.ContainsFunc(r.Groups, func(g Group) bool { return g.ValueDim > 0 }) {
		out = append(out, "a latent cache has no K and V to split: split is the same as packed")
	}
	out = append(out, "whole blocks are transferred: sizes are rounded up; contiguous is exact")
	if slices.ContainsFunc(r.Groups, Group.windowed) {
		out = append(out, table.Wrap("Of a window, the blocks that hold its tokens are transferred, as vLLM with its hybrid KV cache manager does; "+
			"without that manager all blocks are.", "", "", 76)...)
	}
	return out
}

// facts are the sizes of the model's layers and tokens.
func (m Model) facts() []string {
	if len(m.Groups) == 1 && m.Groups[0].DType == "" && m.Groups[0].SlotBytes == 0 && m.DType.Bytes() > 0 {
		switch g := m.Groups[0]; {
		case g.Kind == Latent:
			return []string{fmt.Sprintf("%s: %d layers, one latent vector of %d values per token, %s", m.Name, g.Layers, g.KeyDim, m.DType),
				fmt.Sprintf("%d × %d × %d B = %s per token", g.Layers, g.KeyDim, m.DType.Bytes(), units.FormatExact(m.BytesPerToken()))}
		case g.Kind == Full && g.KeyDim == g.ValueDim:
			return []string{fmt.Sprintf("%s: %d layers, %d KV heads of %d values, %s", m.Name, g.Layers, g.KVHeads, g.KeyDim, m.DType),
				fmt.Sprintf("2 (K and V) × %d × %d × %d × %d B = %s per token", g.Layers, g.KVHeads, g.KeyDim, m.DType.Bytes(),
					units.FormatExact(m.BytesPerToken()))}
		}
	}
	out := []string{fmt.Sprintf("%s: %s in %d groups, %s", m.Name, count(m.Layers(), "layer"), len(m.Groups), m.DType)}
	if len(m.Groups) == 1 {
		out[0] = fmt.Sprintf("%s: %s, %s", m.Name, count(m.Layers(), "layer"), m.DType)
	}
	for _, g := range m.Groups {
		out = append(out, "  "+g.fact(m.DType))
	}
	if n := m.BytesPerToken(); n > 0 {
		out = append(out, units.FormatExact(n)+" per token"+map[bool]string{true: " inside all windows"}[slices.ContainsFunc(m.Groups, Group.windowed)])
	}
	if n := m.StateBytes(); n > 0 {
		out = append(out, units.FormatExact(n)+" of states per request")
	}
	return out
}

// fact is what one group's layers keep, in a cache of type d.
func (g Group) fact(d DType) string {
	what := fmt.Sprintf("%s, %s", count(g.Layers, "layer"), g.Kind)
	switch g.Kind {
	case Sliding, Chunked:
		what += fmt.Sprintf(" (%s tokens)", units.FormatCount(int64(g.Window)))
	case Cross:
		what += fmt.Sprintf(" (%s encoder tokens)", units.FormatCount(int64(g.Window)))
	case State:
		return fmt.Sprintf("%s: %s B per request", what, units.FormatCount(g.state(1)))
	}
	switch {
	case g.SlotBytes > 0, g.KVHeads == 0:
	case g.KeyDim == g.ValueDim:
		what += fmt.Sprintf(", %d × %d values", g.KVHeads, g.KeyDim)
	default:
		what += fmt.Sprintf(", %d × (%d + %d) values", g.KVHeads, g.KeyDim, g.ValueDim)
	}
	per := "per token"
	if g.every() > 1 {
		per = fmt.Sprintf("per %d tokens", g.every())
	}
	return fmt.Sprintf("%s: %s B %s", what, units.FormatCount(g.slot(d, 1)), per)
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// rounded explains each size in bytes that was rounded up.
func (s *Study) rounded() []string {
	var out []string
	for _, row := range s.Rows {
		r, changed := row.Merged.Rounding()
		if !changed || r.AskedBytes == 0 {
			continue
		}
		out = append(out,
			fmt.Sprintf("%s = %s = %s tokens, rounded up to", row.Asked, units.FormatExact(r.AskedBytes), tokensExact(row.Contiguous)),
			fmt.Sprintf("  %s tokens, %s blocks of %d, %s", units.FormatCount(r.Tokens),
				units.FormatCount(int64(r.Blocks)), r.BlockTokens, units.FormatExact(r.Bytes)))
	}
	return out
}

func tokensExact(t *Transfer) string {
	f := t.TokensExact()
	if f == float64(int64(f)) {
		return units.FormatCount(int64(f))
	}
	frac := strconv.FormatFloat(f-float64(int64(f)), 'f', 1, 64)
	if frac == "1.0" {
		return units.FormatCount(int64(f)+1) + ".0"
	}
	return units.FormatCount(int64(f)) + strings.TrimPrefix(frac, "0")
}

// caption stands above the table of sizes. Only the number of descriptors of
// the fragmented shape depends on the size.
func (s *Study) caption() string {
	return fmt.Sprintf("size and descriptors (merged: %d, contiguous: 1, fragmented: as listed)", s.Rows[0].Merged.Count())
}

// weights is the table of sizes and descriptors.
func (s *Study) weights() [][]string {
	out := [][]string{{"asked", "tokens", "blocks", "bytes", "MB", "MiB", "fragmented"}}
	for _, row := range s.Rows {
		t := row.Fragmented
		out = append(out, []string{
			row.Asked, units.FormatCount(t.Tokens), units.FormatCount(int64(t.Blocks)), units.FormatCount(t.Bytes),
			strings.TrimSuffix(units.FormatMB(t.Bytes), " MB"), strings.TrimSuffix(units.FormatMiB(t.Bytes), " MiB"),
			units.FormatCount(int64(t.Count())),
		})
	}
	return out
}

// times is the table of ideal times on links.
func (s *Study) times(links []int64) [][]string {
	head := []string{"tokens"}
	for _, l := range links {
		head = append(head, strings.TrimSuffix(units.CompactRate(l), "bit/s"))
	}
	out := [][]string{head}
	for _, row := range s.Rows {
		cells := []string{units.FormatCount(row.Merged.Tokens)}
		for _, l := range links {
			cells = append(cells, units.FormatDuration(IdealTime(row.Merged.Bytes, l)))
		}
		out = append(out, cells)
	}
	return out
}

func (s *Study) text(b *bytes.Buffer) {
	for _, l := range s.facts() {
		fmt.Fprintf(b, "# %s\n", l)
	}
	fmt.Fprintf(b, "\n%s\n", s.caption())
	align(b, s.weights())
	for _, l := range s.rounded() {
		fmt.Fprintf(b, "# %s\n", l)
	}
	for links := range slices.Chunk(s.Links, linksPerTable) {
		b.WriteString("\nideal time at line rate, by link in bit/s\n")
		align(b, s.times(links))
	}
}

// align writes right-aligned columns with two spaces between them.
func align(b *bytes.Buffer, rows [][]string) {
	for _, l := range table.Layout(table.Of(rows, 2), len(rows)-1, 0) {
		b.WriteString(l + "\n")
	}
}

func (s *Study) markdown(b *bytes.Buffer) {
	for _, l := range append(s.facts(), s.rounded()...) {
		fmt.Fprintf(b, "- %s\n", strings.TrimSpace(l))
	}
	tabulate := func(rows [][]string) {
		fmt.Fprintf(b, "\n| %s |\n|%s\n", strings.Join(rows[0], " | "), strings.Repeat("---:|", len(rows[0])))
		for _, r := range rows[1:] {
			fmt.Fprintf(b, "| %s |\n", strings.Join(r, " | "))
		}
	}
	fmt.Fprintf(b, "\n%s:\n", s.caption())
	tabulate(s.weights())
	for links := range slices.Chunk(s.Links, linksPerTable) {
		b.WriteString("\nIdeal time at line rate, by link in bit/s:\n")
		tabulate(s.times(links))
	}
}

func (s *Study) csv(b *bytes.Buffer) error {
	w := csv.NewWriter(b)
	head := []string{"model", "dtype", "tensor_parallel", "kv_layout", "block_tokens", "bytes_per_token", "asked_tokens", "asked_bytes",
		"shape", "tokens", "blocks", "bytes", "descriptors", "descriptor_bytes"}
	for _, l := range s.Links {
		head = append(head, fmt.Sprintf("ideal_ns_at_%d_bit_per_s", l))
	}
	if err := w.Write(head); err != nil {
		return err
	}
	i := func(n int64) string { return strconv.FormatInt(n, 10) }
	for _, row := range s.Rows {
		for _, t := range row.Transfers() {
			rec := []string{s.Rank.Name, string(s.Rank.DType), i(int64(s.Rank.TensorParallel)), string(s.Layout), i(int64(s.BlockTokens)),
				i(s.Rank.BytesPerToken()), i(t.Request.Tokens), i(t.Request.Bytes), string(t.Shape), i(t.Tokens), i(int64(t.Blocks)),
				i(t.Bytes), i(int64(t.Count())), i(t.Bytes / int64(t.Count()))}
			for _, l := range s.Links {
				rec = append(rec, i(int64(IdealTime(t.Bytes, l))))
			}
			if err := w.Write(rec); err != nil {
				return err
			}
		}
	}
	w.Flush()
	return w.Error()
}

type jsonStudy struct {
	Model          string      `json:"model"`
	DType          string      `json:"dtype"`
	Layers         int         `json:"layers"`
	KVHeads        int         `json:"kv_heads,omitempty"`
	HeadDim        int         `json:"head_dim,omitempty"`
	LatentDim      int         `json:"latent_dim,omitempty"`
	Groups         []jsonGroup `json:"groups"`
	BytesPerToken  int64       `json:"bytes_per_token"`
	StateBytes     int64       `json:"state_bytes,omitempty"`
	TensorParallel int         `json:"tensor_parallel"`
	RankKVHeads    int         `json:"rank_kv_heads,omitempty"`
	Replicas       int         `json:"replicas"`
	RankPerToken   int64       `json:"rank_bytes_per_token"`
	RankState      int64       `json:"rank_state_bytes,omitempty"`
	Layout         string      `json:"kv_layout"`
	Regions        int         `json:"regions"`
	BlockTokens    int         `json:"block_tokens"`
	BlockBytes     int64       `json:"block_bytes"`
	Rows           []jsonRow   `json:"rows"`
}

// jsonGroup is a group of layers; its bytes are one rank's, per layer.
type jsonGroup struct {
	Kind       Kind  `json:"kind"`
	Layers     int   `json:"layers"`
	KVHeads    int   `json:"kv_heads,omitempty"`
	KeyDim     int   `json:"key_dim,omitempty"`
	ValueDim   int   `json:"value_dim,omitempty"`
	Window     int   `json:"window_tokens,omitempty"`
	SlotTokens int64 `json:"slot_tokens,omitempty"`
	SlotBytes  int64 `json:"slot_bytes,omitempty"`
	StateBytes int64 `json:"state_bytes,omitempty"`
}

type jsonRow struct {
	AskedTokens int64      `json:"asked_tokens,omitempty"`
	AskedBytes  int64      `json:"asked_bytes,omitempty"`
	Shape       Shape      `json:"shape"`
	Tokens      int64      `json:"tokens"`
	Blocks      int        `json:"blocks"`
	Bytes       int64      `json:"bytes"`
	Descriptors int        `json:"descriptors"`
	DescBytes   int64      `json:"descriptor_bytes"`
	Ideal       []jsonTime `json:"ideal"`
}

type jsonTime struct {
	Link int64 `json:"link_bit_per_s"`
	Time int64 `json:"time_ns"`
}

func (s *Study) json(b *bytes.Buffer) error {
	r := s.Rank
	out := jsonStudy{
		Model: r.Name, DType: string(r.DType), Layers: r.Layers(), BytesPerToken: r.Model.BytesPerToken(), StateBytes: r.Model.StateBytes(),
		TensorParallel: r.TensorParallel, Replicas: r.Replicas, RankPerToken: r.BytesPerToken(), RankState: r.StateBytes(), Layout: string(s.Layout),
		Regions: s.Regions, BlockTokens: s.BlockTokens, BlockBytes: s.BlockBytes,
	}
	for _, g := range r.Groups {
		j := jsonGroup{Kind: g.Kind, Layers: g.Layers, KVHeads: g.KVHeads, KeyDim: g.KeyDim, ValueDim: g.ValueDim, Window: g.Window,
			SlotBytes: g.slot(r.DType, r.TensorParallel), StateBytes: g.state(r.TensorParallel)}
		if j.SlotBytes > 0 {
			j.SlotTokens = g.every()
		}
		out.Groups = append(out.Groups, j)
	}
	// A model of one kind of layers has them without looking into the groups.
	switch g := r.Groups[0]; {
	case len(r.Groups) > 1:
	case g.Kind == Latent:
		out.LatentDim = g.KeyDim
	case g.Kind == Full && g.KeyDim == g.ValueDim:
		out.KVHeads, out.HeadDim, out.RankKVHeads = g.KVHeads, g.KeyDim, share(g.KVHeads, r.TensorParallel)
	}
	for _, row := range s.Rows {
		for _, t := range row.Transfers() {
			j := jsonRow{
				AskedTokens: t.Request.Tokens, AskedBytes: t.Request.Bytes, Shape: t.Shape, Tokens: t.Tokens, Blocks: t.Blocks,
				Bytes: t.Bytes, Descriptors: t.Count(), DescBytes: t.Bytes / int64(t.Count()), Ideal: []jsonTime{},
			}
			for _, l := range s.Links {
				j.Ideal = append(j.Ideal, jsonTime{l, int64(IdealTime(t.Bytes, l))})
			}
			out.Rows = append(out.Rows, j)
		}
	}
	e := json.NewEncoder(b)
	e.SetIndent("", "  ")
	return e.Encode(out)
}
