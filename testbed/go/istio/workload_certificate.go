package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"istio.io/istio/pkg/security"
	"istio.io/istio/security/pkg/credentialfetcher/plugin"
	"istio.io/istio/security/pkg/nodeagent/caclient/providers/citadel"
	pki "istio.io/istio/security/pkg/pki/util"
)

// One hour: longer than any test.
const validitySeconds = 3600

// Does what the agent beside a proxy does at its start: makes a key, sends a CSR to istiod with the pod's token, and
// keeps the key and the chain.
func newWorkloadCertificateCommand() *cobra.Command {
	var address, name, root, tokenFile, identity, out string
	command := &cobra.Command{
		Use:          "workload-certificate",
		Short:        "Writes key.pem and cert-chain.pem, signed by istiod, into a folder.",
		Args:         cobra.NoArgs,
		SilenceUsage: true,
		RunE: func(*cobra.Command, []string) error {
			csr, key, err := pki.GenCSR(pki.CertOptions{Host: identity, ECSigAlg: pki.EcdsaSigAlg})
			if err != nil {
				return err
			}
			chain, err := sign(address, name, root, tokenFile, csr)
			if err != nil {
				return err
			}
			return errors.Join(
				os.WriteFile(filepath.Join(out, "key.pem"), key, 0o600),
				os.WriteFile(filepath.Join(out, "cert-chain.pem"), []byte(chain), 0o600),
			)
		},
	}
	flags := command.Flags()
	for _, flag := range []struct {
		value       *string
		name, usage string
	}{
		{&address, "address", "host:port of istiod's secure gRPC"},
		{&name, "server-name", "the name that istiod's certificate has to have"},
		{&root, "root", "file of the root that istiod's certificate has to chain to"},
		{&tokenFile, "token-file", "file of a service-account token for the audience istio-ca"},
		{&identity, "identity", "the SPIFFE URI to ask for"},
		{&out, "out", "an existing folder"},
	} {
		flags.StringVar(flag.value, flag.name, "", flag.usage)
		_ = command.MarkFlagRequired(flag.name)
	}
	return command
}

func sign(address, name, root, tokenFile string, csr []byte) (string, error) {
	options := &security.Options{
		CAEndpoint:    address,
		CAEndpointSAN: name,
		CredFetcher:   plugin.CreateTokenPlugin(tokenFile),
	}
	client, err := citadel.NewCitadelClient(options, &citadel.TLSOptions{RootCert: root})
	if err != nil {
		return "", err
	}
	defer client.Close()
	chain, err := client.CSRSign(csr, validitySeconds)
	return strings.Join(chain, ""), err
}
