// Package conformance holds every provider to the same contract, through the
// built xferbench: each operation and shape, over one rail and two, with the
// host's libraries and Debian 13's, on emulated EFA devices of each generation.
// Its tests print the matrix of what was run; a cell that the platform cannot
// fill is a declared skip with its reason.
package conformance
