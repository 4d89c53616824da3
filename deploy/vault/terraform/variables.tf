variable "manage_engine" {
  description = "Whether KV version 2 at secret/ is made here. false: it is there."
  type        = bool
  default     = true
}

variable "signing" {
  description = "Whether the root's key is to stay in Vault's PKI engine, with a signer for each cluster: docs/signing.md. false: the key is in the record."
  type        = bool
  default     = false
}

variable "manage_pki_engine" {
  description = "For signing: whether the PKI engine is made here. false: it is there, and may give ten years (max_lease_ttl)."
  type        = bool
  default     = true
}

variable "pki_mount" {
  description = "For signing: where the PKI engine is."
  type        = string
  default     = "pki-mesh"

  validation {
    condition     = can(regex("^[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+)*$", var.pki_mount))
    error_message = "A path of A-Z, a-z, 0-9, _ and -, without a slash at its ends."
  }
}

variable "homelab_cluster" {
  description = "For signing: the homelab's name, as GATE_CLUSTER has it."
  type        = string
  default     = "homelab"

  validation {
    # In a policy, a * would stand for any other cluster's name.
    condition     = can(regex("^[A-Za-z0-9._-]+$", var.homelab_cluster))
    error_message = "A name of A-Z, a-z, 0-9, ., _ and -."
  }
}

variable "nas_cluster" {
  description = "For signing: the NAS's name, as GATE_CLUSTER has it."
  type        = string
  default     = "nas"

  validation {
    condition     = can(regex("^[A-Za-z0-9._-]+$", var.nas_cluster))
    error_message = "A name of A-Z, a-z, 0-9, ., _ and -."
  }

  validation {
    condition     = var.nas_cluster != var.homelab_cluster
    error_message = "Each cluster needs a name of its own."
  }
}

variable "manage_homelab_mount" {
  description = "Whether the homelab's auth mount and its config are made here. false: they are there, and others log in by them."
  type        = bool
  default     = true
}

variable "homelab_mount" {
  description = "The homelab's auth mount, of type kubernetes."
  type        = string
  default     = "kubernetes"

  validation {
    condition     = can(regex("^[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+)*$", var.homelab_mount))
    error_message = "A path of A-Z, a-z, 0-9, _ and -, without a slash at its ends."
  }
}

variable "homelab_host" {
  description = "The homelab's API server, as Vault reaches it."
  type        = string
  default     = "https://kubernetes.default.svc:443"

  validation {
    condition     = startswith(var.homelab_host, "https://")
    error_message = "A URL that begins with https://."
  }
}

variable "homelab_ca_pem" {
  description = "The CA of the homelab's API server, in PEM. Only if Vault does not run in that cluster."
  type        = string
  default     = null

  validation {
    condition     = (var.homelab_ca_pem == null) == (var.homelab_reviewer_token == null)
    error_message = "homelab_ca_pem and homelab_reviewer_token go together."
  }
}

variable "homelab_reviewer_token" {
  description = "A token that may review others in the homelab (token-reviewer.yaml). Only if Vault does not run in that cluster."
  type        = string
  default     = null
  sensitive   = true
  ephemeral   = true
}

variable "nas_by" {
  description = "What Vault does with a token of the NAS. signature: checks it with the cluster's public keys. review: asks the cluster's API server."
  type        = string
  default     = "signature"

  validation {
    condition     = contains(["signature", "review"], var.nas_by)
    error_message = "signature or review."
  }
}

variable "nas_mount" {
  description = "The NAS's auth mount. Each cluster needs one of its own."
  type        = string
  default     = "kubernetes-nas"

  validation {
    condition     = can(regex("^[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+)*$", var.nas_mount))
    error_message = "A path of A-Z, a-z, 0-9, _ and -, without a slash at its ends."
  }

  validation {
    condition     = var.nas_mount != var.homelab_mount
    error_message = "Each cluster needs an auth mount of its own."
  }
}

variable "nas_issuer" {
  description = "For signature: the issuer of the NAS's service-account tokens."
  type        = string
  default     = null

  validation {
    condition     = var.nas_by != "signature" || try(length(var.nas_issuer) > 0, false)
    error_message = "nas_by = signature needs nas_issuer: kubectl get --raw /.well-known/openid-configuration."
  }
}

variable "nas_public_keys_pem" {
  description = "For signature: the public keys of the NAS's service-account tokens, in PEM, one after the other, as ../public-keys.sh prints them."
  type        = string
  default     = null
  # Not secret; but a private key that is given by mistake must not be shown with the refusal. A validation here would
  # show it all the same: the conditions are at vault_jwt_auth_backend.nas.
  sensitive = true
}

variable "nas_host" {
  description = "For review: the NAS's API server, as Vault reaches it."
  type        = string
  default     = null

  validation {
    condition     = var.nas_by != "review" || try(startswith(var.nas_host, "https://"), false)
    error_message = "nas_by = review needs nas_host, a URL that begins with https://."
  }
}

variable "nas_ca_pem" {
  description = "For review: the CA of the NAS's API server, in PEM."
  type        = string
  default     = null

  validation {
    condition     = var.nas_by != "review" || can(regex("-----BEGIN CERTIFICATE-----", var.nas_ca_pem))
    error_message = "nas_by = review needs nas_ca_pem."
  }
}

variable "nas_reviewer_token" {
  description = "For review: a token that may review others in the NAS (token-reviewer.yaml)."
  type        = string
  default     = null
  sensitive   = true
  ephemeral   = true

  validation {
    condition     = var.nas_by != "review" || try(length(var.nas_reviewer_token) > 0, false)
    error_message = "nas_by = review needs nas_reviewer_token."
  }
}

variable "reviewer_token_version" {
  description = "Count it up to have the reviewers' tokens written again: Vault does not tell which it has."
  type        = number
  default     = 1
}
