package nvml

import "fmt"

// Fake is an [Interface] with fixed answers, for the tests of callers.
type Fake struct {
	File    string
	Sys     System
	Devices []GPU
	Now     []Telemetry // by index
	Links   map[[2]int]Link
	Err     error // of every call, when set
}

var _ Interface = (*Fake)(nil)

// Path is File.
func (f *Fake) Path() string { return f.File }

// System is Sys.
func (f *Fake) System() (System, error) { return f.Sys, f.Err }

// GPUs is Devices.
func (f *Fake) GPUs() ([]GPU, error) {
	if f.Err != nil {
		return nil, f.Err
	}
	return f.Devices, nil
}

// Telemetry is that of Now.
func (f *Fake) Telemetry(index int) (Telemetry, error) {
	if f.Err != nil {
		return Telemetry{}, f.Err
	}
	if index < 0 || index >= len(f.Now) {
		return Telemetry{}, fmt.Errorf("GPU %d: the fake has telemetry of %d", index, len(f.Now))
	}
	return f.Now[index], nil
}

// Link is that of Links, either way round.
func (f *Fake) Link(a, b int) (Link, error) {
	if f.Err != nil {
		return Link{}, f.Err
	}
	if l, ok := f.Links[[2]int{a, b}]; ok {
		return l, nil
	}
	if l, ok := f.Links[[2]int{b, a}]; ok {
		return l, nil
	}
	return Link{}, fmt.Errorf("GPUs %d and %d: the fake knows no link", a, b)
}

// Close does nothing.
func (f *Fake) Close() error { return nil }
