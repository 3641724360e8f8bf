package record

import (
	"encoding/json"
	"fmt"
)

// Decode reads one line of a record of this build; nil is a line of a type that
// it does not know.
func Decode(line []byte) (Line, error) {
	var head struct {
		Type string `json:"type"`
	}
	if err := json.Unmarshal(line, &head); err != nil {
		return nil, fmt.Errorf("record: %w", err)
	}
	switch head.Type {
	case "run":
		return decode[Run](line)
	case "condition":
		return decode[Condition](line)
	case "cold":
		return decode[Cold](line)
	case "sample":
		return decode[Sample](line)
	case "request":
		return decode[Request](line)
	case "path":
		return decode[Path](line)
	case "summary":
		return decode[Summary](line)
	case "comparison":
		return decode[Comparison](line)
	case "event":
		return decode[Event](line)
	case "tune":
		return decode[Tune](line)
	case "end":
		return decode[End](line)
	}
	return nil, nil
}

func decode[T Line](line []byte) (Line, error) {
	var l T
	if err := json.Unmarshal(line, &l); err != nil {
		return nil, fmt.Errorf("record: %s line: %w", l.lineType(), err)
	}
	return l, nil
}
