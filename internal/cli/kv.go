package cli

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/xferbench/xferbench/internal/kv"
	"github.com/xferbench/xferbench/internal/units"
)

// newKVCommand returns "xferbench kv". It measures nothing and loads no library.
func newKVCommand() *cobra.Command {
	var (
		model       = kv.DefaultModel
		dtype       = "auto"
		layout      = string(kv.Packed)
		format      = "text"
		blockTokens = kv.DefaultBlockTokens
		tp          = 1
		sizes       = units.NewSizeList()
		tokens      = units.NewTokenList(1000, 2000, 4000, 8000, 16000, 32000, 64000, 128000)
		links       = units.NewRateList(10e9, 25e9, 40e9, 100e9, 200e9, 400e9, 3200e9)
		cross       = kv.Deployment{Hybrid: true}
	)
	cmd := &cobra.Command{
		Use:   "kv",
		Short: "Print a model's KV cache: bytes, descriptors, ideal times",
		Long: `Print what the KV cache of a model weighs: bytes per token, exact sizes of
prompts, the descriptors in which each shape crosses the network, and the time
that each size takes at line rate. Nothing is measured.

--connector prints what of a prompt an engine's connector moves instead: the KV
blocks of each of its lists, as a range from the smallest to the largest valid
transfer, over all ranks.

Lists are separated by commas. A:B counts up in powers of two from A to B, A:B:xF
by the factor F, and A:B:N gives N values on a log scale. MB is 10^6 bytes, MiB
2^20; a bare number is bytes.`,
		Example: `  xferbench kv
  xferbench kv --size 438MB
  xferbench kv --model DeepSeek-R1 --tokens 1000:128000 --tensor-parallel 8
  xferbench kv --model ./config.json --dtype fp8 --format csv
  xferbench kv --model gpt-oss-120b --connector nixl --tokens 8000`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usagef("kv takes no arguments, but got %q; sizes go after --size or --tokens", args[0])
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !slices.Contains(kv.Formats(), format) {
				return usagef("--format %q is not known; use %s", format, strings.Join(kv.Formats(), ", "))
			}
			if blockTokens < 1 || blockTokens > kv.MaxBlockTokens {
				return usagef("--block-tokens %d: want 1 to %d", blockTokens, kv.MaxBlockTokens)
			}
			if tp < 1 {
				return usagef("--tensor-parallel is %d; it must be at least 1", tp)
			}
			l, err := kv.ParseLayout(layout)
			if err != nil {
				return usagef("--kv-layout: %w", err)
			}
			m, err := kv.Resolve(model, dtype)
			if err != nil {
				return usagef("%w", err)
			}
			if _, preset := kv.Preset(model); preset && m.Name == filepath.Join(model, "config.json") {
				fmt.Fprintf(cmd.ErrOrStderr(), "note: the folder %s is read, not the built-in model of that name\n", model)
			}
			if cmd.Flags().Changed("connector") {
				cross.BlockTokens, cross.DecodeTP = blockTokens, tp
				if cross.PrefillTP == 0 {
					cross.PrefillTP = tp
				}
				return printCrossings(cmd, m, cross, tokens.Values(), format)
			}
			for _, name := range []string{"hybrid", "prefill-tensor-parallel", "draft-layers", "engine-version"} {
				if cmd.Flags().Changed(name) {
					return usagef("--%s is about what crosses: give --connector too", name)
				}
			}
			req := kv.StudyRequest{
				Model: m, Tokens: tokens.Values(), Sizes: sizes.Values(), Links: links.Values(),
				BlockTokens: blockTokens, Layout: l, TensorParallel: tp,
			}
			// A size alone asks for that size, not for the default prompts too.
			if cmd.Flags().Changed("size") && !cmd.Flags().Changed("tokens") {
				req.Tokens = nil
			}
			study, err := kv.NewStudy(req)
			if err != nil {
				return usagef("%w", err)
			}
			if err := study.Write(cmd.OutOrStdout(), format); err != nil {
				return fmt.Errorf("writing the table: %w", err)
			}
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVar(&model, "model", model, "`model`: a built-in name (docs/kv.md lists them), or the path of a Hugging Face config.json or its folder")
	f.Var(sizes, "size", "sizes in bytes of one rank's cache, such as 438MB")
	f.Var(tokens, "tokens", "prompt lengths in tokens")
	f.IntVar(&blockTokens, "block-tokens", blockTokens, "tokens in a cache block")
	f.StringVar(&layout, "kv-layout", layout, "`layout` of K and V of a block: packed (one descriptor) or split (two)")
	f.IntVar(&tp, "tensor-parallel", tp, "tensor-parallel ranks; the figures are one rank's")
	f.StringVar(&dtype, "dtype", dtype, "`type` of cached values: auto (the model's), bf16, fp16, fp32, fp8, int8, or a name of vLLM's --kv-cache-dtype")
	f.Var(links, "link", "link rates for the ideal times")
	f.StringVar(&format, "format", format, "`format` of the output: "+strings.Join(kv.Formats(), ", "))
	f.StringVar(&cross.Connector, "connector", "", "print what crosses by this `connector`: "+strings.Join(kv.Connectors(), " or "))
	f.BoolVar(&cross.Hybrid, "hybrid", cross.Hybrid, "with --connector: the engines run the hybrid KV cache manager")
	f.IntVar(&cross.PrefillTP, "prefill-tensor-parallel", 0, "with --connector: ranks of the prefill engine (default: --tensor-parallel)")
	f.IntVar(&cross.DraftLayers, "draft-layers", 0, "with --connector: layers of a multi-token-prediction or EAGLE head")
	f.StringVar(&cross.Version, "engine-version", "", "with --connector: the engine's `release`, such as 0.32.0; it decides how K and V of a block lie")
	return cmd
}

// printCrossings prints what prompts of m move.
func printCrossings(cmd *cobra.Command, m kv.Model, d kv.Deployment, tokens []int64, format string) error {
	for _, name := range []string{"size", "link", "kv-layout"} {
		if cmd.Flags().Changed(name) {
			return usagef("--%s does not go with --connector, which is about prompts (--tokens)", name)
		}
	}
	if !slices.Contains(kv.CrossingFormats(), format) {
		return usagef("--format %q with --connector: use %s", format, strings.Join(kv.CrossingFormats(), " or "))
	}
	if d.PrefillTP < 1 {
		return usagef("--prefill-tensor-parallel is %d; it must be at least 1", d.PrefillTP)
	}
	c, err := kv.NewCrossings(m, d, tokens)
	if err != nil {
		return usagef("%w", err)
	}
	if err := c.Write(cmd.OutOrStdout(), format); err != nil {
		return fmt.Errorf("writing the table: %w", err)
	}
	return nil
}
