output "homelab_gate_settings" {
  description = "What the gate of the homelab has to be told."
  value = { for name, value in {
    GATE_ROLE             = "bootstrap"
    GATE_VAULT_AUTH_MOUNT = var.homelab_mount
    GATE_VAULT_ROLE       = vault_kubernetes_auth_backend_role.homelab.role_name
    GATE_VAULT_MOUNT      = "secret"
    GATE_VAULT_PATH       = "istio/ca"
    GATE_VAULT_PKI_MOUNT  = var.signing ? var.pki_mount : null
    GATE_CLUSTER          = var.signing ? var.homelab_cluster : null
  } : name => value if value != null }
}

output "nas_gate_settings" {
  description = "What the gate of the NAS has to be told."
  value = { for name, value in {
    GATE_ROLE             = "sync"
    GATE_VAULT_AUTH_MOUNT = var.nas_mount
    GATE_VAULT_ROLE       = one(concat(vault_jwt_auth_backend_role.nas[*].role_name, vault_kubernetes_auth_backend_role.nas[*].role_name))
    GATE_VAULT_MOUNT      = "secret"
    GATE_VAULT_PATH       = "istio/ca"
    GATE_VAULT_PKI_MOUNT  = var.signing ? var.pki_mount : null
    GATE_CLUSTER          = var.signing ? var.nas_cluster : null
  } : name => value if value != null }
}
