# Every other cluster's gate: read only.
path "secret/data/istio/ca" {
  capabilities = ["read"]
}
