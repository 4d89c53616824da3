//! Vault: KV version 1 and 2, mounts, PKI, policies, tokens, health, the seal, and the words of its refusals.

mod auth;
mod kv;
mod mounts;
mod pki;
mod policies;
mod seal;
mod secrets;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use testbed::VaultApi;

use super::{Case, cases};
use auth::*;
use kv::*;
use mounts::*;
use pki::*;
pub use policies::rounded;
use policies::*;
use seal::*;
use secrets::*;

pub const CASES: &[Case<VaultApi>] = cases![
    // kv
    a_path_that_was_never_written_has_no_errors,
    a_write_tells_its_version_and_a_read_gives_it_back,
    a_version_is_read_by_its_number,
    check_and_set_zero_creates_once,
    check_and_set_takes_the_current_version_only,
    of_twenty_that_create_at_once_one_wins,
    a_write_without_data_is_refused,
    a_body_that_is_no_json_object_is_refused,
    a_patch_changes_what_it_names,
    a_patch_needs_something_to_change,
    paths_that_version_2_does_not_have_are_astray,
    methods_that_a_path_does_not_have_are_refused,
    // secrets
    a_deleted_version_leaves_its_metadata,
    a_destroyed_version_leaves_its_metadata,
    versions_are_deleted_and_undeleted_by_number,
    nothing_happens_to_versions_that_are_not_there,
    check_and_set_zero_is_refused_after_a_soft_delete_and_a_destroy,
    a_secret_without_metadata_was_never_written,
    metadata_tell_of_every_version,
    metadata_alone_make_no_version,
    secrets_are_listed_by_folder,
    the_oldest_version_goes_when_there_are_too_many,
    ten_versions_are_kept_by_default,
    a_version_is_deleted_by_itself_after_its_time,
    check_and_set_can_be_required_of_a_secret_and_of_a_mount,
    the_settings_of_a_mount_are_kept,
    // mounts
    version_1_ignores_check_and_set,
    a_path_that_was_never_written_is_the_same_in_version_1,
    version_1_lists_and_deletes,
    a_missing_mount_is_told_by_its_route,
    what_was_mounted_is_gone_when_it_is_unmounted,
    a_mount_needs_a_free_path_and_a_known_kind,
    mounts_are_listed_with_kind_and_options,
    the_preflight_tells_the_version_of_a_mount,
    the_preflight_of_a_path_in_a_mount_tells_of_that_mount,
    the_preflight_tells_whoever_has_a_right_below_the_mount,
    the_preflight_refuses_without_a_right_and_without_a_mount_alike,
    mounts_are_shown_to_whoever_has_a_right_in_them,
    // policies
    the_bootstrap_policy_creates_and_never_overwrites,
    of_twenty_with_the_bootstrap_policy_one_creates,
    the_sync_policy_only_reads,
    two_stanzas_for_one_path_add_up,
    without_a_token_nothing_is_told,
    an_unknown_token_is_told_apart_from_a_missing_right,
    whether_a_write_creates_is_asked_of_the_metadata,
    a_list_needs_its_own_right,
    the_most_specific_rule_decides,
    a_denial_outweighs_every_other_policy,
    a_policy_is_kept_as_it_was_written,
    a_policy_in_json_is_one_too,
    what_is_no_policy_is_refused,
    a_token_tells_of_itself,
    a_token_ends_with_its_time,
    a_token_can_end_itself,
    a_token_ends_with_its_parent,
    a_token_makes_none_that_may_more,
    capabilities_are_told_by_path,
    // pki
    a_root_is_made_once_by_its_name,
    of_eight_that_make_one_root_one_makes_it,
    without_a_name_each_request_makes_another_root,
    a_root_is_asked_for_in_vaults_terms,
    an_issuer_is_told_without_a_token,
    an_issuer_that_is_not_there_is_an_error_of_the_server,
    where_no_pki_engine_is_mounted_a_right_tells_it,
    a_signer_is_certified_as_it_is_asked_for,
    what_is_not_said_of_a_signer_is_taken_from_elsewhere,
    a_signer_that_would_outlive_its_issuer_is_cut_or_refused,
    a_mount_that_is_not_tuned_shortens_what_it_gives,
    a_retired_issuer_certifies_nothing_until_it_is_brought_back,
    a_policy_pins_what_may_be_asked_for,
    an_empty_text_is_among_any_values_unless_it_is_denied,
    constraints_of_two_stanzas_for_one_path_add_up,
    a_policy_lets_one_thing_of_an_issuer_be_changed,
    a_root_is_brought_along_with_its_key,
    a_cross_keeps_the_other_roots_name_key_and_ends,
    an_issuer_without_its_key_certifies_nothing_until_the_key_comes,
    // seal
    health_tells_which_vault_it_is,
    a_sealed_vault_answers_nothing_else,
    one_server_has_no_leader,
    what_was_written_outlives_a_seal,
    a_seal_between_read_and_write_writes_nothing,
    a_wrong_key_does_not_unseal,
    sealing_needs_a_right,
    // auth
    auth_methods_are_listed_and_removed,
    a_role_of_kind_kubernetes_is_kept,
    a_role_of_kind_jwt_is_kept,
    a_login_that_is_not_configured_is_refused,
    a_configuration_that_lacks_something_is_refused,
    paths_that_nobody_has_are_unsupported,
];

/// In a pattern: whatever differs between runs, but is a text that is not empty.
pub const ANY: &str = "<any>";

/// One who asks a Vault.
pub struct Caller<'a> {
    vault: &'a VaultApi,
    token: Option<String>,
}

/// An answer, and to what.
#[derive(Debug)]
pub struct Answered {
    asked: String,
    pub status: u16,
    pub body: Value,
}

impl<'a> Caller<'a> {
    pub fn root(vault: &'a VaultApi) -> Self {
        Self::with(vault, vault.root_token())
    }

    pub fn nobody(vault: &'a VaultApi) -> Self {
        Self { vault, token: None }
    }

    pub fn with(vault: &'a VaultApi, token: &str) -> Self {
        Self { vault, token: Some(token.to_owned()) }
    }

    /// One with these rights alone.
    pub async fn who_may(vault: &'a VaultApi, policy: &str) -> Result<Self> {
        vault.policy("case", policy).await?;
        Self::of(vault, &["case"]).await
    }

    /// One with these policies.
    pub async fn of(vault: &'a VaultApi, policies: &[&str]) -> Result<Self> {
        let body = json!({ "policies": policies, "ttl": "1h" });
        let made = vault.ok("POST", "auth/token/create", Some(body)).await?;
        Ok(Self::with(vault, made["auth"]["client_token"].as_str().context("no token")?))
    }

    pub async fn get(&self, path: &str) -> Result<Answered> {
        self.ask("GET", path, None).await
    }

    pub async fn list(&self, path: &str) -> Result<Answered> {
        self.ask("LIST", path, None).await
    }

    pub async fn delete(&self, path: &str) -> Result<Answered> {
        self.ask("DELETE", path, None).await
    }

    pub async fn post(&self, path: &str, body: Value) -> Result<Answered> {
        self.ask("POST", path, Some(body)).await
    }

    pub async fn ask(&self, method: &str, path: &str, body: Option<Value>) -> Result<Answered> {
        let asked = format!("{method} {path} {}", body.clone().unwrap_or_default());
        let (status, body) = self.vault.api_with(self.token.as_deref(), method, path, body).await?;
        Ok(Answered { asked, status, body })
    }
}

impl Answered {
    /// Expects this answer, in which only what is [`ANY`] may be another text.
    pub fn is(self, status: u16, pattern: Value) -> Result<Self> {
        let difference = difference(&pattern, &self.body, "");
        ensure!(
            self.status == status && difference.is_none(),
            "{}: {}: {}\nexpected {status}: {pattern}\n{}",
            self.asked,
            self.status,
            self.body,
            difference.unwrap_or_default(),
        );
        Ok(self)
    }

    /// Expects data in the usual envelope.
    pub fn gives(self, kind: &str, data: Value) -> Result<Self> {
        self.is(200, envelope(kind, data))
    }

    /// Expects that it was done, and nothing was said.
    pub fn done(self) -> Result<Self> {
        self.is(204, Value::Null)
    }

    /// Expects a refusal in one text.
    pub fn refuses(self, status: u16, error: &str) -> Result<Self> {
        self.is(status, json!({ "errors": [error] }))
    }

    /// Expects that nothing is found, or for no reason that is told.
    pub fn silent(self, status: u16) -> Result<Self> {
        self.is(status, json!({ "errors": [] }))
    }

    /// Expects a warning and nothing else.
    pub fn warns(self, status: u16, kind: &str, warning: &str) -> Result<Self> {
        let mut pattern = envelope(kind, Value::Null);
        pattern["warnings"] = json!([warning]);
        self.is(status, pattern)
    }
}

/// The token's policies do not grant it.
pub const DENIED: &str = "1 error occurred:\n\t* permission denied\n\n";

/// There is no such token.
pub const UNKNOWN_TOKEN: &str = "2 errors occurred:\n\t* permission denied\n\t* invalid token\n\n";

/// Check-and-set.
pub const CAS_MISMATCH: &str = "check-and-set parameter did not match the current version";

pub fn envelope(kind: &str, data: Value) -> Value {
    json!({
        "request_id": ANY, "lease_id": "", "renewable": false, "lease_duration": 0, "data": data, "wrap_info": null,
        "warnings": null, "auth": null, "mount_type": kind,
    })
}

/// Where a value differs from a pattern.
fn difference(pattern: &Value, value: &Value, at: &str) -> Option<String> {
    match (pattern, value) {
        (Value::String(any), Value::String(text)) if any == ANY && !text.is_empty() => None,
        (Value::Object(pattern), Value::Object(object)) => {
            let unknown =
                object.keys().find(|key| !pattern.contains_key(*key)).map(|key| format!("{at}/{key}: too much"));
            unknown.or_else(|| {
                pattern.iter().find_map(|(key, pattern)| match object.get(key) {
                    Some(value) => difference(pattern, value, &format!("{at}/{key}")),
                    None => Some(format!("{at}/{key}: missing")),
                })
            })
        }
        (Value::Array(pattern), Value::Array(items)) if pattern.len() == items.len() => {
            let pairs = pattern.iter().zip(items).enumerate();
            pairs.into_iter().find_map(|(index, (pattern, item))| difference(pattern, item, &format!("{at}/{index}")))
        }
        (pattern, value) => (pattern != value).then(|| format!("{at}: {value} instead of {pattern}")),
    }
}
