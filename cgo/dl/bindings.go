// Package dl loads native libraries at run time.
//
// A program that is built so starts on any host: a library is opened when it is
// first needed, and its absence is an error with the loader's own words, not a
// failure to start. [Open] loads one, [Library.Symbols] fills a table of function
// pointers of C, through which C code calls it: Go cannot.
//
//	lib, err := dl.Open(dl.Local, "libm.so.6")
//	err = lib.Symbols(map[string]*unsafe.Pointer{"cos": &table.cos, "exp10?": &table.exp10})
//
// Some libraries replace the process's signal handlers when they are loaded or
// initialised (libfabric through libinfinipath, UCX before 1.20). After Go has
// started that breaks Ctrl-C and recover(). [Open] and [Guarded] save every signal
// action first and put it back after; what a library does to them later is not seen.
//
// Nothing is ever unloaded. All functions may be called from several goroutines, but
// those in the C environment race with libraries that read it: call [Setenv] before
// the library is loaded.
package dl

/*
#include <stdlib.h>
#include "dl.h"
*/
import "C"

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"unsafe"
)

// Library is a loaded library, for any number of goroutines. It is never unloaded:
// native libraries that start threads or register handlers do not survive that.
type Library struct {
	handle unsafe.Pointer
	path   string
}

// Visibility says whether a library's symbols serve libraries loaded later.
type Visibility int

const (
	Local  Visibility = C.RTLD_LOCAL  // they do not
	Global Visibility = C.RTLD_GLOBAL // they do; a library with modules of its own, such as UCX, may need it
)

// guard serialises what saves and restores the process's signal actions.
var guard sync.Mutex

// Open loads the first of names that the loader finds; a name with a slash is
// a path. The error joins the loader's words for each name that it tried.
// Wraps: dlopen(3).
func Open(v Visibility, names ...string) (*Library, error) {
	guard.Lock()
	defer guard.Unlock()
	var tried []error
	for _, name := range names {
		cname := C.CString(name)
		var words, path [1024]C.char
		h := C.xb_dl_open(cname, C.int(v), &words[0], C.size_t(len(words)), &path[0], C.size_t(len(path)))
		C.free(unsafe.Pointer(cname))
		if h != nil {
			return &Library{handle: h, path: C.GoString(&path[0])}, nil
		}
		tried = append(tried, errors.New(C.GoString(&words[0])))
	}
	if len(tried) == 0 {
		return nil, errors.New("no library name given")
	}
	return nil, errors.Join(tried...)
}

// Path is the file that the loader mapped.
func (l *Library) Path() string { return l.path }

// Symbol is the address of the default version of name. The error holds the
// loader's words. Wraps: dlsym(3).
func (l *Library) Symbol(name string) (unsafe.Pointer, error) {
	cname := C.CString(name)
	defer C.free(unsafe.Pointer(cname))
	var words [1024]C.char
	p := C.xb_dl_sym(l.handle, cname, &words[0], C.size_t(len(words)))
	if p == nil {
		return nil, fmt.Errorf("%s has no symbol %s: %s", l.path, name, C.GoString(&words[0]))
	}
	return p, nil
}

// Symbols fills each address with its symbol, in default version. Names ending in
// "?" may be missing and stay nil; the error names all others that are.
// Wraps: dlsym(3).
func (l *Library) Symbols(into map[string]*unsafe.Pointer) error {
	var missing []string
	for name, p := range into {
		bare, optional := strings.CutSuffix(name, "?")
		a, err := l.Symbol(bare)
		if err != nil && !optional {
			missing = append(missing, bare)
		}
		*p = a
	}
	if len(missing) > 0 {
		return fmt.Errorf("%s lacks %s", l.path, strings.Join(missing, ", "))
	}
	return nil
}

// Guarded runs f, a library's first initialisation, puts the process's signal
// actions back as they were, and returns f's error. One runs at a time; f must not
// call Open or Guarded. Wraps: sigaction(2).
func Guarded(f func() error) error {
	guard.Lock()
	defer guard.Unlock()
	var saved C.struct_xb_signals
	C.xb_signals_save(&saved)
	defer C.xb_signals_restore(&saved)
	return f()
}

// Setenv sets name to value in the C environment, where libraries look and Go's
// os.Getenv does not, unless it is set there. It must run before the library that
// reads it is loaded. Wraps: setenv(3).
func Setenv(name, value string) error {
	cn, cv := C.CString(name), C.CString(value)
	defer C.free(unsafe.Pointer(cn))
	defer C.free(unsafe.Pointer(cv))
	if rc, err := C.setenv(cn, cv, 0); rc != 0 {
		return fmt.Errorf("setenv %s: %w", name, err)
	}
	return nil
}

// SignalHandler is the action of signal sig: its handler's address and its flags, to
// be compared before and after a load. Wraps: sigaction(2).
func SignalHandler(sig int) (handler uintptr, flags int, err error) {
	var h C.uintptr_t
	var f C.int
	if rc, err := C.xb_signal_action(C.int(sig), &h, &f); rc != 0 {
		return 0, 0, fmt.Errorf("sigaction %d: %w", sig, err)
	}
	return uintptr(h), int(f), nil
}
