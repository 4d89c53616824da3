# Beside istio-ca-bootstrap, where the root's key stays in Vault: the first root, once, and as it has to be. Without the name
# that is required, each request would make another one.
path "pki-mesh/root/generate/internal" {
  capabilities        = ["update"]
  required_parameters = ["issuer_name", "common_name", "ttl", "key_type", "key_bits"]

  allowed_parameters = {
    "issuer_name"          = ["root-1"]
    "common_name"          = ["Istio Root CA root-1"]
    "organization"         = ["Istio"]
    "ttl"                  = ["87600h"]
    "key_type"             = ["rsa"]
    "key_bits"             = ["4096"]
    "not_before_duration"  = ["1h"]
    "exclude_cn_from_sans" = ["true"]
    "format"               = ["pem"]
  }

  denied_parameters = {
    "issuer_name" = [""]
    "common_name" = [""]
    "ttl"         = [""]
    "key_type"    = [""]
    "key_bits"    = [""]
  }
}

# That no signer outlives it.
path "pki-mesh/issuer/root-1" {
  capabilities        = ["patch"]
  required_parameters = ["leaf_not_after_behavior"]

  allowed_parameters = {
    "leaf_not_after_behavior" = ["always_enforce_err"]
  }

  denied_parameters = {
    "leaf_not_after_behavior" = [""]
  }
}
