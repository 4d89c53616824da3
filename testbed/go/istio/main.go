// istiod's program, the agent beside each proxy, and a client that asks istiod for a certificate once, chosen by the first
// argument: pilot-discovery, pilot-agent or workload-certificate.
package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"
	meshconfig "istio.io/api/mesh/v1alpha1"
	agent "istio.io/istio/pilot/cmd/pilot-agent/app"
	"istio.io/istio/pilot/cmd/pilot-discovery/app"
	istioagent "istio.io/istio/pkg/istio-agent"
	"istio.io/istio/pkg/log"
	"istio.io/istio/pkg/security"
	"istio.io/istio/security/pkg/nodeagent/sds"
)

func sdsServer(options *security.Options, secrets security.SecretManager, provider *meshconfig.PrivateKeyProvider) istioagent.SDSService {
	return sds.NewServer(options, secrets, provider)
}

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
	case "pilot-agent":
		log.EnableKlogWithCobra()
		command = agent.NewRootCommand(sdsServer)
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
	fmt.Fprintln(os.Stderr, "usage: istio pilot-discovery|pilot-agent|workload-certificate [argument ...]")
	os.Exit(2)
}
