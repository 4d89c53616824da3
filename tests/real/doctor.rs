//! `doctor` on real clusters and a real Vault: nothing fails where nothing is wrong, and each broken set-up is
//! found, by its line, with no other line failing that is not a consequence.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;
use testbed::side::{MUTATING_WEBHOOKS, WEBHOOKS};
use testbed::{Port, Vault, VaultOptions, eventually};
use tokio::process::Command;

use crate::gate::{Gate, binary};
use crate::story::decode;
use crate::world::{NAMESPACE, SOON, Side, SmallWorld};

/// Longest run of doctor: a few answers that do not come.
const AT_MOST: Duration = Duration::from_secs(60);

/// A side with all that doctor looks at, and how doctor is run there.
struct Ward {
    world: SmallWorld,
    folder: TempDir,
}

/// What doctor said.
struct Report {
    code: Option<i32>,
    lines: Vec<Value>,
}

impl Report {
    fn of(&self, id: &str) -> Vec<&Value> {
        self.lines.iter().filter(|line| line["id"] == id).collect()
    }

    fn with(&self, outcome: &str) -> Vec<&str> {
        self.lines.iter().filter(|line| line["outcome"] == outcome).filter_map(|line| line["id"].as_str()).collect()
    }

    fn shown(&self) -> String {
        self.lines.iter().map(|line| format!("{line}\n")).collect()
    }
}

/// A fault as doctor has to name it.
struct Found<'a> {
    id: &'a str,
    outcome: &'a str,
    /// In what was seen, or the reason code.
    says: &'a str,
    /// Other lines that then fail or warn, too.
    also: &'a [&'a str],
}

fn found<'a>(id: &'a str, outcome: &'a str, says: &'a str) -> Found<'a> {
    Found { id, outcome, says, also: &[] }
}

impl<'a> Found<'a> {
    fn also(self, also: &'a [&'a str]) -> Self {
        Self { also, ..self }
    }
}

impl Ward {
    async fn new(world: SmallWorld) -> Result<Self> {
        let ward = Self { world, folder: tempfile::tempdir()? };
        ward.write("jwt", &ward.side().gate_token("vault").await?)?;
        ward.write("ca.pem", ward.vault().ca_pem())?;
        Ok(ward)
    }

    async fn open(world: SmallWorld) -> Result<Self> {
        let ward = Self::new(world).await?;
        let gate = Gate::start(ward.side(), ward.vault()).await?;
        ward.side().deploy_istiod().await?;
        ward.settle(gate).await?;
        Ok(ward)
    }

    /// Waits until the gate has opened, istiod runs, and everything is as deploy/ has it. Then the gate's process
    /// ends, so that it mends nothing; its pods are said to be ready, which a cluster without nodes cannot see.
    async fn settle(&self, gate: Gate) -> Result<()> {
        let side = self.side();
        side.deploy_gateway().await?;
        gate.stands("open", None).await?;
        side.pod("istiod").await?;
        side.pod("istio-eastwestgateway").await?;
        drop(gate);
        back_to_the_service(side).await?;
        gate_is_ready(side).await?;
        let cacerts = side.cacerts().await?.context("no cacerts")?;
        let root = decode(&cacerts["data"]["root-cert.pem"])?;
        let map = json!({ "metadata": { "name": "istio-ca-root-cert" }, "data": { "root-cert.pem": root } });
        self.post("/api/v1/namespaces/istio-system/configmaps", map).await?;
        Ok(())
    }

    fn side(&self) -> &Side {
        &self.world.side
    }

    fn vault(&self) -> &Vault {
        &self.world.vault
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: &str) -> Result<String> {
        std::fs::write(self.file(name), text)?;
        Ok(self.file(name).to_string_lossy().into_owned())
    }

    /// Runs doctor with these flags, which win over the defaults, and these variables.
    async fn run(&self, flags: &[&str], variables: &[(&str, &str)]) -> Result<Report> {
        let side = self.side();
        let mut command = Command::new(binary());
        command.args(["doctor", "-o", "json"]).env_clear().stdin(Stdio::null()).kill_on_drop(true);
        command.env("GATE_ROLE", side.role).env("GATE_VAULT_ADDRS", self.vault().address());
        command.env("VAULT_CACERT", self.file("ca.pem")).env("GATE_VAULT_JWT_FILE", self.file("jwt"));
        command.env("GATE_VAULT_AUTH_MOUNT", side.auth_mount).env("KUBECONFIG", side.cluster.kubeconfig());
        // No gate runs that could be called: see tests/real/self_test.rs.
        command.env("GATE_SELF_TEST", "nowhere");
        command.envs(variables.iter().copied()).args(flags);
        let output = tokio::time::timeout(AT_MOST, command.output()).await.context("doctor runs on")??;
        let (out, err) = (String::from_utf8(output.stdout)?, String::from_utf8(output.stderr)?);
        for secret in ["PRIVATE KEY", "LS0tLS1CRUdJTi", "hvs.", "eyJ"] {
            ensure!(!out.contains(secret) && !err.contains(secret), "{secret:?} in {out}{err}");
        }
        ensure!(err.is_empty(), "{err}");
        let lines = serde_json::from_str(&out).with_context(|| out.clone())?;
        Ok(Report { code: output.status.code(), lines })
    }

    async fn is_healthy(&self) -> Result<Report> {
        let report = self.run(&[], &[]).await?;
        for bad in ["failed", "skipped", "warning"] {
            ensure!(report.with(bad).is_empty(), "{}", report.shown());
        }
        ensure!(report.code == Some(0), "{:?}", report.code);
        Ok(report)
    }

    /// The fault is there: doctor finds it, and nothing else that is not its consequence.
    async fn finds(&self, found: Found<'_>) -> Result<Report> {
        self.finds_with(&[], &[], found).await
    }

    async fn finds_with(&self, flags: &[&str], variables: &[(&str, &str)], found: Found<'_>) -> Result<Report> {
        let Found { id, outcome, says, also } = found;
        let report = self.run(flags, variables).await?;
        let hit = |line: &&Value| {
            line["outcome"] == outcome
                && (line["reason"] == says || line["seen"].as_str().is_some_and(|seen| seen.contains(says)))
        };
        ensure!(report.of(id).iter().any(hit), "no {outcome} line {id} that says {says:?}:\n{}", report.shown());
        let line = report.of(id).into_iter().find(hit).context("no line")?;
        ensure!(line["next"].is_string() || outcome == "note", "nothing to do about {line}");
        for bad in ["failed", "warning"] {
            let known = |other: &&str| *other == id || also.contains(other);
            let strange: Vec<_> = report.with(bad).into_iter().filter(|other| !known(other)).collect();
            ensure!(strange.is_empty(), "beside {id}, {strange:?} {bad}:\n{}", report.shown());
        }
        let unseen = |line: &&Value| {
            line["outcome"] == "note"
                && line["seen"].as_str().is_some_and(|seen| seen.starts_with("may not be looked at"))
        };
        let failed = !report.with("failed").is_empty();
        let blind = ["vault-record", "cacerts", "webhook"].iter().any(|id| report.of(id).iter().any(unseen));
        let code = if failed { 1 } else { i32::from(blind) * 2 };
        ensure!(report.code == Some(code), "{:?} with:\n{}", report.code, report.shown());
        println!("found: {id} {outcome}: {}", line["seen"].as_str().unwrap_or_default());
        Ok(report)
    }

    async fn send(&self, method: &str, path: &str, body: Option<Value>) -> Result<Value> {
        let (status, answer) = self.side().cluster.request(method, path, body).await?;
        ensure!((200..300).contains(&status), "{method} {path}: {status}: {answer}");
        Ok(answer)
    }

    async fn post(&self, path: &str, body: Value) -> Result<Value> {
        self.send("POST", path, Some(body)).await
    }

    async fn patch(&self, path: &str, body: Value) -> Result<Value> {
        self.send("PATCH", path, Some(body)).await
    }

    async fn delete(&self, path: &str) -> Result<Value> {
        self.send("DELETE", path, None).await
    }

    /// Puts an object back as it was.
    async fn restore(&self, path: &str, object: &Value) -> Result<()> {
        let mut object = object.clone();
        for field in ["resourceVersion", "uid", "creationTimestamp"] {
            object["metadata"].as_object_mut().context("no metadata")?.remove(field);
        }
        if let Some(now) = self.side().object(path).await? {
            object["metadata"]["resourceVersion"] = now["metadata"]["resourceVersion"].clone();
            self.send("PUT", path, Some(object)).await?;
        } else {
            let (collection, _) = path.rsplit_once('/').context("no name")?;
            self.post(&format!("{collection}?fieldManager=istio-ca-gate"), object).await?;
        }
        Ok(())
    }

    /// Changes the object, looks, and puts it back.
    async fn with(&self, path: &str, change: Value, found: Found<'_>) -> Result<()> {
        let before = self.side().object(path).await?.with_context(|| format!("no {path}"))?;
        self.patch(path, change).await?;
        self.finds(found).await?;
        self.restore(path, &before).await
    }

    /// The same with the object gone.
    async fn without(&self, path: &str, found: Found<'_>) -> Result<()> {
        let before = self.side().object(path).await?.with_context(|| format!("no {path}"))?;
        self.delete(path).await?;
        self.finds(found).await?;
        self.restore(path, &before).await
    }
}

/// Webhooks that call the Service, as the manifest has them, with the `caBundle` that the gate injected.
async fn back_to_the_service(side: &Side) -> Result<()> {
    for (configuration, path) in [(WEBHOOKS, "/validate"), (MUTATING_WEBHOOKS, "/mutate")] {
        let mut now = side.object(configuration).await?.context("no webhooks")?;
        for webhook in now["webhooks"].as_array_mut().context("no webhooks")? {
            let service = json!({ "name": "istio-ca-gate", "namespace": NAMESPACE, "path": path, "port": 443 });
            let bundle = webhook["clientConfig"]["caBundle"].clone();
            webhook["clientConfig"] = json!({ "service": service, "caBundle": bundle });
        }
        let (status, answer) = side.cluster.request("PUT", configuration, Some(now)).await?;
        ensure!(status == 200, "{answer}");
    }
    Ok(())
}

/// Says of the gate's pods what a kubelet would, and waits until the controllers have heard it.
async fn gate_is_ready(side: &Side) -> Result<()> {
    say_of_pods(side, "istio-ca-gate", true).await?;
    let path = "/apis/apps/v1/namespaces/istio-system/deployments/istio-ca-gate";
    eventually("the gate's Deployment to be ready", SOON, || async {
        let deployment = side.object(path).await?.context("no Deployment")?;
        ensure!(deployment["status"]["readyReplicas"] == 2, "{}", deployment["status"]);
        Ok(())
    })
    .await?;
    say_of_endpoints(side, true).await
}

/// Endpoints of the gate's Service. The controller makes none of pods on no node, and leaves alone what it did not make.
async fn say_of_endpoints(side: &Side, ready: bool) -> Result<()> {
    let slice = json!({
        "metadata": {
            "name": "istio-ca-gate-test",
            "labels": { "kubernetes.io/service-name": "istio-ca-gate", "endpointslice.kubernetes.io/managed-by": "test" },
        },
        "addressType": "IPv4",
        "endpoints": [{ "addresses": ["10.1.0.1"], "conditions": { "ready": ready } }],
        "ports": [{ "name": "https", "port": 8443 }],
    });
    let (_, _) = side.cluster.request("DELETE", &format!("{SLICES}/istio-ca-gate-test"), None).await?;
    let (status, answer) = side.cluster.request("POST", SLICES, Some(slice)).await?;
    ensure!(status == 201, "{answer}");
    Ok(())
}

async fn say_of_pods(side: &Side, deployment: &str, ready: bool) -> Result<()> {
    let pods = eventually("the pods", SOON, || async {
        Some(side.pods(deployment).await.ok()?)
            .filter(|pods| !pods.is_empty() && (deployment != "istio-ca-gate" || pods.len() == 2))
    })
    .await?;
    for (at, pod) in pods.iter().enumerate() {
        let status = if ready { "True" } else { "False" };
        let ip = format!("10.1.0.{}", at + 1);
        let status = json!({ "status": {
            "phase": "Running", "podIP": ip, "podIPs": [{ "ip": ip }],
            "conditions": [{ "type": "Ready", "status": status }, { "type": "ContainersReady", "status": status }],
        }});
        let path = format!("/api/v1/namespaces/{NAMESPACE}/pods/{pod}/status");
        let (code, answer) = side.cluster.request("PATCH", &path, Some(status)).await?;
        ensure!(code == 200, "{answer}");
    }
    Ok(())
}

const CACERTS: &str = "/api/v1/namespaces/istio-system/secrets/cacerts";
const PIN: &str = "/api/v1/namespaces/istio-system/configmaps/istio-ca-gate";
const SERVED: &str = "/api/v1/namespaces/istio-system/configmaps/istio-ca-root-cert";
const SERVICE: &str = "/api/v1/namespaces/istio-system/services/istio-ca-gate";
const SLICES: &str = "/apis/discovery.k8s.io/v1/namespaces/istio-system/endpointslices";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/istio-system/deployments";

#[tokio::test(flavor = "multi_thread")]
async fn a_homelab_is_found_healthy_and_each_fault_of_its_vault_by_its_line() -> Result<()> {
    let ward = Ward::open(SmallWorld::homelab().await?).await?;
    let report = ward.is_healthy().await?;
    ensure!(report.of("vault-record")[0]["seen"].as_str().is_some_and(|seen| seen.contains("version 1")));
    vault_is_elsewhere(&ward).await?;
    vault_does_not_let_it_in(&ward).await?;
    vault_allows_another(&ward).await?;
    vault_holds_another(&ward).await?;
    ward.vault().seal().await?;
    ward.finds(found("vault-state", "failed", "VaultSealed")).await?;
    ward.vault().unseal().await?;
    ward.is_healthy().await?;
    Ok(())
}

/// Addresses, TLS, and which Vault it is.
async fn vault_is_elsewhere(ward: &Ward) -> Result<()> {
    let nobody = format!("https://127.0.0.1:{}", Port::reserve()?.number());
    ward.finds_with(&["--vault-addr", &nobody], &[], found("vault-address", "failed", "no connection")).await?;
    // One that works is enough to look with; the silent one may hold a root, which would hold a bootstrap.
    let both = ["--vault-addr", &nobody, "--vault-addr", ward.vault().address()];
    ward.finds_with(&both, &[], found("vault-address", "warning", "no connection").also(&["vault-one"])).await?;

    let other = Vault::start(VaultOptions::default()).await?;
    let trust = ward.write("other-ca.pem", other.ca_pem())?;
    // Its CA has the same name, and another key.
    let unknown = found("vault-tls", "failed", "BadSignature");
    ward.finds_with(&["--vault-ca-cert", &trust], &[], unknown).await?;
    let trust = ward.write("both-cas.pem", &format!("{}\n{}", ward.vault().ca_pem(), other.ca_pem()))?;
    let both = ["--vault-addr", ward.vault().address(), "--vault-addr", other.address(), "--vault-ca-cert", &trust];
    ward.finds_with(&both, &[], found("vault-one", "failed", "VaultAmbiguous")).await?;
    other.start_sealed().await?;
    let sealed = found("vault-state", "warning", "VaultSealed").also(&["vault-one"]);
    ward.finds_with(&both, &[], sealed).await?;
    Ok(())
}

/// Auth mount, token, role, reviewer.
async fn vault_does_not_let_it_in(ward: &Ward) -> Result<()> {
    let (side, vault) = (ward.side(), ward.vault());
    let nowhere = ["--vault-auth-mount", "nowhere"];
    ward.finds_with(&nowhere, &[], found("vault-auth-mount", "failed", "no auth method")).await?;
    ward.finds_with(&["--vault-role", "nobody"], &[], found("vault-login", "failed", "invalid role name")).await?;

    vault
        .role(
            "kubernetes",
            "other",
            json!({
                "bound_service_account_names": "somebody", "bound_service_account_namespaces": NAMESPACE,
                "audience": "vault", "token_policies": side.policy(),
            }),
        )
        .await?;
    ward.finds_with(&["--vault-role", "other"], &[], found("vault-login", "failed", "not authorized")).await?;

    let jwt = ward.write("jwt-api", &side.gate_token(side.cluster.issuer()).await?)?;
    let audience = found("vault-jwt", "warning", "and not vault").also(&["vault-login"]);
    let report = ward.finds_with(&["--vault-jwt-file", &jwt], &[], audience).await?;
    ensure!(report.of("vault-login")[0]["reason"] == "VaultLoginDenied", "{}", report.shown());
    let somebody = side.cluster.service_account_token("default", "default", &["vault"], 3600).await?;
    let jwt = ward.write("jwt-other", &somebody)?;
    let subject = found("vault-jwt", "warning", "default:default").also(&["vault-login"]);
    ward.finds_with(&["--vault-jwt-file", &jwt], &[], subject).await?;
    let expired = ward.write("jwt-expired", &["e30", "eyJleHAiOjEwMDB9", "c2ln"].join("."))?;
    ward.finds_with(&["--vault-jwt-file", &expired], &[], found("vault-jwt", "failed", "expired")).await?;
    ward.finds_with(&["--vault-jwt-file", "/nowhere"], &[], found("vault-jwt", "failed", "cannot read")).await?;

    let binding = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/vault-reviewer";
    ward.without(binding, found("vault-login", "failed", "permission denied")).await
}

/// Policies and the engine.
async fn vault_allows_another(ward: &Ward) -> Result<()> {
    let (side, vault) = (ward.side(), ward.vault());
    let shipped = testbed::side::shipped_policy(side.role);
    vault.policy(&side.policy(), "path \"secret/data/istio/ca\" { capabilities = [\"create\"] }").await?;
    ward.finds(found("vault-rights", "failed", "lacks read").also(&["vault-record"])).await?;
    // The file of old, with two stanzas.
    let merged = "path \"secret/data/istio/ca\" { capabilities = [\"create\", \"read\", \"update\", \"patch\"] }";
    vault.policy(&side.policy(), merged).await?;
    ward.finds(found("vault-rights", "warning", "patch, update on secret/data/istio/ca")).await?;
    let metadata = format!("{shipped}\npath \"secret/metadata/istio/ca\" {{ capabilities = [\"read\", \"delete\"] }}");
    vault.policy(&side.policy(), &metadata).await?;
    ward.finds(found("vault-rights", "warning", "delete on secret/metadata/istio/ca")).await?;

    let readable = format!("{shipped}\npath \"secret/metadata/istio/ca\" {{ capabilities = [\"read\"] }}");
    vault.policy(&side.policy(), &readable).await?;
    vault.ok("POST", "secret/metadata/istio/ca", Some(json!({ "delete_version_after": "72h" }))).await?;
    ward.finds(found("vault-mount", "warning", "delete_version_after")).await?;
    again(vault).await?;
    ward.finds(found("vault-record", "warning", "deletes this version by itself").also(&["vault-mount"])).await?;
    vault.ok("POST", "secret/metadata/istio/ca", Some(json!({ "delete_version_after": "0s" }))).await?;
    again(vault).await?;

    vault.ok("POST", "sys/mounts/old", Some(json!({ "type": "kv", "options": { "version": "1" } }))).await?;
    let old = format!("{shipped}\npath \"old/*\" {{ capabilities = [\"create\", \"read\"] }}");
    vault.policy(&side.policy(), &old).await?;
    let version_1 = found("vault-mount", "failed", "VaultMountInvalid").also(&["vault-record", "vault-rights"]);
    ward.finds_with(&["--vault-mount", "old"], &[], version_1).await?;
    vault.policy(&side.policy(), shipped).await?;
    ward.is_healthy().await?;

    // A person's own token says nothing of the gate's.
    let own = [("VAULT_TOKEN", vault.root_token())];
    let report = ward.finds_with(&[], &own, found("vault-login", "note", "VAULT_TOKEN")).await?;
    ensure!(report.of("vault-rights")[0]["outcome"] == "note", "{}", report.shown());
    Ok(())
}

/// Writes the record once more, as it is.
async fn again(vault: &Vault) -> Result<()> {
    let record = vault.ok("GET", "secret/data/istio/ca", None).await?;
    vault.ok("POST", "secret/data/istio/ca", Some(json!({ "data": record["data"]["data"] }))).await?;
    Ok(())
}

/// The record itself.
async fn vault_holds_another(ward: &Ward) -> Result<()> {
    let vault = ward.vault();
    let good = vault.ok("GET", "secret/data/istio/ca", None).await?["data"]["data"].clone();
    let put = async |record: &Value| vault.ok("POST", "secret/data/istio/ca", Some(json!({ "data": record }))).await;

    vault.ok("DELETE", "secret/data/istio/ca", None).await?;
    ward.finds(found("vault-record", "failed", "RootDeleted")).await?;
    ward.finds_with(
        &["--vault-path", "istio/other"],
        &[],
        found("vault-rights", "failed", "lacks").also(&["vault-record"]),
    )
    .await?;
    let mut broken = good.clone();
    broken["root-cert.pem"] = json!("tampered with");
    put(&broken).await?;
    ward.finds(found("vault-record", "failed", "RootInvalid")).await?;
    let other = crate::cacerts::foreign_ca().await?;
    let other = json!({
        "root-cert.pem": other["root-cert.pem"], "cert-chain.pem": other["cert-chain.pem"], "key.pem": other["ca-key.pem"],
    });
    put(&other).await?;
    // It is one of thirty days, too.
    ward.finds(found("pin", "failed", "RootChanged").also(&["vault-record"])).await?;
    put(&good).await?;
    ward.is_healthy().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn each_fault_of_a_homelabs_cluster_is_found_by_its_line() -> Result<()> {
    let ward = Ward::open(SmallWorld::homelab().await?).await?;
    ward.is_healthy().await?;
    the_way_to_the_cluster(&ward).await?;
    the_secret(&ward).await?;
    the_roots(&ward).await?;
    the_webhooks(&ward).await?;
    the_pods(&ward).await?;
    ward.is_healthy().await?;
    Ok(())
}

/// API server and RBAC.
async fn the_way_to_the_cluster(ward: &Ward) -> Result<()> {
    let side = ward.side();
    let nobody = format!("https://127.0.0.1:{}", Port::reserve()?.number());
    let kubeconfig = std::fs::read_to_string(side.cluster.kubeconfig())?.replace(side.cluster.url(), &nobody);
    let kubeconfig = ward.write("kubeconfig-nobody", &kubeconfig)?;
    let down = found("kubernetes-api", "failed", "KubernetesUnreachable");
    let report = ward.finds_with(&["--kubeconfig", &kubeconfig], &[], down).await?;
    ensure!(report.of("vault-record")[0]["outcome"] == "ok", "{}", report.shown());
    ensure!(report.of("cacerts")[0]["outcome"] == "skipped", "{}", report.shown());

    let binding = "/apis/rbac.authorization.k8s.io/v1/namespaces/istio-system/rolebindings/istio-ca-gate";
    ward.without(binding, found("kubernetes-rights", "failed", "get, list, watch, patch secrets cacerts")).await?;
    let role = "/apis/rbac.authorization.k8s.io/v1/clusterroles/istio-ca-gate";
    ward.with(role, json!({ "rules": [] }), found("kubernetes-rights", "failed", "lacks 6 of 34")).await?;
    let nowhere =
        found("namespace", "failed", "there is none").also(&["kubernetes-rights", "webhook", "gate", "vault-jwt"]);
    ward.finds_with(&["--namespace", "nowhere"], &[], nowhere).await?;

    // With the gate's own rights it looks at what they are for, and says what it may not look at.
    let token =
        side.cluster.service_account_token(NAMESPACE, side.service_account, &[side.cluster.issuer()], 3600).await?;
    let kubeconfig = side.cluster.kubeconfig_for(side.service_account, &token)?.to_string_lossy().into_owned();
    let report = ward.run(&["--kubeconfig", &kubeconfig], &[]).await?;
    ensure!(report.code == Some(0) && report.with("warning").is_empty(), "{}", report.shown());
    for id in ["kubernetes-rights", "cacerts", "pin", "webhook", "selectors", "blocked"] {
        ensure!(report.of(id).iter().all(|line| line["outcome"] == "ok"), "{id}:\n{}", report.shown());
    }
    for id in ["namespace", "istio-ca-secret", "webhook-service"] {
        let line = report.of(id)[0];
        let says = line["seen"].as_str().is_some_and(|seen| seen.starts_with("may not be looked at: no right to get "));
        ensure!(line["outcome"] == "note" && says, "{line}");
    }
    // Somebody with other rights, who may not ask for others.
    let token = side.cluster.service_account_token("default", "default", &[side.cluster.issuer()], 3600).await?;
    let kubeconfig = side.cluster.kubeconfig_for("somebody", &token)?.to_string_lossy().into_owned();
    let mine = found("kubernetes-rights", "note", "on behalf of system:serviceaccount:default:default");
    ward.finds_with(&["--kubeconfig", &kubeconfig], &[], mine).await?;
    Ok(())
}

/// `cacerts` and the pin.
async fn the_secret(ward: &Ward) -> Result<()> {
    let string = |key: &str, value: &Value| json!({ "stringData": { key: value } });
    let tampered = found("cacerts", "warning", "not what Vault holds");
    ward.with(CACERTS, string("ca-key.pem", &json!("tampered with")), tampered).await?;
    ward.with(CACERTS, string("tls.crt", &json!("x")), found("cacerts", "failed", "CacertsInvalid")).await?;
    let other = crate::cacerts::foreign_ca().await?;
    let foreign = json!({ "metadata": { "labels": { "app.kubernetes.io/managed-by": null } }, "stringData": other });
    ward.with(CACERTS, foreign, found("cacerts", "failed", "RootChanged").also(&["istio-ca-root-cert"])).await?;
    let label = json!({ "reconcile.external-secrets.io/managed": "true" });
    let managed = json!({ "metadata": { "labels": label }, "stringData": other });
    let elsewhere = found("cacerts", "failed", "CacertsManagedElsewhere").also(&["istio-ca-root-cert"]);
    ward.with(CACERTS, managed, elsewhere).await?;
    ward.without(CACERTS, found("cacerts", "note", "not there yet")).await?;

    let before = ward.side().cacerts().await?.context("no cacerts")?;
    ward.patch(CACERTS, json!({ "immutable": true })).await?;
    ward.finds(found("cacerts", "warning", "immutable")).await?;
    ward.delete(CACERTS).await?;
    ward.restore(CACERTS, &before).await?;

    let edited = json!({ "data": { "root-sha256": "none" } });
    ward.with(PIN, edited, found("pin", "failed", "RootChanged")).await?;
    let old = json!({ "data": { "verified-at": "2026-01-01T00:00:00Z" } });
    ward.with(PIN, old, found("pin", "warning", "last verified at 2026-01-01")).await
}

/// What istiod made, and what it serves.
async fn the_roots(ward: &Ward) -> Result<()> {
    let other = crate::cacerts::foreign_ca().await?;
    let own = json!({ "metadata": { "name": "istio-ca-secret" }, "stringData": {
        "ca-cert.pem": other["ca-cert.pem"], "ca-key.pem": other["ca-key.pem"],
    }});
    ward.post("/api/v1/namespaces/istio-system/secrets", own).await?;
    ward.finds(found("istio-ca-secret", "warning", "once made a root of its own")).await?;
    let served = json!({ "data": { "root-cert.pem": other["root-cert.pem"] } });
    let split = found("istio-ca-secret", "failed", "split").also(&["istio-ca-root-cert"]);
    ward.with(SERVED, served.clone(), split).await?;
    ward.delete("/api/v1/namespaces/istio-system/secrets/istio-ca-secret").await?;
    ward.with(SERVED, served, found("istio-ca-root-cert", "failed", "RootChanged")).await?;
    ward.without(SERVED, found("istio-ca-root-cert", "note", "has not run here")).await
}

/// A change of the first webhook, which is istiod's and the gateway's.
async fn with_webhook(ward: &Ward, change: impl FnOnce(&mut Value), found: Found<'_>) -> Result<()> {
    let before = ward.side().object(WEBHOOKS).await?.context("no webhooks")?;
    let mut now = before.clone();
    change(&mut now["webhooks"]);
    ward.send("PUT", WEBHOOKS, Some(now)).await?;
    ward.finds(found).await?;
    ward.restore(WEBHOOKS, &before).await
}

async fn the_webhooks(ward: &Ward) -> Result<()> {
    ward.without(WEBHOOKS, found("webhook", "failed", "there is none")).await?;
    let open = found("webhook", "failed", "failurePolicy");
    with_webhook(ward, |webhooks| webhooks[0]["failurePolicy"] = json!("Ignore"), open).await?;
    let ca = found("webhook", "failed", "no caBundle");
    with_webhook(ward, |webhooks| webhooks[0]["clientConfig"]["caBundle"] = Value::Null, ca).await?;
    let other = ward.world.vault.ca_pem().to_owned();
    let other = serde_json::to_value(k8s_openapi::ByteString(other.into_bytes()))?;
    let ca = found("webhook", "failed", "caBundle is not the CA");
    with_webhook(ward, |webhooks| webhooks[1]["clientConfig"]["caBundle"] = other, ca).await?;
    let path = found("webhook", "failed", "/elsewhere");
    with_webhook(ward, |webhooks| webhooks[0]["clientConfig"]["service"]["path"] = json!("/elsewhere"), path).await?;
    let short = found("webhook", "warning", "timeoutSeconds is 3");
    with_webhook(ward, |webhooks| webhooks[2]["timeoutSeconds"] = json!(3), short).await?;
    let none = found("webhook", "failed", "CREATE");
    with_webhook(ward, |webhooks| webhooks[0]["rules"][0]["operations"] = json!(["UPDATE"]), none).await?;
    let gap = found("selectors", "failed", "no webhook does");
    with_webhook(ward, |webhooks| drop(webhooks.as_array_mut().map(|webhooks| webhooks.remove(0))), gap).await?;
    let twice = found("selectors", "warning", "2 webhooks");
    with_webhook(
        ward,
        |webhooks| {
            webhooks[1]["objectSelector"] = json!({ "matchExpressions": [{ "key": "istio", "operator": "Exists" }] });
        },
        twice,
    )
    .await?;

    let gone = found("webhook-service", "failed", "there is none");
    ward.without(SERVICE, gone).await?;
    // It goes with its Service.
    say_of_endpoints(ward.side(), true).await?;
    let port = json!({ "spec": { "ports": [{ "name": "https", "port": 8443, "targetPort": "https" }] } });
    ward.with(SERVICE, port, found("webhook-service", "failed", "no port 443")).await?;
    say_of_endpoints(ward.side(), false).await?;
    ward.finds(found("webhook-service", "failed", "no endpoint")).await?;
    say_of_endpoints(ward.side(), true).await
}

async fn the_pods(ward: &Ward) -> Result<()> {
    let side = ward.side();
    side.deploy("istiod-canary", json!({ "tier": "control" })).await?;
    ward.finds(found("selectors", "warning", "looks like istiod")).await?;
    ward.delete(&format!("{DEPLOYMENTS}/istiod-canary")).await?;

    let namespace = "/api/v1/namespaces/istio-system";
    let label = json!({ "metadata": { "labels": { "istio-injection": "enabled" } } });
    ward.patch(namespace, label).await?;
    // Labelled out of it, the gate's pods are not injected.
    ward.is_healthy().await?;
    let gate = format!("{DEPLOYMENTS}/istio-ca-gate");
    // Paused, so that no new pods come in the place of those that were said to be ready.
    let inside = json!({ "spec": { "paused": true, "template": { "metadata": { "labels": { "sidecar.istio.io/inject": null } } } } });
    ward.patch(&gate, inside).await?;
    ward.finds(found("gate-mesh", "failed", "sidecar.istio.io/inject=false")).await?;
    ward.patch(namespace, json!({ "metadata": { "labels": { "istio-injection": null } } })).await?;
    ward.finds(found("gate-mesh", "warning", "only the namespace's labels")).await?;
    let outside = json!({ "spec": { "paused": false, "template": { "metadata": { "labels": { "sidecar.istio.io/inject": "false" } } } } });
    ward.patch(&gate, outside).await?;

    say_of_pods(side, "istio-ca-gate", false).await?;
    let none = || async { ward.finds(found("gate", "failed", "none of 2 pods is ready")).await.map(|_| ()) };
    eventually("the gate to be seen unready", SOON, none).await?;
    // Nobody answers the API server, so that a new pod is refused.
    let before = side.object(WEBHOOKS).await?.context("no webhooks")?;
    let mutating = side.object(MUTATING_WEBHOOKS).await?.context("no webhooks")?;
    let nobody = Port::reserve()?;
    side.point_webhooks_at(&[nobody.number()]).await?;
    side.restart("istiod").await?;
    let blocked = || async {
        let blocked = found("blocked", "failed", "failed calling webhook").also(&["gate", "webhook"]);
        ward.finds(blocked).await.map(|_| ())
    };
    eventually("istiod to be seen blocked", SOON, blocked).await?;
    ward.delete(WEBHOOKS).await?;
    ward.delete(MUTATING_WEBHOOKS).await?;
    side.restart("istiod").await?;
    side.cluster.kubectl(&["-n", NAMESPACE, "annotate", "rs", "-l", "app=istiod", "retry=now"]).await?;
    side.pod("istiod").await?;
    ward.restore(WEBHOOKS, &before).await?;
    ward.restore(MUTATING_WEBHOOKS, &mutating).await?;
    gate_is_ready(side).await
}

/// A kind that another product brings along, with nothing checked.
async fn kind(ward: &Ward, group: &str, version: &str, kind: &str, plural: &str) -> Result<()> {
    let schema = json!({ "openAPIV3Schema": { "type": "object", "x-kubernetes-preserve-unknown-fields": true } });
    let names =
        json!({ "kind": kind, "plural": plural, "singular": kind.to_lowercase(), "listKind": format!("{kind}List") });
    let definition = json!({
        "metadata": { "name": format!("{plural}.{group}") },
        "spec": {
            "group": group, "scope": "Namespaced", "names": names,
            "versions": [{ "name": version, "served": true, "storage": true, "schema": schema }],
        },
    });
    ward.post("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", definition).await?;
    let path = format!("/apis/{group}/{version}/{plural}");
    eventually(&format!("{plural} to be served"), SOON, || async { ward.send("GET", &path, None).await.map(|_| ()) })
        .await
}

/// The address of the set-up of old.
const OLD_ADDRESS: &str = "https://vault-vault-nas.vault.svc.cluster.local:8200";

#[tokio::test(flavor = "multi_thread")]
async fn a_nas_without_a_root_then_healthy_then_with_faults_of_its_neighbours() -> Result<()> {
    let ward = Ward::new(SmallWorld::nas().await?).await?;
    let gate = Gate::start(ward.side(), ward.vault()).await?;
    ward.side().deploy_istiod().await?;
    ward.side().refusal("istiod", "RootMissing").await?;
    // In a cluster without nodes its pods are not ready; here its process is.
    let missing = || found("vault-record", "failed", "RootMissing").also(&["blocked", "gate"]);
    let report = ward.finds(missing()).await?;
    ensure!(report.of("blocked")[0]["reason"] == "RootMissing", "{}", report.shown());
    ensure!(report.of("cacerts")[0]["outcome"] == "note", "{}", report.shown());

    let made = crate::cacerts::foreign_ca_for(3650).await?;
    let record = json!({
        "root-cert.pem": made["root-cert.pem"], "cert-chain.pem": made["cert-chain.pem"], "key.pem": made["ca-key.pem"],
    });
    ward.vault().ok("POST", "secret/data/istio/ca", Some(json!({ "data": record }))).await?;
    ward.settle(gate).await?;
    let report = ward.is_healthy().await?;
    ensure!(report.of("service-entry").is_empty() && report.of("external-secret").is_empty(), "{}", report.shown());

    kind(&ward, "networking.istio.io", "v1", "ServiceEntry", "serviceentries").await?;
    kind(&ward, "external-secrets.io", "v1", "ExternalSecret", "externalsecrets").await?;
    kind(&ward, "helm.toolkit.fluxcd.io", "v2", "HelmRelease", "helmreleases").await?;
    the_old_way(&ward).await?;
    external_secrets(&ward).await?;
    releases(&ward).await
}

/// The address through the mesh, and the gateway that it needs.
async fn the_old_way(ward: &Ward) -> Result<()> {
    let report = ward.finds(found("service-entry", "note", "there is none").also(&["eastwest-gateway"])).await?;
    let gateway = report.of("eastwest-gateway")[0];
    ensure!(
        gateway["outcome"] == "warning" && gateway["seen"].as_str().is_some_and(|seen| seen.contains("none of 1")),
        "{gateway}"
    );
    say_of_pods(ward.side(), "istio-eastwestgateway", true).await?;
    ward.post("/api/v1/namespaces", json!({ "metadata": { "name": "vault" } })).await?;
    let entry = json!({
        "apiVersion": "networking.istio.io/v1", "kind": "ServiceEntry", "metadata": { "name": "vault-vault-nas" },
        "spec": { "hosts": ["vault-vault-nas.vault.svc.cluster.local"] },
    });
    ward.post("/apis/networking.istio.io/v1/namespaces/vault/serviceentries", entry).await?;
    let report = ward.is_healthy().await?;
    ensure!(report.of("service-entry")[0]["outcome"] == "ok" && report.of("eastwest-gateway")[0]["outcome"] == "ok");

    ward.finds_with(&["--vault-addr", OLD_ADDRESS], &[], found("vault-address", "failed", "through the mesh only"))
        .await?;
    let behind = ["--vault-addr", ward.vault().address(), "--vault-addr", OLD_ADDRESS];
    let report = ward.finds_with(&behind, &[], found("vault-address", "warning", "through the mesh only")).await?;
    ensure!(report.of("vault-record")[0]["outcome"] == "ok", "{}", report.shown());
    Ok(())
}

async fn external_secrets(ward: &Ward) -> Result<()> {
    let path = "/apis/external-secrets.io/v1/namespaces/istio-system/externalsecrets";
    let condition = |status: &str| json!({ "conditions": [{ "type": "Ready", "status": status, "message": "could not get secret data" }] });
    let secret = |status: &str| {
        json!({
            "apiVersion": "external-secrets.io/v1", "kind": "ExternalSecret", "metadata": { "name": "istio-cacerts" },
            "spec": { "target": { "name": "cacerts" } }, "status": condition(status),
        })
    };
    ward.post(path, secret("True")).await?;
    ward.finds(found("external-secret", "warning", "two may write it")).await?;
    let one = format!("{path}/istio-cacerts");
    ward.patch(&one, json!({ "status": condition("False") })).await?;
    ward.finds(found("external-secret", "failed", "could not get secret data")).await?;
    // What it manages and is sound goes on being so.
    let label = json!({ "metadata": { "labels": { "reconcile.external-secrets.io/managed": "true" } } });
    ward.with(CACERTS, label, found("external-secret", "warning", "could not get secret data")).await?;
    ward.delete(&one).await?;
    ward.is_healthy().await?;
    Ok(())
}

async fn releases(ward: &Ward) -> Result<()> {
    let path = "/apis/helm.toolkit.fluxcd.io/v2/namespaces/istio-system/helmreleases";
    let release = |name: &str, chart: &str| {
        json!({
            "apiVersion": "helm.toolkit.fluxcd.io/v2", "kind": "HelmRelease", "metadata": { "name": name },
            "spec": { "chart": { "spec": { "chart": chart } } },
            "status": { "conditions": [{ "type": "Ready", "status": "False", "message": "context deadline exceeded" }] },
        })
    };
    ward.post(path, release("istiod", "istiod")).await?;
    ward.post(path, release("something", "else")).await?;
    let report = ward.finds(found("helm-release", "warning", "context deadline exceeded")).await?;
    ensure!(report.of("helm-release").len() == 1, "{}", report.shown());
    // By Flux's labels on the Deployment, whatever the chart is called.
    let made_by = json!({ "metadata": { "labels": {
        "helm.toolkit.fluxcd.io/name": "something", "helm.toolkit.fluxcd.io/namespace": NAMESPACE,
    }}});
    ward.patch(&format!("{DEPLOYMENTS}/istiod"), made_by).await?;
    ensure!(ward.run(&[], &[]).await?.of("helm-release").len() == 2);
    let stalled = json!({ "status": { "conditions": [
        { "type": "Ready", "status": "False", "message": "install retries exhausted" }, { "type": "Stalled", "status": "True" },
    ]}});
    ward.patch(&format!("{path}/istiod"), stalled).await?;
    let report = ward.finds(found("helm-release", "failed", "install retries exhausted")).await?;
    ensure!(report.shown().contains("reconcile helmrelease istiod --reset"), "{}", report.shown());
    Ok(())
}
