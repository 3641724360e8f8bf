package analysis

import "github.com/xferbench/xferbench/internal/stats"

// launches tells whether units are medians of launches, not of blocks of one launch.
func launches(units []stats.Unit) bool { return len(units) > 0 && units[0].Key.Block < 0 }

// UnlikeUnits says why the units of two sides may not be held against each other, ""
// where they may. Blocks share the processes and connections of their launch, so
// their spread lacks what differs from launch to launch; launches have it.
func UnlikeUnits(a, b []stats.Unit) string {
	if len(a) == 0 || len(b) == 0 || launches(a) == launches(b) {
		return ""
	}
	return "the units are launches on one side and blocks of one launch on the other: measure both with the same --launches"
}

// OneLaunch warns of a comparison between runs of one launch each, and returns nil of
// others. What two launches differ by looks the same as a difference between the
// runs, and no test of blocks knows of it: of equal transports whose blocks and
// launches both vary by 10 %, half come out different (docs/methodology.md).
func OneLaunch(a, b []stats.Unit) *Warning {
	if len(a) == 0 || len(b) == 0 || launches(a) || launches(b) {
		return nil
	}
	return &Warning{"one-launch", "each side is one launch, and two launches of the same differ too, which p does not know: for a gate, measure both with --launches 6 or more"}
}
