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
