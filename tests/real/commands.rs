//! Every command of README and docs that can run here, read out of the document and run: against two real clusters, their
//! gates and a Vault. What cannot is listed with the reason.

pub mod blocks;
mod here;

use std::path::Path;

use anyhow::{Result, ensure};

use self::blocks::{Block, blocks, commands};
use self::here::Here;
use crate::world;

/// README and the documents.
fn pages() -> Result<Vec<String>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    let entries = std::fs::read_dir(folder)?.map(|entry| Ok(format!("docs/{}", entry?.file_name().to_string_lossy())));
    let mut pages = entries.collect::<Result<Vec<_>>>()?;
    pages.retain(|page| page.ends_with(".md"));
    pages.sort();
    pages.insert(0, "README.md".to_owned());
    Ok(pages)
}

/// Commands that cannot run here, by what they have in them, and why. Each stands in a document.
const NOT_HERE: [(&str, &str); 23] = [
    ("cargo run", "it is the sandbox's own test"),
    ("cargo install", "it builds the program once more"),
    ("./test", "it is this"),
    ("docker ", "no container engine"),
    ("gcloud ", "another's cloud"),
    ("istioctl ", "no proxy"),
    ("flux ", "Flux's command line is not to be had; its controller has tests of its own"),
    ("helm --kube-context", "the tests of the chart install it"),
    ("rollout status", "no kubelet: no pod gets ready"),
    ("wait --for=condition=complete", "no kubelet: no Job runs"),
    ("logs ", "no kubelet"),
    ("run vault-check", "no kubelet"),
    ("get service vault-direct", "nobody gives it an address"),
    ("openssl s_client", "this Vault's certificate is for an address"),
    ("timedatectl", "of a node"),
    ("operator unseal", "it asks for a key"),
    ("https://vault-a.example", "there is one Vault"),
    ("externalsecret istio-cacerts --overwrite force-sync", "the tests of External Secrets ask for a sync"),
    ("vault login       ", "it asks for a token"),
    ("rotate rescue ", "no cluster here has a root of its own; the rescue has tests of its own"),
    ("status --watch", "it ends when a person has seen enough"),
    ("--signing --nas-cluster", "its other flags are left out; the script's own tests have them"),
    ("raft snapshot restore", "it takes a Vault back to before its logins were written anew"),
];

/// What a person puts in place of what a document has: names that lead nowhere, and what is theirs.
const PUT_IN_PLACE: [(&str, &str); 10] = [
    ("https://vault.homelab.example:8200", "$VAULT"),
    ("https://vault.example:8200 GATE", "$VAULT GATE"),
    ("http://localhost:8080", "$GATE"),
    ("VAULT_TOKEN=…", "VAULT_TOKEN=$VAULT_TOKEN"),
    ("/tmp/token", "token"),
    ("https://homelab.example:6443", "$HOMELAB"),
    ("https://nas.example:6443", "$NAS"),
    ("https://kubernetes.default.svc.cluster.local", "$NAS_ISSUER"),
    ("attic", "nas"),
    ("cp vault-ca.crt deploy", "cp \"$VAULT_CACERT\" deploy"),
];

/// What has to be so before a block that has this in it, as a script. `RESET` begins with version 1 of the record, `SIGNING`
/// with one of the signing kind, by which both clusters say that they work.
const BEFORE: [(&str, &str); 25] = [
    ("rotate status\n", "SIGNING"),
    ("rotate start --ttl", "SIGNING"),
    ("rotate step  ", "SIGNING\nistio-ca-gate rotate start"),
    ("-max-lease-ttl=87600h pki\n", "vault secrets disable pki-mesh"),
    (
        "policy read istio-ca-signer-nas",
        "sed s/CLUSTER/nas/g deploy/vault/istio-ca-signer.hcl | vault policy write istio-ca-signer-nas -",
    ),
    (
        "rotate import --of",
        "RESET
        vault secrets disable pki-mesh
        vault secrets enable -path=pki-mesh -max-lease-ttl=87600h pki",
    ),
    ("kubectl-istio_ca_gate  ", "mkdir -p ~/.cargo/bin"),
    ("create serviceaccount", "kubectl -n istio-system delete serviceaccount istio-ca-sync --ignore-not-found"),
    (
        "describe externalsecret",
        "kubectl apply -f - <<<'{\"apiVersion\":\"external-secrets.io/v1\",\"kind\":\"ExternalSecret\",
        \"metadata\":{\"name\":\"istio-cacerts\",\"namespace\":\"istio-system\"}}'",
    ),
    ("create namespace istio-ca-gate-self-test", "kubectl delete namespace istio-ca-gate-self-test --ignore-not-found"),
    ("--nas-by review", "vault auth disable kubernetes-nas"),
    ("-cas=0", "vault kv metadata delete -mount=secret istio/ca"),
    ("adopt --yes", "vault kv metadata delete -mount=secret istio/ca"),
    (
        "adopt --own",
        "kubectl --context homelab -n istio-system get secret cacerts -o json --show-managed-fields |
        jq '.metadata.managedFields |= map(select(.manager != \"istio-ca-gate\"))' | kubectl --context homelab replace -f -",
    ),
    ("istio-ca-gate completions", "mkdir -p ~/.local/share/bash-completion/completions ~/.zfunc ~/.local/share/man/man1"),
    ("gpg --encrypt", "gpg --batch --passphrase '' --quick-generate-key you@example.org default default never"),
    ("gpg --decrypt istio-ca.json.gpg | jq .data", "vault kv metadata delete -mount=secret istio/ca"),
    ("kv undelete", "RESET\nvault kv delete -mount=secret istio/ca"),
    ("kv rollback", "RESET\nvault kv patch -mount=secret istio/ca note=x"),
    ("-cas=1", "RESET"),
    ("secrets enable -path=secret", "vault secrets disable secret"),
    ("rate-limit/NAME", "vault write sys/quotas/rate-limit/NAME rate=100000"),
    (
        "pki-mesh/issuers",
        "vault secrets disable pki-mesh
        vault secrets enable -path=pki-mesh pki
        vault write pki-mesh/root/generate/internal common_name=root issuer_name=root-1",
    ),
    ("/data/ca-crl.pem", "kubectl -n istio-system patch secret cacerts --type=merge -p '{\"data\":{\"ca-crl.pem\":\"\"}}'"),
    (
        "create secret generic cacerts",
        "vault kv metadata delete -mount=secret istio/ca
        kubectl -n istio-system delete secret/cacerts configmap/istio-ca-gate --ignore-not-found",
    ),
];

/// The root, the chain and the key that a change of the root is to.
const NEW_ROOT: &str = "openssl req -x509 -newkey rsa:2048 -nodes -days 3650 -subj '/O=Istio/CN=New Root' \
    -addext keyUsage=critical,keyCertSign,cRLSign -keyout new-ca-key.pem -out new-root.pem 2>new-root.log
    cp new-root.pem new-ca.pem
    cp new-root.pem new-chain.pem";

/// Commands that look, and end with 1 where they find something: without a kubelet no pod is ready, and no cluster gets a
/// signer.
const MAY_FIND_SOMETHING: [&str; 5] = [
    "istio-ca-gate doctor",
    "nas diff",
    "grep -E 'GATE_VAULT_(MOUNT|PATH)'",
    "setup.sh --signing",
    "rotate import --of",
];

/// A block with one of these ends the set-up: it comes last.
const LAST: &str = "delete -k deploy/kustomize/overlays";

/// Runs what can run here of a block. How many commands that were.
async fn carry_out(here: &Here, block: &Block) -> Result<usize> {
    let (mut script, mut count) = ("set -euo pipefail\n".to_owned(), 0);
    for (needle, before) in BEFORE {
        if block.text.contains(needle) {
            if before.starts_with("RESET") {
                here.reset().await?;
            }
            if before.starts_with("SIGNING") {
                here.signing().await?;
            }
            let before = before.trim_start_matches("RESET").trim_start_matches("SIGNING");
            here.run(&format!("set -euo pipefail\n{before}")).await?;
        }
    }
    for command in commands(&block.text).await? {
        let is_comment = command.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#'));
        let is_there = command.contains("create namespace istio-system");
        if is_comment || is_there || NOT_HERE.iter().any(|(needle, _)| command.contains(needle)) {
            continue;
        }
        count += 1;
        let command = PUT_IN_PLACE.iter().fold(command, |text, (from, to)| text.replace(from, to));
        if MAY_FIND_SOMETHING.iter().any(|needle| command.contains(needle)) {
            script.push_str(&format!("set +e\n{command}code=$?\nset -e\n[ \"$code\" -le 1 ]\n"));
        } else {
            script.push_str(&command);
        }
    }
    if count > 0 {
        here.run(&script).await?;
    }
    Ok(count)
}

#[tokio::test(flavor = "multi_thread")]
async fn each_command_of_the_documents_that_can_run_here_runs() -> Result<()> {
    let pages = pages()?;
    let mut blocks = blocks(&pages)?;
    let listed = NOT_HERE.iter().chain(&BEFORE).map(|(needle, _)| needle).chain(&MAY_FIND_SOMETHING);
    for needle in listed {
        ensure!(blocks.iter().any(|block| block.text.contains(needle)), "no document has {needle} any more");
    }
    blocks.sort_by_key(|block| block.text.contains(LAST));
    let _place = world::place().await?;
    let here = Here::start().await?;
    here.run(NEW_ROOT).await?;
    let (mut run, mut failed, mut previous) = (0, Vec::new(), None);
    for block in &blocks {
        here.files().await?;
        here.heal(previous).await?;
        match carry_out(&here, block).await {
            Ok(count) => run += count,
            Err(error) => failed.push(format!("{}: {error:#}", block.place)),
        }
        previous = Some(block);
    }
    println!("{run} commands of {} blocks in {} pages", blocks.len(), pages.len());
    ensure!(failed.is_empty(), "{} failed:\n{}", failed.len(), failed.join("\n----\n"));
    ensure!(run > 150, "{run}");
    Ok(())
}
