{{/* The names of objects are fixed: the program's defaults, its certificate and its rights are about them. */}}

{{- define "gate.labels" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
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
{{- if .Values.vault.caCertificate }}{{ $_ := set $own "VAULT_CACERT" "/etc/istio-ca-gate/ca.crt" }}{{ end -}}
{{- if .Values.selfTest }}{{ $_ := set $own "GATE_SELF_TEST" "istio-ca-gate-self-test" }}{{ end -}}
{{- with .Values.reconcileHelmReleases }}{{ $_ := set $own "GATE_RECONCILE_HELMRELEASES" (join "," .) }}{{ end -}}
{{- range $name, $_ := .Values.settings -}}
{{- if hasKey $own $name }}{{ fail (printf "settings.%s: there is a value of its own for it" $name) }}{{ end -}}
{{- end -}}
{{ merge $own .Values.settings | toYaml }}
{{- end }}
