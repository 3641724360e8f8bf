package record

// Tune is one step of the search that --tune makes before it measures: a
// setting held against the best one so far, in turn. Its transfers are checked by
// nothing and are in no figure.
type Tune struct {
	TimeNs   int64  `json:"time_ns"`  // from the run's start
	Provider string `json:"provider"` // as conditions name it
	Step     int    `json:"step"`     // counts from 0, the setting that the search begins with
	Streams  int    `json:"streams"`
	Depth    int    `json:"depth"`
	Chunk    uint64 `json:"chunk_bytes"` // 0: descriptors are not split
	// Bytes and TotalNs are of one transfer of each of the provider's
	// conditions, BestNs is the same of the best setting so far.
	Bytes   uint64 `json:"bytes"`
	TotalNs int64  `json:"total_ns"`
	BestNs  int64  `json:"best_total_ns"`
	Kept    bool   `json:"kept"`            // it is the best from here on
	Error   string `json:"error,omitempty"` // why it could not be run
	// Flags, on a provider's last line only, are those to give for the best
	// setting, which the line repeats without its times.
	Flags string `json:"flags,omitempty"`
	// Note says why the search ended early.
	Note string `json:"note,omitempty"`
}

func (Tune) lineType() string { return "tune" }
