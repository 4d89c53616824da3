// A validating webhook for pods as the author of an operator would write it with controller-runtime: what the benchmarks
// compare with. It serves at the port that it is told, with a certificate for 127.0.0.1 that it leaves in the folder.
package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"
	"sigs.k8s.io/controller-runtime/pkg/webhook"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"
)

type gate struct{ decoder admission.Decoder }

func (g gate) Handle(ctx context.Context, req admission.Request) admission.Response {
	pod := &corev1.Pod{}
	if err := g.decoder.Decode(req, pod); err != nil {
		return admission.Errored(http.StatusBadRequest, err)
	}
	if pod.Labels["app"] != "istiod" {
		return admission.Allowed("")
	}
	ctrl.LoggerFrom(ctx).Info("admission", "decision", "open", "uid", req.UID, "namespace", req.Namespace, "pod", pod.GenerateName)
	response := admission.Allowed("")
	response.AuditAnnotations = map[string]string{"root-sha256": "0"}
	return response
}

func main() {
	port, folder := must(strconv.Atoi(os.Args[1])), os.Args[2]
	ctrl.SetLogger(zap.New())
	certify(folder)
	scheme := runtime.NewScheme()
	must(0, clientgoscheme.AddToScheme(scheme))
	server := webhook.NewServer(webhook.Options{Host: "127.0.0.1", Port: port, CertDir: folder})
	server.Register("/validate", &webhook.Admission{Handler: gate{admission.NewDecoder(scheme)}})
	must(0, server.Start(ctrl.SetupSignalHandler()))
}

func certify(folder string) {
	key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "127.0.0.1"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	caKey := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "CA"}, NotBefore: template.NotBefore, NotAfter: template.NotAfter,
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	certificate := must(x509.CreateCertificate(rand.Reader, template, ca, &key.PublicKey, caKey))
	put(filepath.Join(folder, "tls.crt"), "CERTIFICATE", certificate)
	put(filepath.Join(folder, "tls.key"), "PRIVATE KEY", must(x509.MarshalPKCS8PrivateKey(key)))
	put(filepath.Join(folder, "ca.pem"), "CERTIFICATE", must(x509.CreateCertificate(rand.Reader, ca, ca, &caKey.PublicKey, caKey)))
}

func put(path, kind string, der []byte) {
	must(0, os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600))
}

func must[T any](value T, err error) T {
	if err != nil {
		panic(err)
	}
	return value
}
