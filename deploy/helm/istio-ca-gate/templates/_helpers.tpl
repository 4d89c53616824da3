{{/* The names of objects are fixed: the program's defaults, its certificate and its rights are about them. */}}

{{- define "gate.labels" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* A PEM of CAs, which becomes a ConfigMap that everybody may read. Never in a message, and so not in the schema either: what
does not match there is shown. */}}
{{- define "gate.public" -}}
{{- if contains "PRIVATE KEY" .pem -}}
{{ fail (printf "%s has a private key in it, which this chart would publish: give it certificates alone. Nothing was sent to the cluster. Its text is not shown here" .name) }}
{{- end -}}
{{- if and .pem (not (contains "-----BEGIN CERTIFICATE-----" .pem)) -}}
{{ fail (printf "%s is no PEM certificate: give the content of the file and not its name, as by --set-file" .name) }}
{{- end -}}
{{- end }}

{{/* As the program takes them: alternatives, with ; between. */}}
{{- define "gate.selectors" -}}
app in ({{ join "," .app }});istio in ({{ join "," .istio }});{{ "" -}}
gateway.networking.k8s.io/gateway-class-name in ({{ join "," .gatewayClass }})
{{- end }}

{{/* What has no default is asked for here and not in the schema, which `helm lint` applies to the bare chart, too. */}}
{{- define "gate.role" -}}
{{ required "role is required: bootstrap in the one cluster that makes the root, sync in all others" .Values.role }}
{{- end }}

{{- define "gate.account" -}}
{{ .Values.serviceAccount.name | default "istio-ca-gate" }}
{{- end }}

{{/* The subject of all bindings. */}}
{{- define "gate.subjects" -}}
- kind: ServiceAccount
  name: {{ include "gate.account" . }}
  namespace: {{ .Release.Namespace }}
{{- end }}

{{- define "gate.image" -}}
{{- $repository := required "image.repository is required: no image is published" .Values.image.repository -}}
{{- if .Values.image.digest -}}
{{ $repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ $repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end }}

{{/* All settings. What has a value of its own may not be set a second time. */}}
{{- define "gate.settings" -}}
{{- $role := include "gate.role" . -}}
{{- $addresses := join "," .Values.vault.addresses -}}
{{- $own := dict
  "GATE_ROLE" $role
  "GATE_CLUSTER" (.Values.cluster | default $role)
  "GATE_VAULT_ADDRS" (required "vault.addresses is required: first one that is reached without the mesh" $addresses)
  "GATE_VAULT_AUTH_MOUNT" .Values.vault.authMount -}}
{{- if ne .Release.Namespace "istio-system" }}{{ $_ := set $own "GATE_NAMESPACE" .Release.Namespace }}{{ end -}}
{{- include "gate.public" (dict "name" "vault.caCertificate" "pem" .Values.vault.caCertificate) -}}
{{- include "gate.public" (dict "name" "clientCaCertificate" "pem" .Values.clientCaCertificate) -}}
{{- include "gate.public" (dict "name" "peers.caCertificate" "pem" .Values.peers.caCertificate) -}}
{{- if .Values.vault.caCertificate }}{{ $_ := set $own "VAULT_CACERT" "/etc/istio-ca-gate/ca.crt" }}{{ end -}}
{{- $default := "app in (istiod,istio-eastwestgateway);istio in (pilot,istiod,eastwestgateway);gateway.networking.k8s.io/gateway-class-name in (istio-east-west)" -}}
{{- $selectors := include "gate.selectors" .Values.selectors -}}
{{- if ne $selectors $default }}{{ $_ := set $own "GATE_SELECTORS" $selectors }}{{ end -}}
{{- if .Values.servingCertificate.secretName -}}
{{- $_ := set $own "GATE_TLS_CERT_FILE" "/etc/istio-ca-gate-tls/tls.crt" -}}
{{- $_ := set $own "GATE_TLS_KEY_FILE" "/etc/istio-ca-gate-tls/tls.key" -}}
{{- end -}}
{{- if .Values.clientCaCertificate }}{{ $_ := set $own "GATE_CLIENT_CA_FILE" "/etc/istio-ca-gate-client-ca/ca.crt" }}{{ end -}}
{{- with .Values.peers.dnsNames }}{{ $_ := set $own "GATE_DNS_NAMES" (join "," (prepend . (printf "istio-ca-gate.%s.svc" $.Release.Namespace))) }}{{ end -}}
{{- with .Values.peers.addresses }}{{ $_ := set $own "GATE_PEERS" (join "," .) }}{{ end -}}
{{- if .Values.peers.caCertificate }}{{ $_ := set $own "GATE_PEER_CA_CERT" "/etc/istio-ca-gate-peers/ca.crt" }}{{ end -}}
{{- if ne (int .Values.ports.https) 8443 }}{{ $_ := set $own "GATE_LISTEN" (printf "[::]:%d" (int .Values.ports.https)) }}{{ end -}}
{{- if ne (int .Values.ports.http) 8080 }}{{ $_ := set $own "GATE_ADMIN_LISTEN" (printf "[::]:%d" (int .Values.ports.http)) }}{{ end -}}
{{- if .Values.selfTest }}{{ $_ := set $own "GATE_SELF_TEST" "istio-ca-gate-self-test" }}{{ end -}}
{{- with .Values.signing.pkiMount }}{{ $_ := set $own "GATE_VAULT_PKI_MOUNT" . }}{{ end -}}
{{- if and .Values.signing.rotate.enabled (not .Values.signing.pkiMount) }}{{ fail "signing.rotate.enabled: set signing.pkiMount, too" }}{{ end -}}
{{- with .Values.reconcileHelmReleases }}{{ $_ := set $own "GATE_RECONCILE_HELMRELEASES" (join "," .) }}{{ end -}}
{{- range $name, $_ := .Values.settings -}}
{{- if hasKey $own $name }}{{ fail (printf "settings.%s: there is a value of its own for it" $name) }}{{ end -}}
{{- end -}}
{{ merge $own .Values.settings | toYaml }}
{{- end }}
