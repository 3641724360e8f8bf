//go:build verifystats

package analysis_test

import "testing"

// Run with: go test -tags verifystats -run TestSim -v ./internal/analysis/
// Tables in docs/methodology.md are its output.

func TestSimGuide(t *testing.T) {
	by2 := []int64{4 << 10, 8 << 10, 16 << 10, 32 << 10, 64 << 10, 128 << 10, 256 << 10, 512 << 10, 1 << 20}
	for _, c := range []struct {
		name   string
		sizes  []int64
		blocks int
	}{{"×4, 10 blocks", sizesBy4[1:6], 10}, {"×4, 20 blocks", sizesBy4[1:6], 20}, {"×2, 10 blocks", by2, 10}, {"×2, 20 blocks", by2, 20}} {
		found, placed, covered := smooth(t, 500, c.blocks, c.sizes)
		t.Logf("%s: found between the right sizes %.1f %%, placed by lines %.1f %%, interval holds the truth %.1f %%", c.name, found*100, placed*100, covered*100)
		if found < 0.97 || covered < 0.93 {
			t.Error("outside of what docs/methodology.md says")
		}
	}
}

func TestSimChance(t *testing.T) {
	c, mean, some, over, ttft := falseDifferences(t, 2000)
	t.Logf("%d verdicts on equal transports: %.2f false (up to %.2f said), one or more in %.1f %% of runs (up to %.1f %%), with Holm over the run %.1f %%; 16 verdicts on equal arms: %.1f %%",
		c.Questions, mean, c.Expected(), some*100, c.Any()*100, over*100, ttft*100)
	if mean > c.Expected()*1.1 || some > c.Any() || over > 0.06 || ttft > 0.06 {
		t.Error("outside of what docs/methodology.md says")
	}
}
