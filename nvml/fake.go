package nvml

// Fake is an [Interface] with fixed answers, for the tests of callers.
type Fake struct {
	File    string
	Sys     System
	Devices []GPU
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

// Close does nothing.
func (f *Fake) Close() error { return nil }
