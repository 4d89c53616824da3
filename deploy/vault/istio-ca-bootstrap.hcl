# The homelab's gate: create, never update. Even a bug cannot overwrite the root.
path "secret/data/istio/ca" {
  capabilities = ["create", "read"]
}
