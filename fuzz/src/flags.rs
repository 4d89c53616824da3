//! The command line: an argument a line. A flag means what its variable means; an error is one line without a password.

use std::env;

use clap::{CommandFactory as _, Parser as _};
use istio_ca_gate::args::{Cli, Command, one_line};
use istio_ca_gate::plan::Role;

pub(crate) const WORDS: &[&str] = &[
    "serve",
    "bootstrap",
    "sync",
    "verify",
    "fingerprint",
    "check",
    "doctor",
    "explain",
    "adopt",
    "rotate",
    "completions",
    "man",
    "start",
    "status",
    "--role",
    "--cluster",
    "--namespace",
    "--secret",
    "--gate-selector",
    "--vault-addr",
    "--vault-gone",
    "--vault-timeout",
    "--refresh",
    "--max-staleness",
    "--listen",
    "--admin-listen",
    "--dns-name",
    "--tls-leaf-life",
    "--reconcile-helmrelease",
    "--vault-path",
    "--vault-mount",
    "--vault-namespace",
    "--log-filter",
    "--signer-life",
    "--retry-max",
    "--peer",
    "--help",
    "--version",
    "--",
    "-",
    "-n",
    "=",
    "\n",
    ",",
    ";",
    "https://vault:8200",
    "https://u:hunter2@vault:8200",
    "off",
    "[::]:8443",
    "127.0.0.1:0",
    "3s",
    "0s",
    "1ns",
    "584554531years",
    "99999999999999999999s",
    "-1s",
    "app in (a,b)",
    "app=istiod",
    "a/b",
    "../x",
    "istio/ca",
    "halt",
    "replace",
    "deny",
    "allow-verified",
    "%00",
    "ns/name",
    "http://",
    "*.example",
    "sync",
];

/// What stands for a password.
const PASSWORD: &str = "hunter2";

pub(crate) fn run(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let arguments: Vec<&str> = text.lines().collect();
    let parsed = parse(&arguments);
    if let Err(error) = &parsed {
        // Only as a part of an address is it a password.
        let is_password = text.contains(PASSWORD) && !text.replace(&format!(":{PASSWORD}@"), "").contains(PASSWORD);
        if let Some(line) = one_line(error) {
            assert!(!line.is_empty() && !line.contains('\n'), "{line:?}");
            assert!(!is_password || !line.contains(PASSWORD), "{line}");
        }
    }
    if let Ok(Cli { command: Command::Serve(serve) }) = &parsed {
        for role in [Role::Bootstrap, Role::Sync] {
            if let Ok(settings) = serve.vault.settings(role) {
                assert!(settings.addresses.iter().all(|address| address.password().is_none() && address.path() == "/"));
                assert!(settings.gone.iter().all(|gone| settings.addresses.contains(gone)));
            }
        }
        assert!(
            !serve.converge.gate_selectors.is_empty()
                && serve.converge.gate_selectors.iter().all(|one| !one.selects_all())
        );
        assert!(!serve.refresh.is_zero() && !serve.converge.retry_max.is_zero());
    }
    by_variable(&arguments, &parsed);
}

fn parse(arguments: &[&str]) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(["istio-ca-gate"].iter().chain(arguments))
}

/// The same with the last `--flag=value` of a command given by its variable.
fn by_variable(arguments: &[&str], parsed: &Result<Cli, clap::Error>) {
    let Some((command, flags)) = arguments.split_first() else { return };
    let Some((last, others)) = flags.split_last() else { return };
    let Some((name, value)) = last.strip_prefix("--").and_then(|flag| flag.split_once('=')) else { return };
    let tree = Cli::command();
    let Some(of) = tree.get_subcommands().find(|known| known.get_name() == *command) else { return };
    let Some(flag) = of.get_arguments().find(|flag| flag.get_long() == Some(name)) else { return };
    let Some(variable) = flag.get_env().and_then(|name| name.to_str()) else { return };
    // A switch's variable is a word, and what has no value is not given. What is repeated adds up, on the command line alone.
    let is_given = others.iter().any(|other| other.starts_with(&format!("--{name}")) || *other == "--");
    if !flag.get_action().takes_values() || value.is_empty() || value.contains('\0') || is_given {
        return;
    }
    let without: Vec<&str> = std::iter::once(*command).chain(others.iter().copied()).collect();
    set(variable, Some(value));
    let by_variable = parse(&without);
    set(variable, None);
    match (parsed, by_variable) {
        (Ok(one), Ok(other)) => assert_eq!(format!("{one:?}"), format!("{other:?}")),
        (Err(_), Err(_)) => {}
        (one, other) => assert!(one.is_ok() == other.is_ok(), "{last} and {variable}={value}: {one:?} {other:?}"),
    }
}

/// For the one read that follows.
fn set(name: &str, value: Option<&str>) {
    // A run of a target has one thread that reads or writes the environment: the tests' and libFuzzer's run one at a time.
    #[allow(unsafe_code)]
    unsafe {
        match value {
            Some(value) => env::set_var(name, value),
            None => env::remove_var(name),
        }
    }
}
