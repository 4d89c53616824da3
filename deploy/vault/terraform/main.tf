locals {
  # The lifetimes of the gates' tokens; a gate logs in again by itself.
  token_ttl     = 3600
  token_max_ttl = 86400

  policies = toset(["istio-ca-bootstrap", "istio-ca-sync"])

  # The root's key in the PKI engine: what is written beside that, by name; and what each gate has beside its policy.
  signing = var.signing ? {
    "istio-ca-root"                          = { file = "istio-ca-root", cluster = "" }
    "istio-ca-rotate"                        = { file = "istio-ca-rotate", cluster = "" }
    "istio-ca-signer-${var.homelab_cluster}" = { file = "istio-ca-signer", cluster = var.homelab_cluster }
    "istio-ca-signer-${var.nas_cluster}"     = { file = "istio-ca-signer", cluster = var.nas_cluster }
  } : {}
  homelab_policies = concat(
    [vault_policy.gate["istio-ca-bootstrap"].name],
    [for name in ["istio-ca-root", "istio-ca-signer-${var.homelab_cluster}"] : vault_policy.signing[name].name if var.signing],
  )
  nas_policies = concat(
    [vault_policy.gate["istio-ca-sync"].name],
    [for name in ["istio-ca-signer-${var.nas_cluster}"] : vault_policy.signing[name].name if var.signing],
  )

  pem_public_key  = "-----BEGIN [A-Z ]*PUBLIC KEY-----[^-]*-----END [A-Z ]*PUBLIC KEY-----"
  nas_public_keys = regexall(local.pem_public_key, var.nas_public_keys_pem == null ? "" : var.nas_public_keys_pem)
}

resource "vault_mount" "secret" {
  count = var.manage_engine ? 1 : 0

  path    = "secret"
  type    = "kv"
  options = { version = "2" }

  lifecycle {
    # The root of all clusters is in it.
    prevent_destroy = true
  }
}

resource "vault_policy" "gate" {
  for_each = local.policies

  name   = each.key
  policy = file("${path.module}/../${each.key}.hcl")
}

# The root's key in the PKI engine

resource "vault_mount" "roots" {
  count = var.signing && var.manage_pki_engine ? 1 : 0

  path = var.pki_mount
  type = "pki"
  # A root is shortened to this without a word, and its signers with it.
  max_lease_ttl_seconds = 315360000

  lifecycle {
    # The root's key is in it, and nowhere else.
    prevent_destroy = true
  }
}

resource "vault_policy" "signing" {
  for_each = local.signing

  name = each.key
  policy = replace(
    replace(file("${path.module}/../${each.value.file}.hcl"), "CLUSTER", each.value.cluster),
    "pki-mesh/", "${var.pki_mount}/",
  )
}

# Who changes the root: an account of its own, which no gate has.
resource "vault_kubernetes_auth_backend_role" "rotate" {
  count      = var.signing ? 1 : 0
  depends_on = [vault_auth_backend.homelab]

  backend                          = var.homelab_mount
  role_name                        = "istio-ca-rotate"
  bound_service_account_names      = ["istio-ca-rotate"]
  bound_service_account_namespaces = ["istio-system"]
  audience                         = "vault"
  token_policies                   = [vault_policy.signing["istio-ca-rotate"].name]
  token_ttl                        = local.token_ttl
  token_max_ttl                    = local.token_max_ttl
}

# The homelab

resource "vault_auth_backend" "homelab" {
  count = var.manage_homelab_mount ? 1 : 0

  path = var.homelab_mount
  type = "kubernetes"
}

resource "vault_kubernetes_auth_backend_config" "homelab" {
  count = var.manage_homelab_mount ? 1 : 0

  backend                       = vault_auth_backend.homelab[0].path
  kubernetes_host               = var.homelab_host
  kubernetes_ca_cert            = var.homelab_ca_pem
  token_reviewer_jwt_wo         = var.homelab_reviewer_token
  token_reviewer_jwt_wo_version = var.homelab_ca_pem == null ? null : var.reviewer_token_version
  disable_local_ca_jwt          = var.homelab_ca_pem != null
}

resource "vault_kubernetes_auth_backend_role" "homelab" {
  depends_on = [vault_auth_backend.homelab]

  backend                          = var.homelab_mount
  role_name                        = "istio-ca-bootstrap"
  bound_service_account_names      = ["istio-ca-gate", "istio-ca-bootstrap"]
  bound_service_account_namespaces = ["istio-system"]
  audience                         = "vault"
  token_policies                   = local.homelab_policies
  token_ttl                        = local.token_ttl
  token_max_ttl                    = local.token_max_ttl
}

# The NAS, by the signature of its tokens

resource "vault_jwt_auth_backend" "nas" {
  count = var.nas_by == "signature" ? 1 : 0

  path                   = var.nas_mount
  type                   = "jwt"
  bound_issuer           = var.nas_issuer
  jwt_validation_pubkeys = local.nas_public_keys

  lifecycle {
    precondition {
      condition     = length(local.nas_public_keys) > 0
      error_message = "nas_by = signature needs nas_public_keys_pem: ../public-keys.sh nas."
    }
    precondition {
      condition     = !can(regex("PRIVATE KEY", var.nas_public_keys_pem))
      error_message = "nas_public_keys_pem has a private key in it. That belongs to the control plane alone."
    }
  }
}

resource "vault_jwt_auth_backend_role" "nas" {
  count = var.nas_by == "signature" ? 1 : 0

  backend         = vault_jwt_auth_backend.nas[0].path
  role_name       = "istio-ca-sync"
  role_type       = "jwt"
  user_claim      = "sub"
  bound_audiences = ["vault"]
  bound_claims    = { sub = "system:serviceaccount:istio-system:istio-ca-gate,system:serviceaccount:istio-system:istio-ca-sync" }
  token_policies  = local.nas_policies
  token_ttl       = local.token_ttl
  token_max_ttl   = local.token_max_ttl
}

# The NAS, by the review of its API server

resource "vault_auth_backend" "nas" {
  count = var.nas_by == "review" ? 1 : 0

  path = var.nas_mount
  type = "kubernetes"
}

resource "vault_kubernetes_auth_backend_config" "nas" {
  count = var.nas_by == "review" ? 1 : 0

  backend                       = vault_auth_backend.nas[0].path
  kubernetes_host               = var.nas_host
  kubernetes_ca_cert            = var.nas_ca_pem
  token_reviewer_jwt_wo         = var.nas_reviewer_token
  token_reviewer_jwt_wo_version = var.reviewer_token_version
  disable_local_ca_jwt          = true
}

resource "vault_kubernetes_auth_backend_role" "nas" {
  count = var.nas_by == "review" ? 1 : 0

  backend                          = vault_auth_backend.nas[0].path
  role_name                        = "istio-ca-sync"
  bound_service_account_names      = ["istio-ca-gate", "istio-ca-sync"]
  bound_service_account_namespaces = ["istio-system"]
  audience                         = "vault"
  token_policies                   = local.nas_policies
  token_ttl                        = local.token_ttl
  token_max_ttl                    = local.token_max_ttl
}
