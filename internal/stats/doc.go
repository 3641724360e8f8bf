// Package stats holds the estimators and tests behind every number that the
// tool prints: robust summaries, comparisons in randomised blocks, change
// points, the latency–bandwidth cost model and its crossover, and shares.
//
// Conventions:
//
//   - Values are in base units (nanoseconds, bytes) or pure ratios. Nothing
//     here rounds, scales or formats, except the one-line String methods.
//   - The unit of an analysis is what was repeated independently: the median of
//     a block, or of a launch; never the single iteration, since iterations
//     of one block are correlated. [BlockMedians], [LaunchMedians] and
//     [PairUnits] make units from samples.
//   - A result carries its own [Warning]s, so that a number cannot be printed
//     without what limits it.
//   - Bad input (empty, NaN, infinite, or not positive where a logarithm is
//     taken) is an error, never a panic and never a silent drop.
//   - Slices passed in are neither changed nor kept. Every function may be
//     called from several goroutines at once.
//   - What is random takes a seed and is reproducible bit for bit.
//
// How each estimator was checked stands in testdata/README.md; what the words
// mean to a reader of reports stands in docs/methodology.md.
package stats
