package report

import (
	"io"

	"github.com/xferbench/xferbench/internal/record"
)

func compareTTFT(w io.Writer, raw, ttft *record.Record, o CompareOptions) error { return ErrRefused }
