package dl_test

import (
	"fmt"
	"log"
	"path/filepath"
	"strings"
	"unsafe"

	"github.com/xferbench/xferbench/cgo/dl"
)

func Example() {
	lib, err := dl.Open(dl.Local, "libm.so.6")
	if err != nil {
		log.Fatal(err)
	}
	// C code calls these; Go has the addresses only.
	var cos, newer unsafe.Pointer
	if err := lib.Symbols(map[string]*unsafe.Pointer{"cos": &cos, "no_such_function?": &newer}); err != nil {
		log.Fatal(err)
	}
	fmt.Println(filepath.Base(lib.Path()), cos != nil, newer != nil)

	_, err = dl.Open(dl.Local, "libnonesuch.so.9", "libnonesuch.so.8")
	fmt.Println(strings.Count(err.Error(), "cannot open shared object file"))
	// Output:
	// libm.so.6 true false
	// 2
}
