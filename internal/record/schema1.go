package record

import (
	"encoding/json"
	"math"
)

// run reads a run line.
func run(line []byte) (Line, error) {
	var r Run
	if err := json.Unmarshal(line, &r); err != nil {
		return nil, err
	}
	r.Host.memlock()
	r.Peer.memlock()
	return r, nil
}

// comparison reads a comparison line. Early records of schema 1 have the time of
// A over that of B, and 0 where they do not know.
func comparison(line []byte) (Line, error) {
	v := struct {
		*Comparison
		Ratio float64 `json:"ratio"`
		Lo    float64 `json:"ratio_lo"`
		Hi    float64 `json:"ratio_hi"`
	}{Comparison: new(Comparison)}
	if err := json.Unmarshal(line, &v); err != nil {
		return nil, err
	}
	c := v.Comparison
	if v.Ratio == 0 {
		return *c, nil
	}
	turned := func(f float64) *float64 {
		if f = 1 / f; math.IsInf(f, 0) {
			return nil
		}
		return &f
	}
	c.Ratio, c.RatioLo, c.RatioHi = turned(v.Ratio), turned(v.Hi), turned(v.Lo)
	for _, p := range []**float64{&c.P, &c.PHolm, &c.Detectable} {
		if *p != nil && **p == 0 {
			*p = nil
		}
	}
	return *c, nil
}

// memlock gives a limit that early records of schema 1 write as 2^64-1 its word.
func (h *Host) memlock() {
	if h != nil && h.MemlockSoft != nil && *h.MemlockSoft == math.MaxUint64 {
		h.Memlock, h.MemlockSoft = "unlimited", nil
	}
}
