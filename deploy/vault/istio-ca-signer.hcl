# Beside istio-ca-bootstrap or istio-ca-sync, where the root's key stays in Vault: what the gate of cluster CLUSTER may have
# certified, which is its own signer. setup.sh and Terraform write one for each cluster, as istio-ca-signer-CLUSTER.
path "pki-mesh/issuer/+/sign-intermediate" {
  capabilities        = ["update"]
  required_parameters = ["csr", "common_name", "ttl", "max_path_length"]

  allowed_parameters = {
    "csr"                 = []
    "common_name"         = ["Istio Intermediate CA CLUSTER"]
    "organization"        = ["Istio"]
    "ttl"                 = ["2160h"]
    "max_path_length"     = ["0"]
    "not_before_duration" = ["1h"]
    "format"              = ["pem"]
  }

  # Vault takes every text for a list, and an empty one has nothing in it that is not allowed. With an empty common_name the
  # name would be that of the request: any other cluster's.
  denied_parameters = {
    "common_name"         = [""]
    "ttl"                 = [""]
    "max_path_length"     = [""]
    "not_before_duration" = [""]
  }
}

# What it says of itself, for a change of roots.
path "secret/data/istio/clusters/CLUSTER" {
  capabilities = ["create", "read", "update"]
}
