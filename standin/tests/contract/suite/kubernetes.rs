//! The API server: objects, lists, watches, patches, ownership of fields, rights, tokens, tables.

mod apply;
mod discovery;
mod kinds;
mod lists;
mod namespaces;
mod objects;
mod patches;
mod rights;
mod secrets;
mod status;
mod tables;
mod tokens;
mod watches;

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use testbed::{KubernetesApi, eventually};

use self::apply::*;
use self::discovery::*;
use self::kinds::*;
use self::lists::*;
use self::namespaces::*;
use self::objects::*;
use self::patches::*;
use self::rights::*;
use self::secrets::*;
use self::status::*;
use self::tables::*;
use self::tokens::*;
use self::watches::*;
use super::{Case, SOON, cases};

/// All cases, by subject.
pub const CASES: &[Case<KubernetesApi>] = cases![
    // objects
    a_new_object_gets_its_metadata,
    an_object_is_made_once,
    a_generated_name_has_five_letters_more,
    an_object_needs_a_name,
    an_object_needs_a_right_name,
    a_namespace_that_is_not_there_takes_no_object,
    an_object_is_of_the_namespace_and_name_of_its_path,
    a_body_is_of_its_kind,
    a_body_is_json,
    a_new_object_has_no_version,
    what_is_not_there_is_not_found,
    an_update_needs_the_version_that_was_read,
    an_update_without_a_version_is_done,
    an_update_of_another_object_of_that_name_is_refused,
    what_changes_nothing_makes_no_version,
    a_deletion_tells_what_was_deleted,
    a_deletion_holds_to_its_preconditions,
    a_finalizer_keeps_what_was_deleted,
    a_job_is_deleted_without_its_pods_unless_it_is_said_otherwise,
    a_dry_run_stores_nothing,
    options_that_are_not_known_are_refused,
    labels_annotations_and_owners_are_checked,
    // lists
    a_list_tells_its_kind_and_its_items_do_not,
    a_list_comes_in_pages_of_one_version,
    a_page_of_all_namespaces_goes_on_in_the_next_one,
    labels_select,
    fields_select,
    events_are_selected_by_what_they_are_about,
    events_are_selected_by_who_made_them,
    a_list_may_not_be_of_the_future,
    a_token_that_is_none_does_not_go_on,
    what_is_selected_is_deleted_at_once,
    // watches
    a_watch_tells_what_happens_after_a_version,
    a_watch_from_no_version_begins_with_what_is_there,
    a_watch_of_one_name_tells_of_that_object_only,
    an_object_comes_into_the_sight_of_a_watch_and_goes_out_of_it,
    a_watch_ends_when_its_time_is_over,
    a_watch_can_begin_with_all_objects_and_a_bookmark,
    a_watch_of_all_namespaces_tells_of_all,
    a_pod_that_is_deleted_is_marked_first,
    // patches
    a_merge_patch_sets_and_removes,
    a_merge_patch_that_empties_a_map_removes_it,
    a_merge_patch_is_a_map,
    a_patch_does_not_rename,
    a_json_patch_is_done_in_steps,
    a_json_patch_that_cannot_be_done_is_not_done,
    a_strategic_patch_merges_lists_by_their_keys,
    a_strategic_patch_has_directives,
    a_patch_is_of_a_known_kind,
    // apply
    an_apply_makes_what_is_not_there,
    an_apply_is_written_in_yaml,
    an_apply_needs_a_manager_a_kind_and_a_name,
    what_another_owns_is_a_conflict,
    who_updates_owns_too,
    what_is_no_longer_applied_goes_unless_another_owns_it,
    an_apply_owns_items_of_lists_by_their_keys,
    an_apply_may_name_the_version_that_it_is_over,
    an_injected_ca_bundle_survives_an_apply_without_it,
    // status
    a_status_patch_changes_metadata_and_nothing_of_the_spec,
    a_patch_of_the_object_changes_nothing_of_the_status,
    a_pods_conditions_are_merged_by_their_type,
    what_has_no_status_has_no_such_path,
    // kinds
    a_pod_gets_its_defaults_its_account_and_its_tolerations,
    a_pods_quality_is_told_by_its_resources,
    a_pod_needs_containers_and_its_account,
    workloads_get_their_defaults,
    a_job_is_told_by_its_uid,
    a_deployments_selector_is_its_pods_and_for_good,
    a_service_gets_its_address_and_defaults,
    an_event_is_kept_where_its_object_is,
    webhooks_get_their_defaults_and_are_checked,
    a_bindings_role_is_for_good,
    // secrets
    strings_of_a_secret_become_data,
    data_of_a_secret_is_base64,
    keys_of_data_are_checked,
    a_secrets_type_is_for_good,
    what_is_immutable_does_not_change,
    a_config_map_holds_text_and_bytes,
    // namespaces
    a_namespace_has_an_account_and_the_ca_in_it,
    an_account_that_a_namespace_needs_comes_back,
    a_namespace_tells_its_name_in_a_label,
    a_deleted_namespace_goes_with_all_that_is_in_it,
    a_namespace_waits_for_the_finalizers_in_it_and_takes_nothing_new,
    the_first_namespaces_stay,
    // rights
    nobody_is_anonymous_and_may_little,
    an_account_without_rights_may_ask_what_there_is,
    a_rule_may_name_objects,
    a_rule_is_for_subresources_or_for_all,
    a_binding_gives_a_cluster_role_in_its_namespace_only,
    a_role_that_is_not_there_is_told_of,
    a_review_tells_who_may_do_what,
    the_gate_may_do_what_its_manifests_say_and_no_more,
    // tokens
    a_token_tells_whose_it_is_and_for_whom,
    a_token_is_for_the_api_and_an_hour_unless_wished_otherwise,
    a_token_opens_the_api_if_it_is_for_it,
    a_token_ends_with_its_account,
    a_review_tells_whose_token_it_is,
    a_review_tells_what_is_wrong_with_a_token,
    the_keys_of_tokens_are_public,
    // discovery
    it_is_ready,
    groups_and_versions_are_listed,
    resources_are_listed,
    what_is_not_served_is_not_found,
    the_first_roles_are_there,
    // tables
    secrets_and_config_maps_show_how_much_they_hold,
    a_row_has_as_much_of_its_object_as_is_asked_for,
    one_object_is_a_table_of_one_row,
    pods_and_their_owners_show_how_they_are,
    events_show_what_they_are_about,
    a_watch_shows_tables_too,
];

/// Longest wait for the next event of a watch.
const EVENT: Duration = Duration::from_secs(10);

pub const MERGE: &str = "application/merge-patch+json";
pub const JSON: &str = "application/json-patch+json";
pub const STRATEGIC: &str = "application/strategic-merge-patch+json";
pub const APPLY: &str = "application/apply-patch+yaml";

/// A namespace for one case.
pub struct Space<'a> {
    pub cluster: &'a KubernetesApi,
    pub name: String,
}

impl<'a> Space<'a> {
    /// Makes it, and waits for what the controllers put into it.
    pub async fn new(cluster: &'a KubernetesApi) -> Result<Self> {
        static MADE: AtomicU32 = AtomicU32::new(1);
        let name = format!("case-{}", MADE.fetch_add(1, Ordering::Relaxed));
        let (status, answer) =
            cluster.request("POST", "/api/v1/namespaces", Some(json!({"metadata": {"name": name}}))).await?;
        ensure!(status == 201, "{status}: {answer}");
        let space = Self { cluster, name };
        for furniture in ["serviceaccounts/default", "configmaps/kube-root-ca.crt"] {
            let there = || async {
                let (status, answer) = space.get(furniture).await?;
                ensure!(status == 200, "{status}: {answer}");
                Ok(())
            };
            eventually(furniture, SOON, there).await?;
        }
        Ok(space)
    }

    /// `secrets/x` or `apps/v1/deployments/x` within it.
    pub fn path(&self, of: &str) -> String {
        match of.split_once("/v1/") {
            Some((group, rest)) => format!("/apis/{group}/v1/namespaces/{}/{rest}", self.name),
            None => format!("/api/v1/namespaces/{}/{of}", self.name),
        }
    }

    pub async fn get(&self, of: &str) -> Result<(u16, Value)> {
        self.cluster.request("GET", &self.path(of), None).await
    }

    pub async fn post(&self, of: &str, body: Value) -> Result<(u16, Value)> {
        self.cluster.request("POST", &self.path(of), Some(body)).await
    }

    pub async fn put(&self, of: &str, body: Value) -> Result<(u16, Value)> {
        self.cluster.request("PUT", &self.path(of), Some(body)).await
    }

    pub async fn delete(&self, of: &str, options: Option<Value>) -> Result<(u16, Value)> {
        self.cluster.request("DELETE", &self.path(of), options).await
    }

    pub async fn patch(&self, of: &str, kind: &str, patch: Value) -> Result<(u16, Value)> {
        let headers = [("content-type", kind), ("user-agent", "contract/1.0 (linux)")];
        send(self.cluster, "PATCH", &self.path(of), &headers, Some(patch.to_string())).await
    }

    /// Creates an object that has to be granted.
    pub async fn made(&self, of: &str, body: Value) -> Result<Value> {
        let (status, answer) = self.post(of, body).await?;
        ensure!(status == 201, "{status}: {answer}");
        Ok(answer)
    }
}

/// A request with all rights and these headers.
pub async fn send(
    cluster: &KubernetesApi,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: Option<String>,
) -> Result<(u16, Value)> {
    let answer = cluster.raw(Some(cluster.admin_token()), method, path, headers, body).await?;
    let status = answer.status().as_u16();
    let text = answer.text().await?;
    Ok((status, serde_json::from_str(&text).unwrap_or(Value::String(text))))
}

/// A failure, with all of its fields.
pub fn failure(code: u16, reason: &str, message: &str, details: Value) -> (u16, Value) {
    let mut status = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": message, "reason": reason, "details": details, "code": code,
    });
    if let Some(fields) = status.as_object_mut() {
        fields.retain(|field, value| !value.is_null() && (field != "reason" || value != ""));
    }
    (code, status)
}

/// That an object of a kind is invalid in one field.
pub fn invalid(kind: &str, name: &str, reason: &str, field: &str, why: &str) -> (u16, Value) {
    let (plain_kind, group) = kind.split_once('.').unwrap_or((kind, ""));
    let mut details = json!({"name": name, "kind": plain_kind,
        "causes": [{"reason": reason, "message": why, "field": field}]});
    if !group.is_empty() {
        details["group"] = group.into();
    }
    failure(422, "Invalid", &format!("{kind} {name:?} is invalid: {field}: {why}"), details)
}

/// The same with what differs from run to run left out of account.
pub fn steady(value: &Value) -> Value {
    match value {
        Value::Object(fields) => fields.iter().map(|(name, value)| (name.clone(), steady_field(name, value))).collect(),
        Value::Array(items) => items.iter().map(steady).collect(),
        other => other.clone(),
    }
}

fn steady_field(name: &str, value: &Value) -> Value {
    match (name, value) {
        ("uid" | "resourceVersion", Value::String(_)) => "?".into(),
        ("time" | "creationTimestamp" | "deletionTimestamp", Value::String(_)) => "?".into(),
        (_, value) => steady(value),
    }
}

/// The metadata of a new object, as [`steady`] shows it.
pub fn metadata(space: &Space<'_>, name: &str) -> Value {
    json!({"name": name, "namespace": space.name, "uid": "?", "resourceVersion": "?", "creationTimestamp": "?"})
}

/// An entry of managedFields, as [`steady`] shows it.
pub fn entry(manager: &str, operation: &str, api_version: &str, fields: Value) -> Value {
    json!({"manager": manager, "operation": operation, "apiVersion": api_version, "time": "?",
        "fieldsType": "FieldsV1", "fieldsV1": fields})
}

/// That both are the same, or how they differ.
pub fn same<T: PartialEq + std::fmt::Debug>(is: T, wanted: T) -> Result<()> {
    ensure!(is == wanted, "\n    is {is:?}\nwanted {wanted:?}");
    Ok(())
}

/// The version of an object or a list.
pub fn version(object: &Value) -> &str {
    object["metadata"]["resourceVersion"].as_str().unwrap_or_default()
}

/// The events of a watch.
pub struct Events {
    answer: reqwest::Response,
    unread: Vec<u8>,
}

impl Events {
    /// Watches with all rights.
    pub async fn open(cluster: &KubernetesApi, path: &str) -> Result<Self> {
        Self::of(cluster.raw(Some(cluster.admin_token()), "GET", path, &[], None).await?).await
    }

    /// Those of an answer.
    pub async fn of(answer: reqwest::Response) -> Result<Self> {
        ensure!(answer.status() == 200, "{}: {}", answer.status(), answer.text().await?);
        Ok(Self { answer, unread: Vec::new() })
    }

    /// The next event; none once the watch has ended.
    pub async fn next(&mut self) -> Result<Option<Value>> {
        loop {
            if let Some(end) = self.unread.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.unread.drain(..=end).collect();
                return Ok(Some(serde_json::from_slice(&line)?));
            }
            let chunk = tokio::time::timeout(EVENT, self.answer.chunk()).await.context("no event")??;
            match chunk {
                Some(chunk) => self.unread.extend_from_slice(&chunk),
                None => return Ok(None),
            }
        }
    }

    /// The next event's type and the name of its object.
    pub async fn next_name(&mut self) -> Result<(String, String)> {
        let Some(event) = self.next().await? else { bail!("the watch has ended") };
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        Ok((text(&event["type"]), text(&event["object"]["metadata"]["name"])))
    }
}
