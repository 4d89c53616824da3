# Who changes the root: a person, or a CronJob with an account of its own. Never a gate: with this, the root can be replaced.
# The root's key is out of its reach, too.
path "secret/data/istio/ca" {
  capabilities = ["create", "read", "update"]
}

# Old versions of the record may hold the key that all clusters shared.
path "secret/metadata/istio/ca" {
  capabilities = ["read"]
}
path "secret/destroy/istio/ca" {
  capabilities = ["update"]
}

# What the clusters say of themselves; and that of one that is gone is taken away.
path "secret/metadata/istio/clusters" {
  capabilities = ["list"]
}
path "secret/metadata/istio/clusters/+" {
  capabilities = ["read", "delete"]
}
path "secret/data/istio/clusters/+" {
  capabilities = ["read"]
}

# Roots: made with a name, named, retired and brought back, and the new one certified by the old one.
path "pki-mesh/root/generate/internal" {
  capabilities        = ["update"]
  required_parameters = ["issuer_name", "common_name", "ttl", "key_type", "key_bits"]
}
path "pki-mesh/issuers" {
  capabilities = ["list"]
}
path "pki-mesh/issuers/import/bundle" {
  capabilities = ["update"]
}
path "pki-mesh/issuer/+" {
  capabilities = ["read", "patch"]
}
path "pki-mesh/issuer/+/sign-self-issued" {
  capabilities = ["update"]
}
