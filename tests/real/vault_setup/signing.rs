//! The root's key in Vault's PKI engine, as `setup.sh --signing` sets it up: what each gate may, and all that it may not.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use istio_ca_gate::ca::record::SigningRecord;
use istio_ca_gate::ca::signer::{Asked, SignerKey, certified, issuing_root};
use istio_ca_gate::plan::Stored;
use istio_ca_gate::signer::{FIRST_ROOT, Signer, root_common_name};
use istio_ca_gate::vault::{Settings, Token, Vault as Client};
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};
use testbed::{Vault, VaultOptions};
use zeroize::Zeroizing;

use super::desk::Desk;
use super::{ALL, by_files, is_left_alone};
use crate::world::place;

const SIGN: &str = "pki-mesh/issuer/root-1/sign-intermediate";
const GENERATE: &str = "pki-mesh/root/generate/internal";
const RECORD: &str = "secret/data/istio/ca";
const LIFE: Duration = Duration::from_secs(2160 * 3600);

/// What `--signing` adds, in the order in which it is told.
const ADDED: [&str; 6] = [
    "pki-mesh/:",
    "sys/policies/acl/istio-ca-root:",
    "sys/policies/acl/istio-ca-rotate:",
    "sys/policies/acl/istio-ca-signer-homelab:",
    "auth/kubernetes/role/istio-ca-rotate:",
    "sys/policies/acl/istio-ca-signer-nas:",
];

async fn set_up(desk: &Desk, vault: &Vault) -> Result<Vec<String>> {
    let mut flags = by_files(desk, vault)?;
    flags.push("--signing".to_owned());
    let said = desk.set_up(&strs(&flags)).await?;
    ensure!(said.code == Some(0), "{said:?}");
    Ok(flags)
}

fn strs(flags: &[String]) -> Vec<&str> {
    flags.iter().map(String::as_str).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signer_for_each_cluster_is_set_up_once_and_by_what_is_printed_alike() -> Result<()> {
    let _place = place().await?;
    let vault = Vault::start(VaultOptions::default()).await?;
    let desk = Desk::new(&[]).await?.at(&vault).await?;
    let mut flags = by_files(&desk, &vault)?;
    // One that was of the shared kind: its roles are told of, and left alone.
    let said = desk.set_up(&strs(&flags)).await?;
    ensure!(said.code == Some(0), "{said:?}");
    flags.push("--signing".to_owned());
    let said = desk.set_up(&strs(&flags)).await?;
    let roles = ["auth/kubernetes/role/istio-ca-bootstrap:", "auth/kubernetes-nas/role/istio-ca-sync:"];
    ensure!(said.code == Some(1) && said.marked("WRONG    ") == roles, "{said:?}");
    ensure!(said.marked("changed  ") == ADDED, "{said:?}");
    desk.set_up(&[&strs(&flags)[..], &["--force"]].concat()).await?.changed(&roles)?;
    desk.set_up(&strs(&flags)).await?.changed_nothing_of(ALL.len() + ADDED.len())?;
    for (role, policies) in [
        (roles[0], json!(["istio-ca-bootstrap", "istio-ca-root", "istio-ca-signer-homelab"])),
        (roles[1], json!(["istio-ca-sync", "istio-ca-signer-nas"])),
        ("auth/kubernetes/role/istio-ca-rotate", json!(["istio-ca-rotate"])),
    ] {
        let told = vault.ok("GET", role.trim_end_matches(':'), None).await?;
        ensure!(told["data"]["token_policies"] == policies, "{told}");
        let accounts = &told["data"]["bound_service_account_names"];
        ensure!(role != "auth/kubernetes/role/istio-ca-rotate" || *accounts == json!(["istio-ca-rotate"]), "{told}");
    }

    // What is printed leads to the same, on another Vault.
    let other = Vault::start(VaultOptions::default()).await?;
    other.ok("DELETE", "sys/mounts/secret", None).await?;
    let printed = desk.set_up(&[&strs(&flags)[..], &["--print"]].concat()).await?;
    ensure!(printed.code == Some(0) && printed.err.is_empty(), "{printed:?}");
    let desk = Desk::new(&[]).await?.at(&other).await?;
    let ran = desk.run(Path::new("sh"), &["-e", &desk.write("printed.sh", &printed.out)?]).await?;
    ensure!(ran.code == Some(0), "{ran:?}");
    let mut flags = by_files(&desk, &other)?;
    flags.push("--signing".to_owned());
    let said = desk.set_up(&strs(&flags)).await?;
    // Only that other Vault's CA, which stands for that of an API server, is another.
    ensure!(said.marked("changed  ").is_empty() && said.out.contains("as is    pki-mesh/"), "{said:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_would_shorten_the_root_is_told_and_left_alone() -> Result<()> {
    let _place = place().await?;
    let vault = Vault::start(VaultOptions::default()).await?;
    let desk = Desk::new(&[]).await?.at(&vault).await?;
    let flags = set_up(&desk, &vault).await?;
    let step = [&strs(&flags)[..], &["vault"]].concat();
    let tune = json!({ "max_lease_ttl": "768h" });
    vault.ok("POST", "sys/mounts/pki-mesh/tune", Some(tune)).await?;
    is_left_alone(&desk.set_up(&step).await?, "vault secrets tune -max-lease-ttl=87600h pki-mesh")?;
    is_left_alone(&desk.set_up(&[&step[..], &["--force"]].concat()).await?, "would shorten the root")?;
    vault.ok("DELETE", "sys/mounts/pki-mesh", None).await?;
    vault.ok("POST", "sys/mounts/pki-mesh", Some(json!({ "type": "transit" }))).await?;
    is_left_alone(&desk.set_up(&step).await?, "pki-mesh/ is no PKI engine")?;
    for (args, says) in [
        (["--signing", "--nas-cluster", "*"], "other characters"),
        (["--signing", "--nas-cluster", "homelab"], "a name of its own"),
        (["--signing", "--pki-mount", "pki mesh"], "other characters"),
    ] {
        let said = desk.set_up(&args).await?;
        ensure!(said.code == Some(2) && said.out.is_empty() && said.err.contains(says), "{args:?}: {said:?}");
    }
    Ok(())
}

/// One who has the policies of a role, as a login gives them.
struct Holder<'a> {
    vault: &'a Vault,
    token: String,
}

impl<'a> Holder<'a> {
    async fn of(vault: &'a Vault, policies: &[&str]) -> Result<Self> {
        let made = vault.ok("POST", "auth/token/create", Some(json!({ "policies": policies, "ttl": "1h" }))).await?;
        Ok(Self { vault, token: made["auth"]["client_token"].as_str().context("no token")?.to_owned() })
    }

    async fn ask(&self, method: &str, path: &str, body: Option<Value>) -> Result<(u16, Value)> {
        self.vault.api_with(Some(&self.token), method, path, body).await
    }

    async fn may(&self, method: &str, path: &str, body: Option<Value>) -> Result<Value> {
        let (status, answer) = self.ask(method, path, body).await?;
        ensure!(matches!(status, 200 | 204), "{method} {path}: {status}: {answer}");
        Ok(answer)
    }

    /// It is refused, and for want of a right, in whatever words.
    async fn may_not(&self, what: &str, method: &str, path: &str, body: Option<Value>) -> Result<()> {
        let (status, answer) = self.ask(method, path, body).await?;
        ensure!(status == 403, "{what}: {status}: {answer}");
        println!("refused: {what}");
        Ok(())
    }

    /// The product's own client, with this token.
    fn client(&self) -> Result<Client> {
        let token = Token::new(Zeroizing::new(self.token.clone())).map_err(anyhow::Error::msg)?;
        let settings = Settings {
            addresses: vec![self.vault.address().parse()?],
            gone: Vec::new(),
            ca_file: Some(self.vault.ca_file()),
            namespace: None,
            auth_mount: String::new(),
            role: "istio-ca-sync".to_owned(),
            jwt_files: Vec::new(),
            token: Some(token),
            mount: "secret".to_owned(),
            path: "istio/ca".to_owned(),
            pki_mount: Some("pki-mesh".to_owned()),
            timeout: Duration::from_secs(20),
        };
        Client::new(settings).map_err(anyhow::Error::msg)
    }
}

fn signer(name: &str) -> Result<Value> {
    Ok(json!({
        "csr": SignerKey::generate()?.request(name)?, "common_name": "Istio Intermediate CA nas",
        "organization": "Istio", "ttl": "2160h", "max_path_length": "0", "not_before_duration": "1h", "format": "pem",
    }))
}

fn but(mut body: Value, changes: Value) -> Value {
    for (name, value) in changes.as_object().into_iter().flatten() {
        body[name] = value.clone();
    }
    body
}

fn without(mut body: Value, name: &str) -> Value {
    body.as_object_mut().map(|body| body.remove(name));
    body
}

/// Ways around the constraints of a policy for one name and one life.
fn ways_around() -> Result<Vec<(&'static str, Value)>> {
    let own = || signer("Istio Intermediate CA nas");
    let other = || signer("Istio Intermediate CA homelab");
    Ok(vec![
        ("another cluster's name", but(own()?, json!({ "common_name": "Istio Intermediate CA homelab" }))),
        ("its own name in lower case", but(own()?, json!({ "common_name": "istio intermediate ca nas" }))),
        ("no name: that of the request", without(other()?, "common_name")),
        ("an empty name: that of the request", but(other()?, json!({ "common_name": "" }))),
        ("a blank name", but(other()?, json!({ "common_name": " " }))),
        ("a comma for a name", but(other()?, json!({ "common_name": "," }))),
        ("no text for a name", but(other()?, json!({ "common_name": null }))),
        ("a list of two names", but(own()?, json!({ "common_name": ["Istio Intermediate CA nas", "x"] }))),
        (
            "the field of the name in capitals",
            but(without(other()?, "common_name"), json!({ "COMMON_NAME": "Istio Intermediate CA nas" })),
        ),
        ("a longer life", but(own()?, json!({ "ttl": "87600h" }))),
        ("the same life as a number", but(own()?, json!({ "ttl": 7_776_000 }))),
        ("an empty life: the mount's own", but(own()?, json!({ "ttl": "" }))),
        ("an end", but(own()?, json!({ "not_after": "2036-01-01T00:00:00Z" }))),
        ("a start long ago", but(own()?, json!({ "not_before_duration": "8760h" }))),
        ("room for a CA below", but(own()?, json!({ "max_path_length": "1" }))),
        ("room without end", but(own()?, json!({ "max_path_length": "-1" }))),
        ("the path length as a number", but(own()?, json!({ "max_path_length": 0 }))),
        ("no path length", without(own()?, "max_path_length")),
        ("the path length in capitals beside it", but(own()?, json!({ "Max_Path_Length": "5" }))),
        ("all of the request: use_csr_values", but(own()?, json!({ "use_csr_values": "true" }))),
        ("a DNS name", but(own()?, json!({ "alt_names": "istiod.istio-system.svc" }))),
        ("a SPIFFE identity", but(own()?, json!({ "uri_sans": "spiffe://cluster.local/ns/a/sa/b" }))),
        ("a name constraint", but(own()?, json!({ "permitted_dns_domains": "example" }))),
        ("another key's identifier", but(own()?, json!({ "skid": "00" }))),
        ("a key usage", but(own()?, json!({ "key_usage": "CRLSign" }))),
        ("another organization", but(own()?, json!({ "organization": "another" }))),
        ("nothing at all", json!({})),
    ])
}

/// What no gate may, with whatever it says.
fn beyond(key: &str) -> Vec<(&'static str, &'static str, String)> {
    let of = |part: &str| format!("pki-mesh/{part}");
    vec![
        ("read the root's key", "GET", of(&format!("key/{key}"))),
        ("list keys", "LIST", of("keys")),
        ("make another root", "POST", of("issuers/generate/root/internal")),
        ("make a root whose key is told", "POST", of("root/generate/exported")),
        ("replace the root", "POST", of("root/rotate/internal")),
        ("certify by the old path", "POST", of("root/sign-intermediate")),
        ("certify another root", "POST", of("issuer/root-1/sign-self-issued")),
        ("certify another root by the old path", "POST", of("root/sign-self-issued")),
        ("certify a leaf", "POST", of("issuer/root-1/sign-verbatim")),
        ("certify a leaf by the old path", "POST", of("sign-verbatim")),
        ("bring a root along", "POST", of("issuers/import/bundle")),
        ("see how an issuer is configured", "GET", of("issuer/root-1")),
        ("retire an issuer", "PATCH", of("issuer/root-1")),
        ("configure an issuer anew", "POST", of("issuer/root-1")),
        ("delete an issuer", "DELETE", of("issuer/root-1")),
        ("choose the issuer that is the default", "POST", of("config/issuers")),
        ("revoke", "POST", of("revoke")),
        ("delete all", "DELETE", of("root")),
        ("let anybody have leaves", "POST", of("roles/x")),
        ("tune the engine", "POST", "sys/mounts/pki-mesh/tune".to_owned()),
        ("disable the engine", "DELETE", "sys/mounts/pki-mesh".to_owned()),
        ("delete the record", "DELETE", RECORD.to_owned()),
        ("destroy a version of the record", "POST", "secret/destroy/istio/ca".to_owned()),
        ("take the record's metadata away", "DELETE", "secret/metadata/istio/ca".to_owned()),
        ("see the metadata of all clusters", "LIST", "secret/metadata/istio/clusters".to_owned()),
        ("give itself rights", "POST", "sys/policies/acl/istio-ca-sync".to_owned()),
    ]
}

fn versioned(cas: u64) -> Option<Value> {
    Some(json!({ "options": { "cas": cas }, "data": { "root-cert.pem": "x", "issuer": "root-1" } }))
}

#[tokio::test(flavor = "multi_thread")]
async fn each_gate_may_certify_its_own_name_and_nothing_else() -> Result<()> {
    let _place = place().await?;
    let vault = Vault::start(VaultOptions::default()).await?;
    let desk = Desk::new(&[]).await?.at(&vault).await?;
    set_up(&desk, &vault).await?;
    let homelab = Holder::of(&vault, &["istio-ca-bootstrap", "istio-ca-root", "istio-ca-signer-homelab"]).await?;
    let nas = Holder::of(&vault, &["istio-ca-sync", "istio-ca-signer-nas"]).await?;
    let root = makes_the_root_once(&homelab, &nas).await?;
    certifies_its_own(&homelab, "homelab", &root).await?;
    certifies_its_own(&nas, "nas", &root).await?;

    let ways = ways_around()?;
    ensure!(ways.len() >= 16);
    for (what, body) in ways {
        nas.may_not(what, "POST", SIGN, Some(body)).await?;
    }
    let told = vault.ok("GET", "pki-mesh/issuer/root-1", None).await?;
    let key = told["data"]["key_id"].as_str().context("no key")?;
    for gate in [&homelab, &nas] {
        for (what, method, path) in beyond(key) {
            let body = matches!(method, "POST" | "PATCH").then(|| json!({ "usage": "read-only", "policy": "x" }));
            gate.may_not(what, method, &path, body).await?;
        }
    }
    // Whoever may do all cannot read it either.
    let told = vault.ok("GET", &format!("pki-mesh/key/{key}"), None).await?;
    let fields: Vec<_> = told["data"].as_object().into_iter().flatten().map(|(field, _)| field.as_str()).collect();
    ensure!(fields == ["key_id", "key_name", "key_type", "subject_key_id"], "{told}");

    records_are_not_theirs(&homelab, &nas).await
}

/// The bootstrap gate makes `root-1`, as it has to be and once; nobody else makes one.
async fn makes_the_root_once(homelab: &Holder<'_>, nas: &Holder<'_>) -> Result<String> {
    let profile = json!({
        "issuer_name": "root-1", "common_name": root_common_name(FIRST_ROOT), "organization": "Istio", "ttl": "87600h",
        "key_type": "rsa", "key_bits": "4096", "not_before_duration": "1h", "exclude_cn_from_sans": "true",
        "format": "pem",
    });
    nas.may_not("the sync role makes the root", "POST", GENERATE, Some(profile.clone())).await?;
    for (what, body) in [
        ("a root without a name", without(profile.clone(), "issuer_name")),
        ("a root of an empty name", but(profile.clone(), json!({ "issuer_name": "" }))),
        ("a root of another name", but(profile.clone(), json!({ "issuer_name": "root-2" }))),
        ("a root of a small key", but(profile.clone(), json!({ "key_bits": "2048" }))),
        ("a root of another kind of key", but(profile.clone(), json!({ "key_type": "ec" }))),
        ("a root of a life of its own", but(profile.clone(), json!({ "ttl": "8760h" }))),
        ("a root without a life", but(profile.clone(), json!({ "ttl": "" }))),
        ("a root with a limit of its own", but(profile.clone(), json!({ "max_path_length": "0" }))),
        ("a root with a name of a host", but(profile.clone(), json!({ "alt_names": "a.example" }))),
        ("a root with a key that is there", but(profile.clone(), json!({ "key_ref": "default" }))),
        ("a root of nothing", json!({})),
    ] {
        homelab.may_not(what, "POST", GENERATE, Some(body)).await?;
    }
    let mut client = homelab.client()?;
    let made = client.make_root(FIRST_ROOT, &root_common_name(FIRST_ROOT)).await;
    let root = made.map_err(|refused| anyhow!("{refused:?}"))?;
    let (status, answer) = homelab.ask("POST", GENERATE, Some(profile)).await?;
    ensure!(status == 400 && answer["errors"] == json!(["issuer name already in use"]), "{status}: {answer}");
    let again = client.make_root(FIRST_ROOT, &root_common_name(FIRST_ROOT)).await;
    ensure!(again.map_err(|refused| anyhow!("{refused:?}"))? == root);
    let told = homelab.vault.ok("GET", "pki-mesh/issuer/root-1", None).await?;
    ensure!(told["data"]["leaf_not_after_behavior"] == "always_enforce_err", "{told}");
    let path = "pki-mesh/issuer/root-1";
    for (what, body) in [
        ("let signers outlive the root", json!({ "leaf_not_after_behavior": "permit" })),
        ("another name", json!({ "leaf_not_after_behavior": "always_enforce_err", "issuer_name": "x" })),
    ] {
        homelab.may_not(what, "PATCH", path, Some(body)).await?;
    }
    Ok(root)
}

/// What the product asks for is given, and passes the strict check.
async fn certifies_its_own(gate: &Holder<'_>, cluster: &str, root: &str) -> Result<()> {
    let name = istio_ca_gate::ca::signer::common_name(cluster);
    let record = SigningRecord::parse(&SigningRecord::first(root, &FIRST_ROOT.parse()?), Timestamp::now())?;
    let key = SignerKey::generate()?;
    let mut client = gate.client()?;
    let issuer = client.issuer(FIRST_ROOT).await.map_err(|refused| anyhow!("{refused:?}"))?;
    ensure!(issuer == root);
    let signer = client.certify(FIRST_ROOT, &key.request(&name)?, &name, LIFE).await;
    let signer = signer.map_err(|refused| anyhow!("{refused:?}"))?;
    let asked = Asked { key: &key, common_name: &name, life: LIFE, at: Timestamp::now() };
    certified(&record, issuing_root(&record, &issuer)?, &signer, &asked)?;
    let other = client.certify(FIRST_ROOT, &key.request("x")?, "Istio Intermediate CA another", LIFE).await;
    let sentence = other.err().context("it was certified")?.held.sentence();
    ensure!(sentence.contains("does not let role"), "{sentence}");
    Ok(())
}

/// The record is the conductor's after its first version, and what a cluster says of itself is its own.
async fn records_are_not_theirs(homelab: &Holder<'_>, nas: &Holder<'_>) -> Result<()> {
    nas.may_not("the sync role writes the record", "POST", RECORD, versioned(0)).await?;
    homelab.may("POST", RECORD, versioned(0)).await?;
    for gate in [homelab, nas] {
        gate.may("GET", RECORD, None).await?;
        gate.may_not("the record is written over", "POST", RECORD, versioned(1)).await?;
        gate.may_not("the record is patched", "PATCH", RECORD, versioned(1)).await?;
    }
    let of = |cluster: &str| format!("secret/data/istio/clusters/{cluster}");
    for (gate, own, other) in [(homelab, "homelab", "nas"), (nas, "nas", "homelab")] {
        gate.may("POST", &of(own), versioned(0)).await?;
        gate.may("POST", &of(own), versioned(1)).await?;
        gate.may("GET", &of(own), None).await?;
        gate.may_not("another cluster's word is written", "POST", &of(other), versioned(0)).await?;
        gate.may_not("another cluster's word is read", "GET", &of(other), None).await?;
        gate.may_not("its own word is deleted", "DELETE", &of(own), None).await?;
    }
    who_changes_the_root(nas.vault).await
}

/// The role that no gate has: the record, crosses and retirement are its own; keys and signers are not.
async fn who_changes_the_root(vault: &Vault) -> Result<()> {
    let conductor = Holder::of(vault, &["istio-ca-rotate"]).await?;
    let made = but(
        json!({ "issuer_name": "root-2", "common_name": root_common_name("root-2"), "organization": "Istio" }),
        json!({ "ttl": "87600h", "key_type": "ec", "key_bits": "256", "not_before_duration": "1h" }),
    );
    conductor.may_not("a root without a name", "POST", GENERATE, Some(without(made.clone(), "issuer_name"))).await?;
    let made = conductor.may("POST", GENERATE, Some(made)).await?;
    let new = json!({ "certificate": made["data"]["certificate"] });
    conductor.may("POST", "pki-mesh/issuer/root-1/sign-self-issued", Some(new)).await?;
    for usage in ["read-only", "read-only,issuing-certificates,crl-signing"] {
        conductor.may("PATCH", "pki-mesh/issuer/root-1", Some(json!({ "usage": usage }))).await?;
    }
    conductor.may("GET", RECORD, None).await?;
    conductor.may("POST", RECORD, versioned(1)).await?;
    let (status, answer) = conductor.ask("POST", RECORD, versioned(1)).await?;
    ensure!(status == 400, "{answer}");
    conductor.may("POST", "secret/destroy/istio/ca", Some(json!({ "versions": [1] }))).await?;
    let told = conductor.may("GET", "secret/metadata/istio/ca", None).await?;
    ensure!(told["data"]["versions"]["1"]["destroyed"] == true && told["data"]["current_version"] == 2, "{told}");
    let told = conductor.may("LIST", "secret/metadata/istio/clusters", None).await?;
    ensure!(told["data"]["keys"] == json!(["homelab", "nas"]), "{told}");
    conductor.may("GET", "secret/data/istio/clusters/nas", None).await?;
    for (what, method, path) in [
        ("the conductor speaks for a cluster", "POST", "secret/data/istio/clusters/nas"),
        ("the conductor reads keys", "GET", "pki-mesh/key/default"),
        ("the conductor certifies a signer", "POST", SIGN),
        ("the conductor deletes an issuer", "DELETE", "pki-mesh/issuer/root-1"),
        ("the conductor makes a root whose key is told", "POST", "pki-mesh/root/generate/exported"),
        ("the conductor takes the record's metadata away", "DELETE", "secret/metadata/istio/ca"),
    ] {
        conductor.may_not(what, method, path, (method == "POST").then(|| json!({ "csr": "x" }))).await?;
    }
    conductor.may("DELETE", "secret/metadata/istio/clusters/nas", None).await?;
    Ok(())
}

/// A root as the shared kind has it, made here and in every cluster.
#[tokio::test(flavor = "multi_thread")]
async fn a_shared_root_moves_into_the_engine_byte_for_byte_and_its_key_out_of_the_record() -> Result<()> {
    let _place = place().await?;
    let vault = Vault::start(VaultOptions::default()).await?;
    let desk = Desk::new(&[]).await?.at(&vault).await?;
    set_up(&desk, &vault).await?;
    let now = Timestamp::now();
    let made =
        tokio::task::spawn_blocking(move || istio_ca_gate::ca::issue::root("Istio Root CA homelab", now)).await??;
    let body = json!({ "options": { "cas": 0 }, "data": made.to_record() });
    vault.ok("POST", RECORD, Some(body)).await?;

    let conductor = Holder::of(&vault, &["istio-ca-rotate"]).await?;
    let mut client = conductor.client()?;
    let found = client.read(now).await.map_err(|refused| anyhow!("{refused:?}"))?;
    let Stored::Sound { version: 1, sound } = found.stored else { anyhow::bail!("{found:?}") };
    for _ in 0..2 {
        let name = client.import_root(FIRST_ROOT, &sound).await.map_err(|refused| anyhow!("{refused:?}"))?;
        ensure!(name == FIRST_ROOT);
    }
    let root = client.issuer(FIRST_ROOT).await.map_err(|refused| anyhow!("{refused:?}"))?;
    ensure!(root.as_bytes() == sound.bundle.root_cert, "{root}");
    let told = vault.ok("GET", "pki-mesh/issuer/root-1", None).await?;
    ensure!(told["data"]["leaf_not_after_behavior"] == "always_enforce_err", "{told}");
    let listed = vault.ok("LIST", "pki-mesh/issuers", None).await?;
    ensure!(listed["data"]["keys"].as_array().is_some_and(|keys| keys.len() == 1), "{listed}");

    let record = SigningRecord::first(&root, &FIRST_ROOT.parse()?);
    conductor.may("POST", RECORD, Some(json!({ "options": { "cas": 1 }, "data": record }))).await?;
    let destroyed = client.destroy_before(2).await.map_err(|refused| anyhow!("{refused:?}"))?;
    ensure!(destroyed == [1] && vault.api("GET", &format!("{RECORD}?version=1"), None).await?.0 == 404);
    let nas = Holder::of(&vault, &["istio-ca-sync", "istio-ca-signer-nas"]).await?;
    certifies_its_own(&nas, "nas", &root).await
}
