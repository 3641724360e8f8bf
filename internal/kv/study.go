package kv

import (
	"fmt"
	"math"
	"slices"

	"github.com/xferbench/xferbench/internal/units"
)

// StudyRequest asks for a [Study].
type StudyRequest struct {
	Model          Model
	Tokens         []int64 // prompt lengths
	Sizes          []int64 // bytes of one rank's cache
	Links          []int64 // bit/s
	BlockTokens    int
	Layout         Layout
	TensorParallel int
}

// Study tells, for a model, what a KV cache of each size weighs, in how many
// descriptors it crosses, and how long it takes at line rate.
type Study struct {
	Rank        Rank
	Layout      Layout
	BlockTokens int
	Regions     int
	BlockBytes  int64 // of one block in one region
	Links       []int64
	Rows        []StudyRow
}

// StudyRow is one size of a [Study].
type StudyRow struct {
	Asked      string // as on the command line
	Merged     *Transfer
	Fragmented *Transfer
	Contiguous *Transfer
}

// Transfers returns the row's transfers in the order of [Shapes].
func (r StudyRow) Transfers() []*Transfer {
	return []*Transfer{r.Merged, r.Fragmented, r.Contiguous}
}

// NewStudy works out all rows: tokens first, then sizes. Nothing is allocated
// for the caches, so only the limits of the arithmetic apply.
func NewStudy(req StudyRequest) (*Study, error) {
	if len(req.Tokens)+len(req.Sizes) == 0 {
		return nil, fmt.Errorf("a study needs at least one token count or size")
	}
	s := &Study{Links: slices.Clone(req.Links)}
	add := func(asked string, tokens, bytes int64) error {
		row := StudyRow{Asked: asked}
		for shape, dst := range map[Shape]**Transfer{
			Merged: &row.Merged, Fragmented: &row.Fragmented, Contiguous: &row.Contiguous,
		} {
			t, err := New(Request{
				Model: req.Model, Tokens: tokens, Bytes: bytes, BlockTokens: req.BlockTokens, Layout: req.Layout,
				Shape: shape, TensorParallel: req.TensorParallel, MaxBytes: math.MaxInt64, MaxDescs: math.MaxInt,
			})
			if err != nil {
				return err
			}
			*dst = t
		}
		s.Rows = append(s.Rows, row)
		return nil
	}
	for _, n := range req.Tokens {
		if err := add(units.FormatCount(n), n, 0); err != nil {
			return nil, err
		}
	}
	for _, n := range req.Sizes {
		if err := add(units.CompactBytes(n), 0, n); err != nil {
			return nil, err
		}
	}
	t := s.Rows[0].Merged
	s.Rank, s.Layout, s.BlockTokens, s.Regions, s.BlockBytes = t.Rank, t.Layout, t.BlockTokens, t.Regions, t.BlockBytes
	return s, nil
}
