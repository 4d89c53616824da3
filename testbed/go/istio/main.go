// istiod's program, and the client with which a proxy asks istiod for its certificate, chosen by the first argument:
// pilot-discovery or workload-certificate.
package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"
	"istio.io/istio/pilot/cmd/pilot-discovery/app"
	"istio.io/istio/pkg/log"
)

func main() {
	if len(os.Args) < 2 {
		usage()
	}
	part := os.Args[1]
	os.Args = append([]string{part}, os.Args[2:]...)

	var command *cobra.Command
	switch part {
	case "pilot-discovery":
		log.EnableKlogWithCobra()
		command = app.NewRootCommand()
	case "workload-certificate":
		command = newWorkloadCertificateCommand()
	default:
		usage()
	}
	if err := command.Execute(); err != nil {
		os.Exit(1)
	}
}

func usage() {
	fmt.Fprintln(os.Stderr, "usage: istio pilot-discovery|workload-certificate [argument ...]")
	os.Exit(2)
}
