// Command xferbench measures how long a KV cache takes on the wire, and which
// share of the time to first token that explains.
package main

import (
	"os"

	"github.com/xferbench/xferbench/internal/cli"
)

func main() { os.Exit(cli.Main(os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) }
