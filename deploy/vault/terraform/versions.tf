terraform {
  # Write-only arguments, which keep the reviewer's token out of the state.
  required_version = ">= 1.11"

  required_providers {
    vault = {
      source = "hashicorp/vault"
      # 5.7: token_reviewer_jwt_wo
      version = ">= 5.7, < 6.0"
    }
  }
}

# Address, token and namespace: VAULT_ADDR, VAULT_CACERT, VAULT_TOKEN, VAULT_NAMESPACE.
provider "vault" {}
