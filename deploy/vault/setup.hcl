# What setup.sh needs. An administrator's policy: who has it can give himself the root's key.
#   vault policy write istio-ca-setup setup.hcl && vault token create -policy=istio-ca-setup -ttl=15m
path "sys/mounts" {
  capabilities = ["read"]
}
path "sys/mounts/secret" {
  capabilities = ["update"]
}
path "secret/config" {
  capabilities = ["read"]
}
path "sys/policies/acl/istio-ca-bootstrap" {
  capabilities = ["create", "read", "update"]
}
path "sys/policies/acl/istio-ca-sync" {
  capabilities = ["create", "read", "update"]
}
path "sys/audit" {
  capabilities = ["read", "sudo"]
}
path "sys/auth" {
  capabilities = ["read"]
}

# The homelab's auth mount, as --homelab-mount names it.
path "sys/auth/kubernetes" {
  capabilities = ["update", "sudo"]
}
path "auth/kubernetes/config" {
  capabilities = ["create", "read", "update"]
}
path "auth/kubernetes/role/istio-ca-bootstrap" {
  capabilities = ["create", "read", "update"]
}

# The NAS's, as --nas-mount names it. delete: only for --force, where it is of the other type.
path "sys/auth/kubernetes-nas" {
  capabilities = ["update", "delete", "sudo"]
}
path "auth/kubernetes-nas/config" {
  capabilities = ["create", "read", "update"]
}
path "auth/kubernetes-nas/role/istio-ca-sync" {
  capabilities = ["create", "read", "update"]
}

# Only for --signing: the engine as --pki-mount names it, and the clusters as they are called.
path "sys/mounts/pki-mesh" {
  capabilities = ["update"]
}
path "sys/policies/acl/istio-ca-root" {
  capabilities = ["create", "read", "update"]
}
path "sys/policies/acl/istio-ca-rotate" {
  capabilities = ["create", "read", "update"]
}
path "sys/policies/acl/istio-ca-signer-homelab" {
  capabilities = ["create", "read", "update"]
}
path "sys/policies/acl/istio-ca-signer-nas" {
  capabilities = ["create", "read", "update"]
}
path "auth/kubernetes/role/istio-ca-rotate" {
  capabilities = ["create", "read", "update"]
}
