//go:build pictures

package report

import (
	"bytes"
	"cmp"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/xferbench/xferbench/internal/testenv/browser"
)

// TestPictures takes the pictures of docs/pictures.md, of the synthetic records;
// `make pictures` asks for it.
func TestPictures(t *testing.T) {
	const folder = "../../docs/pictures"
	if err := os.MkdirAll(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	tab := browser.Open(t)
	for name, page := range map[string]string{
		"sweep": savePage(t, "sweep.jsonl"), "ttft": savePage(t, "ttft.jsonl"),
		"compare": saveComparison(t, 0.05, "two-providers", "another-day"),
	} {
		for _, v := range []struct {
			width, height int
			look          string
		}{{390, 1050, browser.Light}, {800, 950, browser.Light}, {1400, 900, browser.Light}, {1400, 900, browser.Dark}, {1032, 710, browser.Print}} {
			tab.View(v.width, v.height, v.look)
			tab.Load(page)
			file := filepath.Join(folder, fmt.Sprintf("%s-%d-%s.png", name, v.width, v.look))
			if err := os.WriteFile(file, reduced(t, tab.Picture()), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// reduced is a picture in 48 of its colours: frequent ones that differ, and vivid
// ones before grey.
func reduced(t *testing.T, b []byte) []byte {
	t.Helper()
	from, err := png.Decode(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	size := from.Bounds()
	count := map[color.RGBA]int{}
	for y := range size.Dy() {
		for x := range size.Dx() {
			count[color.RGBAModel.Convert(from.At(x, y)).(color.RGBA)]++
		}
	}
	weight := func(c color.RGBA) int { return count[c] * (17 + int(max(c.R, c.G, c.B)) - int(min(c.R, c.G, c.B))) }
	var palette color.Palette
	for _, c := range slices.SortedFunc(maps.Keys(count), func(a, b color.RGBA) int {
		return cmp.Or(cmp.Compare(weight(b), weight(a)), cmp.Compare(uint32(a.R)<<16|uint32(a.G)<<8|uint32(a.B), uint32(b.R)<<16|uint32(b.G)<<8|uint32(b.B)))
	}) {
		const apart = 20
		like := slices.ContainsFunc(palette, func(p color.Color) bool {
			q := p.(color.RGBA)
			return max(q.R, c.R)-min(q.R, c.R) < apart && max(q.G, c.G)-min(q.G, c.G) < apart && max(q.B, c.B)-min(q.B, c.B) < apart
		})
		if !like && len(palette) < 48 {
			palette = append(palette, c)
		}
	}
	to := image.NewPaletted(size, palette)
	index := map[color.RGBA]uint8{}
	for y := range size.Dy() {
		for x := range size.Dx() {
			c := color.RGBAModel.Convert(from.At(x, y)).(color.RGBA)
			i, ok := index[c]
			if !ok {
				i = uint8(palette.Index(c))
				index[c] = i
			}
			to.SetColorIndex(x, y, i)
		}
	}
	var out bytes.Buffer
	if err := (&png.Encoder{CompressionLevel: png.BestCompression}).Encode(&out, to); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}
