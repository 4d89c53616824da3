//! One object: made, read, changed, deleted.

use anyhow::{Result, ensure};
use serde_json::json;
use testbed::KubernetesApi;

use super::{MERGE, Space, entry, failure, invalid, metadata, same, send, steady, version};

pub async fn a_new_object_gets_its_metadata(cluster: &KubernetesApi) -> Result<()> {
    let space = Space::new(cluster).await?;
    let body = json!({"metadata": {"name": "a", "labels": {"x": "1"}, "uid": "mine"}, "data": {"k": "v"}});
    let headers = [("content-type", "application/json"), ("user-agent", "contract/1.0 (linux)")];
    let (status, made) = send(cluster, "POST", &space.path("configmaps"), &headers, Some(body.to_string())).await?;
    let mut wanted =
        json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": metadata(&space, "a"), "data": {"k": "v"}});
    wanted["metadata"]["labels"] = json!({"x": "1"});
    let fields = json!({"f:data": {".": {}, "f:k": {}}, "f:metadata": {"f:labels": {".": {}, "f:x": {}}}});
    wanted["metadata"]["managedFields"] = json!([entry("contract", "Update", "v1", fields)]);
    same((status, steady(&made)), (201, wanted))?;
    same(space.get("configmaps/a").await?, (200, made))
}

pub async fn an_object_is_made_once(cluster: &KubernetesApi) -> Result<()> {
    let space = Space::new(cluster).await?;
    space.made("secrets", json!({"metadata": {"name": "a"}})).await?;
    let again = space.post("secrets", json!({"metadata": {"name": "a"}})).await?;
    let details = json!({"name": "a", "kind": "secrets"});
    same(again, failure(409, "AlreadyExists", r#"secrets "a" already exists"#, details))
}

pub async fn a_generated_name_has_five_letters_more(cluster: &KubernetesApi) -> Result<()> {
    let space = Space::new(cluster).await?;
    let made = space.made("configmaps", json!({"metadata": {"generateName": "a-"}})).await?;
    let name = made["metadata"]["name"].as_str().unwrap_or_default();
    let letters = name.strip_prefix("a-").unwrap_or_default();
    let known = |c: char| "bcdfghjklmnpqrstvwxz2456789".contains(c);
    ensure!(letters.len() == 5 && letters.chars().all(known), "{made}");
    same(&made["metadata"]["generateName"], &json!("a-"))?;
    same(&made["metadata"]["managedFields"][0]["fieldsV1"], &json!({"f:metadata": {"f:generateName": {}}}))
}

pub async fn an_object_needs_a_name(cluster: &KubernetesApi) -> Result<()> {
    let space = Space::new(cluster).await?;
    let nameless = space.post("secrets", json!({"metadata": {}})).await?;
    let details = json!({"kind": "Secret", "causes": [{"reason": "FieldValueRequired",
        "message": "Required value: name or generateName is required", "field": "metadata.name"}]});
    let text = r#"Secret "" is invalid: metadata.name: Required value: name or generateName is required"#;
    same(nameless, failure(422, "Invalid", text, details))
}

pub async fn an_object_needs_a_right_name(cluster: &KubernetesApi) -> Result<()> {
    let space = Space::new(cluster).await?;
    let why = r#"Invalid value: "A": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"#;
    let answer = space.post("secrets", json!({"metadata": {"name": "A"}})).await?;
    same(answer, invalid("Secret", "A", "FieldValueInvalid", "metadata.name", why))?;
    let why = r#"Invalid value: "1a": a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')"#;
    let service = json!({"metadata": {"name": "1a"}, "spec": {"ports": [{"port": 1}]}});
    same(space.post("services", service).await?, invalid("Service", "1a", "FieldValueInvalid", "metadata.name", why))?;
    let why = r#"Invalid value: "a.b": must not contain dots"#;
    let answer = cluster.request("POST", "/api/v1/namespaces", Some(json!({"metadata": {"name": "a.b"}}))).await?;
    same(answer, invalid("Namespace", "a.b", "FieldValueInvalid", "metadata.name", why))
}

pub async fn a_namespace_that_is_not_there_takes_no_object(cluster: &KubernetesApi) -> Result<()> {
    let path = "/api/v1/namespaces/nowhere/secrets";
    let answer = cluster.request("POST", path, Some(json!({"metadata": {"name": "a"}}))).await?;
    let details = json!({"name": "nowhere", "kind": "namespaces"});
    same(answer, failure(404, "NotFound", r#"namespaces "nowhere" not found"#, details))?;
    let (status, list) = cluster.request("GET", path, None).await?;
    same((status, &list["items"]), (200, &json!([])))
}

pub async fn an_object_is_of_the_namespace_and_name_of_its_path(cluster: &KubernetesApi) -> Result<()> {
    let space = Space::new(cluster).await?;
    let answer = space.post("secrets", json!({"metadata": {"name": "a", "namespace": "b"}})).await?;
    let text = "the namespace of the provided object does not match the namespace sent on the request";
    same(answer, failure(400, "BadRequest", text, json!(null)))?;
    space.made("secrets", json!({"metadata": {"name": "a"}})).await?;
    let answer = space.put("secrets/a", json!({"metadata": {"name": "b"}})).await?;
    let text = "the name of the object (b) does not match the name on the URL (a)";
    same(answer, failure(400, "BadRequest", text, json!(null)))?;
    let answer = space.put("secrets/a", json!({"metadata": {}})).await?;
    let text = "the name of the object (a based on URL) was undeterminable: name must be provided";
    same(answer, failure(400, "BadRequest", text, json!(null)))
}

pub async fn a_body_is_of_its_kind(cluster: &KubernetesApi) -> Result<()> {
    let space = Space::new(cluster).await?;
    let answer = space.post("secrets", json!({"kind": "Pod", "metadata": {"name": "a"}})).await?;
    let text = r#"Pod in version "v1" cannot be handled as a Secret: converting (v1.Pod) to (core.Secret): unknown conversion"#;
    same(answer, failure(400, "BadRequest", text, json!(null)))?;
    let answer = space.post("secrets", json!({"apiVersion": "v2", "metadata": {"name": "a"}})).await?;
    let text = r#"Secret in version "v2" cannot be handled as a Secret: no kind "Secret" is registered for version "v2" in scheme "pkg/runtime/scheme.go:110""#;
    same(answer, failure(400, "BadRequest", text, json!(null)))?;
    // A field that its kind does not have is left out.
    let made = space.made("configmaps", json!({"metadata": {"name": "a"}, "foo": 1})).await?;
    ensure!(made.get("foo").is_none(), "{made}");
    Ok(())
}

pub async fn a_body_is_json(cluster: &KubernetesApi) -> Result<()> {
    let space = Space::new(cluster).await?;
    let path = space.path("secrets");
    let headers = [("content-type", "application/json")];
    let answer = send(cluster, "POST", &path, &headers, Some(r#"{"metadata""#.to_owned())).await?;
    let text = r#"the object provided is unrecognized (must be of type Secret): couldn't get version/kind; json parse error: unexpected end of JSON input ({"metadata")"#;
    same(answer, failure(400, "BadRequest", text, json!(null)))?;
    let answer = send(cluster, "POST", &path, &[("content-type", "text/plain")], Some("{}".to_owned())).await?;
    let text = "the body of the request was in an unknown format - accepted media types include: application/json, \
        application/yaml, application/vnd.kubernetes.protobuf";
    same(answer, failure(415, "UnsupportedMediaType", text, json!(null)))
}

pub async fn a_new_object_has_no_version(cluster: &KubernetesApi) -> Result<()> {
    let space = Space::new(cluster).await?;
    let answer = space.post("secrets", json!({"metadata": {"name": "a", "resourceVersion": "1"}})).await?;
    same(answer, failure(500, "", "resourceVersion should not be set on objects to be created", json!(null)))
}

pub async fn what_is_not_there_is_not_found(cluster: &KubernetesApi) -> Result<()> {
    let space = Space::new(cluster).await?;
    let wanted = failure(404, "NotFound", r#"secrets "a" not found"#, json!({"name": "a", "kind": "secrets"}));
    same(space.get("secrets/a").await?, wanted.clone())?;
    same(space.delete("secrets/a", None).await?, wanted.clone())?;
    same(space.patch("secrets/a", MERGE, json!({})).await?, wanted.clone())?;
    same(space.put("secrets/a", json!({"metadata": {"name": "a"}})).await?, wanted)?;
    let details = json!({"name": "a", "group": "apps", "kind": "deployments"});
    let wanted = failure(404, "NotFound", r#"deployments.apps "a" not found"#, details);
    same(space.get("apps/v1/deployments/a").await?, wanted)
}

pub async fn an_update_needs_the_version_that_was_read(cluster: &KubernetesApi) -> Result<()> {
    let space = Space::new(cluster).await?;
    let first = space.made("configmaps", json!({"metadata": {"name": "a"}, "data": {"k": "1"}})).await?;
    let mut second = first.clone();
    second["data"]["k"] = "2".into();
    let (status, second) = space.put("configmaps/a", second).await?;
    same((status, &second["data"]), (200, &json!({"k": "2"})))?;
    ensure!(version(&first) != version(&second), "{second}");
    let text = r#"Operation cannot be fulfilled on configmaps "a": the object has been modified; please apply your changes to the latest version and try again"#;
    let wanted = failure(409, "Conflict", text, json!({"name": "a", "kind": "configmaps"}));
    same(space.put("configmaps/a", first.clone()).await?, wanted.clone())?;
    let patch = json!({"metadata": {"resourceVersion": version(&first)}, "data": {"k": "3"}});
    same(space.patch("configmaps/a", MERGE, patch).await?, wanted)?;
    same(space.get("configmaps/a").await?, (200, second))
}

pub async fn an_update_without_a_version_is_done(cluster: &KubernetesApi) -> Result<()> {
    let space = Space::new(cluster).await?;
    let first = space.made("configmaps", json!({"metadata": {"name": "a"}, "data": {"k": "1"}})).await?;
    let (status, second) = space.put("configmaps/a", json!({"metadata": {"name": "a"}, "data": {"l": "2"}})).await?;
    same((status, &second["data"]), (200, &json!({"l": "2"})))?;
    for kept in ["uid", "creationTimestamp"] {
        same(&second["metadata"][kept], &first["metadata"][kept])?;
    }
    let fields = &second["metadata"]["managedFields"][0]["fieldsV1"];
    same(fields, &json!({"f:data": {".": {}, "f:l": {}}}))
}

pub async fn an_update_of_another_object_of_that_name_is_refused(cluster: &KubernetesApi) -> Result<()> {
    let space = Space::new(cluster).await?;
    let made = space.made("configmaps", json!({"metadata": {"name": "a"}})).await?;
    let uid = made["metadata"]["uid"].as_str().unwrap_or_default();
    let answer = space.put("configmaps/a", json!({"metadata": {"name": "a", "uid": "x"}})).await?;
    let text = format!(
        r#"Operation cannot be fulfilled on configmaps "a": StorageError: invalid object, Code: 4, Key: /registry/configmaps/{}/a, ResourceVersion: 0, AdditionalErrorMsg: Precondition failed: UID in precondition: x, UID in object meta: {uid}"#,
        space.name
    );
    same(answer, failure(409, "Conflict", &text, json!({"name": "a", "kind": "configmaps"})))
}

pub async fn what_changes_nothing_makes_no_version(cluster: &KubernetesApi) -> Result<()> {
    let space = Space::new(cluster).await?;
    let made = space.made("configmaps", json!({"metadata": {"name": "a"}, "data": {"k": "1"}})).await?;
    same(space.put("configmaps/a", made.clone()).await?, (200, made.clone()))?;
    same(space.patch("configmaps/a", MERGE, json!({"data": {"k": "1"}})).await?, (200, made))
}

pub async fn a_deletion_tells_what_was_deleted(cluster: &KubernetesApi) -> Result<()> {
    let space = Space::new(cluster).await?;
    let made = space.made("secrets", json!({"metadata": {"name": "a"}})).await?;
    let details = json!({"name": "a", "kind": "secrets", "uid": made["metadata"]["uid"]});
    let told = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details});
    same(space.delete("secrets/a", None).await?, (200, told))?;
    // Of an account, its last state is told.
    let made = space.made("serviceaccounts", json!({"metadata": {"name": "a"}})).await?;
    let (status, told) = space.delete("serviceaccounts/a", None).await?;
    same((status, steady(&told)), (200, steady(&made)))?;
    same(space.get("serviceaccounts/a").await?.0, 404)
}

pub async fn a_deletion_holds_to_its_preconditions(cluster: &KubernetesApi) -> Result<()> {
    let space = Space::new(cluster).await?;
    let made = space.made("secrets", json!({"metadata": {"name": "a"}})).await?;
    let (uid, is) = (made["metadata"]["uid"].as_str().unwrap_or_default(), version(&made));
    let details = json!({"name": "a", "kind": "Secret"});
    let answer = space.delete("secrets/a", Some(json!({"preconditions": {"uid": "x"}}))).await?;
    let text = format!(
        r#"Operation cannot be fulfilled on Secret "a": the UID in the precondition (x) does not match the UID in record ({uid}). The object might have been deleted and then recreated"#
    );
    same(answer, failure(409, "Conflict", &text, details.clone()))?;
    let answer = space.delete("secrets/a", Some(json!({"preconditions": {"resourceVersion": "1"}}))).await?;
    let text = format!(
        r#"Operation cannot be fulfilled on Secret "a": the ResourceVersion in the precondition (1) does not match the ResourceVersion in record ({is}). The object might have been modified"#
    );
    same(answer, failure(409, "Conflict", &text, details))?;
    let right = json!({"preconditions": {"uid": uid, "resourceVersion": is}});
    same(space.delete("secrets/a", Some(right)).await?.0, 200)
}

pub async fn a_finalizer_keeps_what_was_deleted(cluster: &KubernetesApi) -> Result<()> {
    let space = Space::new(cluster).await?;
    let body = json!({"metadata": {"name": "a", "finalizers": ["example.com/mine"]}});
    let made = space.made("configmaps", body).await?;
    let (status, dying) = space.delete("configmaps/a", None).await?;
    let mut wanted = steady(&made);
    wanted["metadata"]["deletionTimestamp"] = "?".into();
    wanted["metadata"]["deletionGracePeriodSeconds"] = 0.into();
    same((status, steady(&dying)), (200, wanted))?;
    same(space.delete("configmaps/a", None).await?, (200, dying.clone()))?;
    same(space.get("configmaps/a").await?, (200, dying))?;
    let (status, _) = space.patch("configmaps/a", MERGE, json!({"metadata": {"finalizers": null}})).await?;
    same((status, space.get("configmaps/a").await?.0), (200, 404))
}

pub async fn a_job_is_deleted_without_its_pods_unless_it_is_said_otherwise(cluster: &KubernetesApi) -> Result<()> {
    let space = Space::new(cluster).await?;
    let template = json!({"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "x"}]}});
    let job = |name: &str| json!({"metadata": {"name": name}, "spec": {"suspend": true, "template": template}});
    space.made("batch/v1/jobs", job("a")).await?;
    let (status, dying) = space.delete("batch/v1/jobs/a", None).await?;
    same((status, &dying["kind"], &dying["metadata"]["finalizers"]), (200, &json!("Job"), &json!(["orphan"])))?;
    space.made("batch/v1/jobs", job("b")).await?;
    let background = json!({"propagationPolicy": "Background"});
    let (status, told) = space.delete("batch/v1/jobs/b", Some(background)).await?;
    same((status, &told["kind"], &told["status"]), (200, &json!("Status"), &json!("Success")))?;
    let foreground = json!({"propagationPolicy": "Foreground"});
    space.made("configmaps", json!({"metadata": {"name": "c"}})).await?;
    let (_, dying) = space.delete("configmaps/c", Some(foreground)).await?;
    same(&dying["metadata"]["finalizers"], &json!(["foregroundDeletion"]))
}

pub async fn a_dry_run_stores_nothing(cluster: &KubernetesApi) -> Result<()> {
    let space = Space::new(cluster).await?;
    let (status, made) = space.post("secrets?dryRun=All", json!({"metadata": {"name": "a"}})).await?;
    ensure!(status == 201 && made["type"] == "Opaque" && version(&made).is_empty(), "{status}: {made}");
    same(space.get("secrets/a").await?.0, 404)?;
    let made = space.made("secrets", json!({"metadata": {"name": "a"}})).await?;
    same(space.post("secrets?dryRun=All", json!({"metadata": {"name": "a"}})).await?.0, 409)?;
    let (status, patched) = space.patch("secrets/a?dryRun=All", MERGE, json!({"data": {"k": "eA=="}})).await?;
    same((status, &patched["data"]), (200, &json!({"k": "eA=="})))?;
    same(space.delete("secrets/a?dryRun=All", None).await?.0, 200)?;
    same(space.get("secrets/a").await?, (200, made))
}

pub async fn options_that_are_not_known_are_refused(cluster: &KubernetesApi) -> Result<()> {
    let space = Space::new(cluster).await?;
    let refused = |field: &str, why: &str| {
        let text = format!(r#"CreateOptions.meta.k8s.io "" is invalid: {field}: {why}"#);
        let cause = json!({"reason": "FieldValueNotSupported", "message": why, "field": field});
        failure(422, "Invalid", &text, json!({"group": "meta.k8s.io", "kind": "CreateOptions", "causes": [cause]}))
    };
    let answer = space.post("secrets?dryRun=Some", json!({"metadata": {"name": "a"}})).await?;
    same(answer, refused("dryRun", r#"Unsupported value: ["Some"]: supported values: "All""#))?;
    let answer = space.post("secrets?fieldValidation=Some", json!({"metadata": {"name": "a"}})).await?;
    let why = r#"Unsupported value: "Some": supported values: "", "Ignore", "Strict", "Warn""#;
    same(answer, refused("fieldValidation", why))
}

pub async fn labels_annotations_and_owners_are_checked(cluster: &KubernetesApi) -> Result<()> {
    let space = Space::new(cluster).await?;
    let message =
        |answer: (u16, serde_json::Value)| (answer.0, answer.1["message"].as_str().unwrap_or_default().to_owned());
    let post = |metadata| space.post("configmaps", json!({"metadata": metadata}));
    let text = r#"ConfigMap "a" is invalid: metadata.labels: Invalid value: "!": a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"#;
    same(message(post(json!({"name": "a", "labels": {"x": "!"}})).await?), (422, text.to_owned()))?;
    let text = r#"ConfigMap "a" is invalid: metadata.annotations: Invalid value: "a b": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"#;
    same(message(post(json!({"name": "a", "annotations": {"a b": "!"}})).await?), (422, text.to_owned()))?;
    let owner = json!({"apiVersion": "v1", "kind": "Pod", "name": "p"});
    let text = r#"ConfigMap "a" is invalid: metadata.ownerReferences.uid: Invalid value: "": must not be empty"#;
    same(message(post(json!({"name": "a", "ownerReferences": [owner]})).await?), (422, text.to_owned()))?;
    let text = r#"ConfigMap "a" is invalid: metadata.finalizers[0]: Invalid value: "x": name is neither a standard finalizer name nor is it fully qualified"#;
    same(message(post(json!({"name": "a", "finalizers": ["x"]})).await?), (422, text.to_owned()))
}
