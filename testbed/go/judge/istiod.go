package main

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"istio.io/istio/pkg/spiffe"
	webhooks "istio.io/istio/pkg/webhooks/util"
	"istio.io/istio/security/pkg/cmd"
	"istio.io/istio/security/pkg/pki/ca"
	pki "istio.io/istio/security/pkg/pki/util"
)

const trustDomain = "cluster.local"

var (
	identity = "spiffe://" + trustDomain + "/ns/shop/sa/cart"
	// What it calls itself in its own namespace, without revisions and hosts of a user's own.
	istiodNames = []string{"istio-pilot.istio-system.svc", "istiod-remote.istio-system.svc", "istiod.istio-system.svc"}
)

// What workloads and istiod itself ask to be signed. Made once: keys are dear, and of no interest.
type requests struct {
	workload, serving []byte
	servingKey        []byte
}

func newRequests() (*requests, error) {
	workload, _, err := pki.GenCSR(pki.CertOptions{Host: identity, ECSigAlg: pki.EcdsaSigAlg})
	if err != nil {
		return nil, err
	}
	serving, key, err := pki.GenCSR(pki.CertOptions{ECSigAlg: pki.EcdsaSigAlg})
	if err != nil {
		return nil, err
	}
	return &requests{workload, serving, key}, nil
}

// put makes the folder hold these files and no others.
func put(folder string, files map[string][]byte) error {
	old, err := os.ReadDir(folder)
	if err != nil {
		return err
	}
	for _, file := range old {
		if err := os.Remove(filepath.Join(folder, file.Name())); err != nil {
			return err
		}
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(folder, filepath.Base(name)), content, 0o600); err != nil {
			return err
		}
	}
	return nil
}

func judge(folder string, asked *requests) answer {
	authority, err := load(folder)
	if err != nil {
		return answer{Istiod: err.Error()}
	}
	told := answer{}
	if told.Workload, told.Serving, err = sign(authority, asked); err != nil {
		return answer{Istiod: err.Error()}
	}
	told.Roots = string(authority.GetCAKeyCertBundle().GetRootCertPem())
	if err := start(told, asked); err != nil {
		return answer{Istiod: err.Error()}
	}
	if err := verify(told); err != nil {
		told.Peer = err.Error()
	}
	return told
}

// load does what istiod's bootstrap does with the mounted Secret, where it finds a plugged-in CA in it.
func load(folder string) (*ca.IstioCA, error) {
	bundle := detect(folder)
	missing := func(name string) bool {
		_, err := os.Stat(name)
		return err != nil
	}
	if missing(bundle.SigningKeyFile) || missing(bundle.SigningCertFile) || missing(bundle.RootCertFile) ||
		missing(bundle.CertChainFiles[0]) && missing(bundle.CertChainFiles[len(bundle.CertChainFiles)-1]) {
		return nil, errors.New("incomplete signing CA bundle detected")
	}
	options, err := ca.NewPluggedCertIstioCAOptions(
		bundle, cmd.DefaultWorkloadCertTTL, cmd.DefaultMaxWorkloadCertTTL, 2048)
	if err != nil {
		return nil, err
	}
	return ca.NewIstioCA(options)
}

func detect(folder string) ca.SigningCAFileBundle {
	in := func(name string) string { return filepath.Join(folder, name) }
	if _, err := os.Stat(in(ca.TLSSecretCACertFile)); err == nil {
		return ca.SigningCAFileBundle{
			RootCertFile:    in(ca.TLSSecretRootCertFile),
			CertChainFiles:  []string{in(ca.TLSSecretCACertFile), in(ca.TLSSecretRootCertFile)},
			SigningCertFile: in(ca.TLSSecretCACertFile),
			SigningKeyFile:  in(ca.TLSSecretCAPrivateKeyFile),
		}
	}
	bundle := ca.SigningCAFileBundle{
		RootCertFile:    in(ca.RootCertFile),
		CertChainFiles:  []string{in(ca.CertChainFile)},
		SigningCertFile: in(ca.CACertFile),
		SigningKeyFile:  in(ca.CAPrivateKeyFile),
	}
	if _, err := os.Stat(in(ca.CACRLFile)); err == nil {
		bundle.CRLFile = in(ca.CACRLFile)
	}
	return bundle
}

// sign answers a workload as istiod's CA server does, without the root at the end, and makes istiod's own certificate.
func sign(authority *ca.IstioCA, asked *requests) (workload, serving string, err error) {
	leaf, err := authority.Sign(asked.workload, ca.CertOpts{SubjectIDs: []string{identity}, TTL: 24 * time.Hour})
	if err != nil {
		return "", "", err
	}
	_, _, chain, _ := authority.GetCAKeyCertBundle().GetAll()
	workload = string(leaf)
	for _, one := range pki.PemCertBytestoString(chain) {
		workload += one + "\n"
	}
	own, err := authority.SignWithCertChain(asked.serving, ca.CertOpts{SubjectIDs: istiodNames, TTL: 24 * time.Hour})
	if err != nil {
		return "", "", err
	}
	return workload, strings.Join(own, ""), nil
}

// start does the rest of what istiod's start does with them, as far as it can fail.
func start(told answer, asked *requests) error {
	if err := spiffe.NewPeerCertVerifier().AddMappingFromPEM(trustDomain, []byte(told.Roots)); err != nil {
		return err
	}
	if err := webhooks.VerifyCABundle([]byte(told.Roots)); err != nil {
		return err
	}
	pair, err := tls.X509KeyPair([]byte(told.Serving), asked.servingKey)
	if err != nil {
		return err
	}
	for _, one := range pair.Certificate {
		if _, err := x509.ParseCertificates(one); err != nil {
			return err
		}
	}
	return nil
}

// verify is what Go peers do: istiod with a workload's certificate, agents and the API server with istiod's.
func verify(told answer) error {
	verifier := spiffe.NewPeerCertVerifier()
	if err := verifier.AddMappingFromPEM(trustDomain, []byte(told.Roots)); err != nil {
		return err
	}
	if err := verifier.VerifyPeerCert(certificates(told.Workload+told.Roots), nil); err != nil {
		return fmt.Errorf("workload: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM([]byte(told.Roots)) {
		return errors.New("no root")
	}
	for _, peer := range []struct {
		chain, name string
		usage       x509.ExtKeyUsage
	}{
		{told.Workload + told.Roots, "", x509.ExtKeyUsageClientAuth},
		{told.Workload + told.Roots, "", x509.ExtKeyUsageServerAuth},
		{told.Serving, "istiod.istio-system.svc", x509.ExtKeyUsageServerAuth},
	} {
		if err := verifyChain(certificates(peer.chain), roots, peer.name, peer.usage); err != nil {
			return fmt.Errorf("%s: %w", peer.name, err)
		}
	}
	return nil
}

// verifyAlone is what a Go peer says of a chain, as a server's and as a client's.
func verifyAlone(asked question) (told answer) {
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM([]byte(asked.Roots)) {
		told.Peer = "no root"
		return told
	}
	for _, usage := range []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth} {
		if err := verifyChain(certificates(asked.Chain), roots, "", usage); err != nil {
			told.Peer = err.Error()
		}
	}
	return told
}

// verifyChain as crypto/tls does it with what it got from the other side.
func verifyChain(chain [][]byte, roots *x509.CertPool, name string, usage x509.ExtKeyUsage) error {
	leaf, err := x509.ParseCertificate(chain[0])
	if err != nil {
		return err
	}
	intermediates := x509.NewCertPool()
	for _, der := range chain[1:] {
		one, err := x509.ParseCertificate(der)
		if err != nil {
			return err
		}
		intermediates.AddCert(one)
	}
	_, err = leaf.Verify(x509.VerifyOptions{
		Roots: roots, Intermediates: intermediates, DNSName: name, KeyUsages: []x509.ExtKeyUsage{usage},
	})
	return err
}

func certificates(text string) (ders [][]byte) {
	for block, rest := pem.Decode([]byte(text)); block != nil; block, rest = pem.Decode(rest) {
		ders = append(ders, block.Bytes)
	}
	return ders
}
