package report

import (
	"bytes"

	"github.com/xferbench/xferbench/internal/report/analysis"
)

func writeHTML(b *bytes.Buffer, as []*analysis.Analysis) error { return nil }
