//! What the cluster's own gate is started with: where no flag says otherwise, doctor goes by the same.

use std::collections::BTreeMap;
use std::ffi::OsString;

use async_trait::async_trait;
use clap::parser::ValueSource;
use clap::{Arg, CommandFactory, Parser};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Container};

use super::Doctor;
use super::asked::Asked;
use super::check::{Check, Eyes, Sight};
use super::line::{Line, Link};
use super::look::{Asker, Look};
use crate::args::{Cli, Command, one_line};
use crate::reason::foreign_text;

/// Its Deployment, as all manifests of deploy/ name it.
const NAME: &str = "istio-ca-gate";

/// Files of the pod are not here.
const OF_THE_POD: [&str; 2] = ["VAULT_CACERT", "GATE_VAULT_JWT_FILE"];

/// What is meant by an address of Vault where the gate's own list is empty.
const ONE_ADDRESS: &str = "VAULT_ADDR";

const SERVICE_ACCOUNT: &str = "GATE_SERVICE_ACCOUNT";

/// What was taken, if anything was.
pub(super) struct Taken;

#[async_trait(?Send)]
impl Check for Taken {
    async fn look(&self, _: &Eyes<'_>, _: &mut Sight) {}

    fn lines(&self, seen: &Sight, asked: &Asked) -> Vec<Line> {
        let link = Link::new("settings", format!("Deployment {}/{NAME}", asked.namespace));
        let taken: Vec<_> = seen.taken.iter().map(|flag| foreign_text(flag)).collect();
        if taken.is_empty() { Vec::new() } else { vec![link.ok(format!("gives {}", taken.join(" ")))] }
    }
}

/// Values by the names of their variables.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct GateSettings(BTreeMap<String, String>);

/// Reads them.
pub(super) async fn look(asker: &Asker, namespace: &str) -> Look<GateSettings> {
    let deployment = match asker.get::<Deployment>(namespace, "deployments.apps", NAME).await {
        Look::Seen(deployment) => deployment,
        other => return other.map(|_| GateSettings::default()),
    };
    let pod = deployment.spec.and_then(|spec| spec.template.spec).unwrap_or_default();
    let mut values = BTreeMap::new();
    if let Some(container) = pod.containers.first() {
        for map in config_maps(container) {
            if let Look::Seen(map) = asker.get::<ConfigMap>(namespace, "configmaps", map).await {
                values.extend(map.data.unwrap_or_default());
            }
        }
        values.extend(own(container));
    }
    values.extend(pod.service_account_name.map(|name| (SERVICE_ACCOUNT.to_owned(), name)));
    values.retain(|_, value| !value.is_empty());
    Look::Seen(GateSettings(values))
}

fn config_maps(container: &Container) -> impl Iterator<Item = &str> {
    let sources = container.env_from.iter().flatten();
    sources.filter_map(|source| source.config_map_ref.as_ref()).map(|map| map.name.as_str())
}

/// Those that the container itself has; a flag wins over a variable.
fn own(container: &Container) -> Vec<(String, String)> {
    let variables = container.env.iter().flatten().filter_map(|it| Some((it.name.clone(), it.value.clone()?)));
    let command = Cli::command();
    let flags: Vec<&Arg> = command.find_subcommand("doctor").into_iter().flat_map(|it| it.get_arguments()).collect();
    let mut words = container.args.iter().chain(&container.command).flatten();
    let mut given = Vec::new();
    while let Some(word) = words.next() {
        let Some(flag) = word.strip_prefix("--") else { continue };
        let (long, value) = match flag.split_once('=') {
            Some((long, value)) => (long, Some(value)),
            None => (flag, None),
        };
        let Some(variable) = flags.iter().find(|it| it.get_long() == Some(long)).and_then(|it| variable(it)) else {
            continue;
        };
        let value = value.map(str::to_owned).or_else(|| words.next().cloned());
        given.extend(value.map(|value| (variable.to_owned(), value)));
    }
    variables.chain(given).collect()
}

fn variable(flag: &Arg) -> Option<&str> {
    flag.get_env()?.to_str()
}

/// The command line with what it leaves out, and what was taken for that.
///
/// # Errors
/// One line that names the flag of a value that cannot be.
pub(super) fn filled(
    line: &[OsString],
    settings: &GateSettings,
    address: bool,
) -> Result<(Doctor, Vec<String>), String> {
    let told = |error: &clap::Error| one_line(error).unwrap_or_default();
    let command = Cli::command();
    let matches = command.clone().try_get_matches_from(line).map_err(|error| told(&error))?;
    let given = |id: &str| {
        let source = matches.subcommand().and_then(|(_, matches)| matches.value_source(id));
        matches!(source, Some(ValueSource::CommandLine | ValueSource::EnvVariable))
    };
    let flags = command.find_subcommand("doctor").into_iter().flat_map(|doctor| doctor.get_arguments());
    let taken: Vec<String> = flags
        .filter(|flag| !given(flag.get_id().as_str()))
        .filter_map(|flag| {
            let (long, variable) = (flag.get_long()?, variable(flag)?);
            let of_vault = variable == "GATE_VAULT_ADDRS";
            if OF_THE_POD.contains(&variable) || of_vault && address {
                return None;
            }
            let value = settings.0.get(variable).or_else(|| settings.0.get(ONE_ADDRESS).filter(|_| of_vault))?;
            Some(format!("--{long}={value}"))
        })
        .collect();
    let line = line.iter().cloned().chain(taken.iter().map(OsString::from));
    match Cli::try_parse_from(line).map_err(|error| told(&error))?.command {
        Command::Doctor(doctor) => Ok((*doctor, taken)),
        _ => Err("the command is not doctor".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::plan::Role;

    fn line(args: &[&str]) -> Vec<OsString> {
        ["istio-ca-gate", "doctor"].iter().chain(args).map(OsString::from).collect()
    }

    fn settings(values: &[(&str, &str)]) -> GateSettings {
        GateSettings(values.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
    }

    #[test]
    fn what_no_flag_says_is_the_clusters_own_and_what_one_says_is_not() {
        let of_cluster = settings(&[
            ("GATE_ROLE", "sync"),
            ("GATE_VAULT_ADDRS", "https://a:8200,https://b:8200"),
            ("GATE_VAULT_AUTH_MOUNT", "kubernetes-nas"),
            ("VAULT_CACERT", "/etc/istio-ca-gate/ca.crt"),
            ("GATE_REFRESH", "60s"),
        ]);
        let (doctor, taken) = filled(&line(&["--vault-auth-mount", "mine"]), &of_cluster, false).unwrap();
        assert_eq!(doctor.role, Some(Role::Sync));
        let vault = doctor.vault.settings(Role::Sync).unwrap();
        assert_eq!((vault.addresses.len(), vault.auth_mount.as_str(), vault.ca_file), (2, "mine", None));
        assert_eq!(taken, ["--role=sync", "--vault-addr=https://a:8200,https://b:8200"]);
        // VAULT_ADDR of the asker's own is an address, too.
        assert_eq!(
            filled(&line(&[]), &of_cluster, true).unwrap().1,
            ["--role=sync", "--vault-auth-mount=kubernetes-nas"]
        );
    }

    #[test]
    fn a_value_that_cannot_be_is_named_with_its_flag() {
        let error = filled(&line(&[]), &settings(&[("GATE_ROLE", "primary")]), false).unwrap_err();
        assert!(error.contains("--role") && error.contains("GATE_ROLE"), "{error}");
    }

    #[test]
    fn a_containers_flags_win_over_its_variables() {
        let container: Container = serde_json::from_value(serde_json::json!({
            "name": "gate", "args": ["serve", "--role=bootstrap", "--vault-mount", "kv", "--log-format", "json"],
            "env": [{ "name": "GATE_ROLE", "value": "sync" }, { "name": "POD", "valueFrom": {} }],
        }))
        .unwrap();
        let values: BTreeMap<_, _> = own(&container).into_iter().collect();
        assert_eq!(settings(&[("GATE_ROLE", "bootstrap"), ("GATE_VAULT_MOUNT", "kv")]), GateSettings(values));
    }
}
