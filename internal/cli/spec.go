package cli

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/xferbench/xferbench/internal/fault"
	"github.com/xferbench/xferbench/internal/spec"
	"github.com/xferbench/xferbench/internal/units"
)

// specFlags are the flags that make a spec. Those of the workload write into s;
// what was given is kept, to be given again over a file's.
type specFlags struct {
	workload string
	bind     func(*pflag.FlagSet, *spec.Spec)
	s        *spec.Spec
	given    []setting
	file     string
	print    bool
}

// setting is one use of a flag.
type setting struct{ name, value string }

// newSpecFlags binds the flags of a workload to fs.
func newSpecFlags(fs *pflag.FlagSet, workload string, bind func(*pflag.FlagSet, *spec.Spec)) *specFlags {
	f := &specFlags{workload: workload, bind: bind, s: spec.Default(workload)}
	fs.SortFlags = false
	bind(fs, f.s)
	units.GuardLists(fs)
	fs.VisitAll(func(flag *pflag.Flag) {
		flag.Value = &logged{Value: flag.Value, f: f, name: flag.Name}
		if flag.DefValue == "[]" || flag.DefValue == "0s" {
			flag.DefValue = "" // no default, for the help
		}
	})
	fs.StringVar(&f.file, "spec", "", "`file` with the experiment, YAML or JSON, - for standard input (docs/spec.md); flags win over it")
	fs.BoolVar(&f.print, "print-spec", false, "print the experiment that the flags make, as such a file, and measure nothing")
	return f
}

// logged is a flag's value whose uses are kept.
type logged struct {
	pflag.Value
	f    *specFlags
	name string
}

// Set implements pflag.Value.
func (l *logged) Set(s string) error {
	if err := l.Value.Set(s); err != nil {
		return err
	}
	l.f.given = append(l.f.given, setting{l.name, s})
	return nil
}

// IsBoolFlag says that the flag may stand without a value.
func (l *logged) IsBoolFlag() bool {
	b, is := l.Value.(interface{ IsBoolFlag() bool })
	return is && b.IsBoolFlag()
}

// spec is the experiment of file and flags, not completed.
func (f *specFlags) spec(cmd *cobra.Command) (*spec.Spec, error) {
	if f.file == "" {
		return f.s, nil
	}
	file := f.file
	if kept(cmd) != nil {
		file = "-" // the first process has read it, which a pipe allows once
	}
	s, err := spec.Load(file, cmd.InOrStdin())
	if err != nil {
		return nil, err
	}
	if s.Workload != f.workload {
		command := "xferbench"
		if s.Workload != spec.Raw {
			command += " " + s.Workload
		}
		return nil, fault.Usagef("--spec %s: its workload is %s: run it with %s", f.file, s.Workload, command)
	}
	fs := pflag.NewFlagSet("", pflag.ContinueOnError)
	f.bind(fs, s)
	for _, g := range f.given {
		if err := fs.Set(g.name, g.value); err != nil {
			return nil, fault.Usagef("%w", err)
		}
	}
	return s, nil
}

// printed prints s where that was asked for, and reports it.
func (f *specFlags) printed(cmd *cobra.Command, s *spec.Spec) (bool, error) {
	if !f.print {
		return false, nil
	}
	text, err := s.YAML()
	if err == nil {
		_, err = cmd.OutOrStdout().Write(text)
	}
	return true, err
}

// stdin is what a second process that does the same command reads: the experiment,
// where this one has read it from a file; else nil.
func (f *specFlags) stdin(s *spec.Spec) ([]byte, error) {
	if f.file == "" {
		return nil, nil
	}
	return s.YAML()
}

// optional is a flag that is a number where it was given, else left to the tool.
type optional[T int | uint64] struct {
	p     **T
	usual string // for the help
}

// String implements pflag.Value.
func (v optional[T]) String() string {
	if v.p == nil || *v.p == nil {
		return v.usual
	}
	return fmt.Sprint(**v.p)
}

// Set implements pflag.Value.
func (v optional[T]) Set(s string) error {
	var n T
	switch p := any(&n).(type) {
	case *int:
		i, err := strconv.Atoi(s)
		if err != nil {
			return fmt.Errorf("%q is not a whole number", s)
		}
		*p = i
	case *uint64:
		u, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			return fmt.Errorf("%q is not a whole number from 0 to %d", s, uint64(1<<64-1))
		}
		*p = u
	}
	*v.p = &n
	return nil
}

// Type implements pflag.Value.
func (v optional[T]) Type() string {
	var n T
	return fmt.Sprintf("%T", n)
}

// settings is a flag of KEY=VALUE. The first use of a key replaces its values,
// each further one gives the key another value in turn.
type settings struct {
	to    *spec.Settings
	given map[string]bool
}

func newSettings(to *spec.Settings) *settings { return &settings{to, map[string]bool{}} }

// String implements pflag.Value.
func (v *settings) String() string {
	if v.to == nil {
		return ""
	}
	var out []string
	for _, k := range slices.Sorted(maps.Keys(*v.to)) {
		for _, w := range (*v.to)[k] {
			out = append(out, k+"="+w)
		}
	}
	return strings.Join(out, ",")
}

// Set implements pflag.Value.
func (v *settings) Set(s string) error {
	key, value, ok := strings.Cut(s, "=")
	if !ok || key == "" {
		return fmt.Errorf("%q: want KEY=VALUE", s)
	}
	if *v.to == nil {
		*v.to = spec.Settings{}
	}
	if !v.given[key] {
		(*v.to)[key] = nil
	}
	v.given[key] = true
	(*v.to)[key] = append((*v.to)[key], value)
	return nil
}

// Type implements pflag.Value.
func (*settings) Type() string { return "stringArray" }
