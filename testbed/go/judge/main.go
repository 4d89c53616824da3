// Command judge tells what Go makes of a CA: JSON lines in, JSON lines out, in their order. A line in has the files of
// Secret cacerts; a line out has what istiod's own loading said, the certificates that istiod signed, and what Go's
// crypto/x509 says of those. Or it has a chain and who is trusted, and the line out only what Go says of the one by the other.
// Or it has a file, and the line out the certificates in it; or an AdmissionReview or a selector, and the line out what the
// API server's own types and kubectl make of it.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"

	istiolog "istio.io/istio/pkg/log"
)

type question struct {
	// By their names.
	Files map[string][]byte `json:"files"`
	// In place of them: what a peer shows, and what is trusted. PEM.
	Chain string `json:"chain"`
	Roots string `json:"roots"`
	// Or a file that may have certificates.
	Pem []byte `json:"pem"`
	// Or an AdmissionReview, and the selectors of the pods that are asked about.
	Review    []byte   `json:"review"`
	Selectors []string `json:"selectors"`
	// Or a selector, and the labels of a pod.
	Selector *string           `json:"selector"`
	Labels   map[string]string `json:"labels"`
}

type answer struct {
	// Why istiod would not start; empty: it starts.
	Istiod string `json:"istiod"`
	// Why a Go peer refuses what istiod signed, or empty.
	Peer string `json:"peer"`
	// What istiod answers a workload with: its certificate and the chain, and the trust bundle.
	Workload string `json:"workload"`
	// What istiod itself serves: its certificate and the chain.
	Serving string `json:"serving"`
	Roots   string `json:"roots"`
}

func main() {
	if err := run(os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(in io.Reader, out io.Writer) error {
	options := istiolog.DefaultOptions()
	options.SetDefaultOutputLevel(istiolog.OverrideScopeName, istiolog.NoneLevel)
	if err := istiolog.Configure(options); err != nil {
		return err
	}
	requests, err := newRequests()
	if err != nil {
		return err
	}
	folder, err := os.MkdirTemp("", "judge-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(folder)

	lines := bufio.NewReader(in)
	written := bufio.NewWriter(out)
	for {
		line, err := lines.ReadBytes('\n')
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		var asked question
		if err := json.Unmarshal(line, &asked); err != nil {
			return err
		}
		var said any
		switch {
		case asked.Pem != nil:
			said = certificates(string(asked.Pem))
		case asked.Review != nil:
			said = review(asked.Review, asked.Selectors)
		case asked.Selector != nil:
			said = selects(*asked.Selector, asked.Labels)
		case asked.Chain != "":
			said = verifyAlone(asked)
		default:
			if err := put(folder, asked.Files); err != nil {
				return err
			}
			said = judge(folder, requests)
		}
		told, err := json.Marshal(said)
		if err != nil {
			return err
		}
		if _, err := written.Write(append(told, '\n')); err != nil {
			return err
		}
		if err := written.Flush(); err != nil {
			return err
		}
	}
}
