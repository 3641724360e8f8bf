package cli

import (
	"fmt"
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
	)
	cmd := &cobra.Command{
		Use:   "kv",
		Short: "Print a model's KV cache: bytes, descriptors, ideal times",
		Long: `Print what the KV cache of a model weighs: bytes per token, exact sizes of
prompts, the descriptors in which each shape crosses the network, and the time
that each size takes at line rate. Nothing is measured.

Lists are separated by commas. A:B counts up in powers of two from A to B, A:B:xF
by the factor F, and A:B:N gives N values on a log scale. MB is 10^6 bytes, MiB
2^20; a bare number is bytes.`,
		Example: `  xferbench kv
  xferbench kv --size 438MB
  xferbench kv --model DeepSeek-R1 --tokens 1000:128000 --tensor-parallel 8
  xferbench kv --model ./config.json --dtype fp8 --format csv`,
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
	f.StringVar(&model, "model", model, "`model`: a built-in name ("+strings.Join(kv.Presets(), ", ")+"), or the path of a Hugging Face config.json")
	f.Var(sizes, "size", "sizes in bytes of one rank's cache, such as 438MB")
	f.Var(tokens, "tokens", "prompt lengths in tokens")
	f.IntVar(&blockTokens, "block-tokens", blockTokens, "tokens in a cache block")
	f.StringVar(&layout, "kv-layout", layout, "`layout` of K and V of a block: packed (one descriptor) or split (two)")
	f.IntVar(&tp, "tensor-parallel", tp, "tensor-parallel ranks; the figures are one rank's")
	f.StringVar(&dtype, "dtype", dtype, "`type` of cached values: auto (the model's), bf16, fp16, fp32, fp8, int8")
	f.Var(links, "link", "link rates for the ideal times")
	f.StringVar(&format, "format", format, "`format` of the output: "+strings.Join(kv.Formats(), ", "))
	return cmd
}
