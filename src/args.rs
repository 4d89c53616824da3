//! The command line. Every flag has a variable; a wrong one is one line that names both.

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{CommandFactory, Parser, Subcommand};

use crate::cli::adopt::Adopt;
use crate::cli::check::Check;
use crate::cli::doctor::Doctor;
use crate::cli::explain::Explain;
use crate::cli::fingerprint::Fingerprint;
use crate::cli::rotate::Rotate;
use crate::cli::shell::{Completions, Man};
use crate::cli::verify::Verify;
pub(crate) use gate_service::args::values;
pub use gate_service::args::{KubernetesArgs, Once, Serve, VaultArgs};
pub use gate_service::converge::args::ClusterArgs;
pub(crate) use values::{cluster_name, dns_label, interval, signing_cluster_name};

/// Keeps istiod and the east-west gateway out until the shared Istio root CA from Vault is in place.
#[derive(Debug, Parser)]
#[command(version = crate::VERSION, name = "istio-ca-gate", arg_required_else_help = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the admission service
    Serve(Box<Serve>),
    /// Make the root where Vault has never had one, publish cacerts, and exit
    Bootstrap(Box<Once>),
    /// Mirror Vault's root into cacerts, and exit
    Sync(Box<Once>),
    /// Compare the roots of several places
    Verify(Box<Verify>),
    /// Print the fingerprint of a root
    Fingerprint(Box<Fingerprint>),
    /// Judge a CA's files offline, by the check that the gate opens by
    Check(Check),
    /// Check every link of the chain, and say what to do
    Doctor(Box<Doctor>),
    /// Tell what a reason code, an alert or a line of doctor means, and what to do
    Explain(Explain),
    /// Put the root of this cluster's cacerts into an empty Vault
    Adopt(Box<Adopt>),
    /// Replace the root over all clusters, step by step
    Rotate(Rotate),
    /// Print completions for a shell
    Completions(Completions),
    /// Write the man pages
    Man(Man),
}

/// An error of clap's as one line that names flag and variable. `None`: help or version, to be printed as it is.
pub fn one_line(error: &clap::Error) -> Option<String> {
    if matches!(
        error.kind(),
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
    ) {
        return None;
    }
    let rendered = error.render().to_string();
    let text = rendered.split("\n\n").next().unwrap_or_default().trim_start_matches("error: ");
    let mut line = one_spaced(text);
    // An address may have a password in it, wherever it was put by mistake.
    for kind in [ContextKind::InvalidValue, ContextKind::InvalidArg, ContextKind::InvalidSubcommand] {
        if let Some(ContextValue::String(given)) = error.get(kind).filter(|_| line.contains('@')) {
            line = line.replace(&one_spaced(given), "(withheld)");
        }
    }
    // What is printed may differ from what was given: by control characters, that is.
    if line.contains('@') {
        "an argument is wrong, and withheld since it may have a password in it".clone_into(&mut line);
    }
    line = with_suggestion(line, error);
    let named = match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(arg)) => vec![arg.clone()],
        Some(ContextValue::Strings(args)) => args.clone(),
        _ => Vec::new(),
    };
    let variables: Vec<String> = named.iter().filter_map(|arg| variable_of(arg)).collect();
    Some(match variables.as_slice() {
        [] => line,
        variables => format!("{line} (variable {})", variables.join(", ")),
    })
}

fn one_spaced(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// More possible values than these are a list of their own.
const LISTED_AT_MOST: usize = 12;

/// What was meant, where the parser has an idea of it; and no list that nobody reads to its end.
fn with_suggestion(mut line: String, error: &clap::Error) -> String {
    if let Some(ContextValue::Strings(values)) = error.get(ContextKind::ValidValue)
        && values.len() > LISTED_AT_MOST
        && let Some((before, _)) = line.split_once(" [possible values: ")
    {
        line = before.to_owned();
    }
    let kinds = [ContextKind::SuggestedValue, ContextKind::SuggestedArg, ContextKind::SuggestedSubcommand];
    match kinds.into_iter().find_map(|kind| error.get(kind)) {
        Some(ContextValue::String(meant)) => format!("{line}; did you mean {meant}?"),
        // The likeliest is the last.
        Some(ContextValue::Strings(meant)) => {
            meant.last().map_or(line.clone(), |meant| format!("{line}; did you mean {meant}?"))
        }
        _ => line,
    }
}

/// The variable of a flag that clap names as `--flag <VALUE>`, without the command that it is of.
fn variable_of(named: &str) -> Option<String> {
    let long = named.split([' ', '=']).next()?.strip_prefix("--")?;
    let command = Cli::command();
    let nested = || command.get_subcommands().flat_map(clap::Command::get_subcommands);
    let flags = command.get_subcommands().chain(nested()).flat_map(clap::Command::get_arguments);
    let flags: Vec<_> = flags.filter(|flag| flag.get_long() == Some(long)).collect();
    // Of several commands' flags, the name of the value tells which is meant; a switch has none.
    let is_meant = |flag: &&clap::Arg| {
        let values = flag.get_value_names().unwrap_or_default();
        values.iter().any(|value| named.contains(&format!("<{value}>")))
    };
    let meant: Vec<_> = flags.iter().copied().filter(is_meant).collect();
    let meant = if meant.is_empty() { flags } else { meant };
    let mut variables: Vec<_> = meant.iter().filter_map(|flag| flag.get_env()?.to_str()).collect();
    variables.dedup();
    (!variables.is_empty()).then(|| variables.join(" or "))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn error(args: &[&str]) -> String {
        one_line(&Cli::try_parse_from(["istio-ca-gate"].iter().chain(args)).unwrap_err()).unwrap()
    }

    #[test]
    fn a_wrong_value_is_one_line_with_flag_and_variable() {
        assert_eq!(
            error(&["serve", "--role", "x"]),
            "invalid value 'x' for '--role <ROLE>' [possible values: bootstrap, sync] (variable GATE_ROLE)"
        );
        let refresh = error(&["serve", "--role", "sync", "--refresh", "soon"]);
        assert!(refresh.contains("--refresh") && refresh.contains("(variable GATE_REFRESH)"), "{refresh}");
        assert!(!refresh.contains('\n'));
    }

    #[test]
    fn a_password_is_not_repeated_wherever_it_was_put_by_mistake() {
        let address = "https://gate:hunter2@vault:8200";
        for args in [
            &["serve", "--role", "sync", "--vault-addr", address][..],
            &["serve", "--role", "sync", &format!("--vault-addr{address}")],
            &["serve", "--role", "sync", address],
            &["serve", "--role", "sync", "--vault-addr", "https://gate:hunter2  @vault:8200"],
            &[address],
            &["rotate", address],
            &["serve", "--role", "sync", &format!("x\u{7f}{address}")],
        ] {
            let line = error(args);
            assert!(!line.contains("hunter2") && line.contains("withheld"), "{line}");
        }
    }

    #[test]
    fn a_missing_role_and_an_unknown_flag_are_named() {
        assert!(error(&["serve"]).contains("--role <ROLE> (variable GATE_ROLE)"));
        assert!(error(&["serve", "--rolle", "sync"]).contains("'--rolle'"));
    }

    #[test]
    fn flags_of_one_name_are_told_apart_or_have_all_their_variables_named() {
        assert!(error(&["verify", "--context"]).ends_with("(variable GATE_VERIFY_CONTEXTS)"));
        assert!(error(&["serve", "--context"]).ends_with("(variable GATE_CONTEXT)"));
        assert!(error(&["verify", "--vault=x"]).ends_with("(variable GATE_VERIFY_VAULT or GATE_FINGERPRINT_VAULT)"));
    }

    #[test]
    fn what_is_nearly_right_is_told_what_it_may_have_been() {
        for (args, meant) in [
            (&["explain", "VaultSeeled"][..], "VaultSealed"),
            (&["explain", "vault-tsl"], "vault-tls"),
            (&["docter"], "doctor"),
            (&["serve", "--rolle", "sync"], "--role"),
            (&["serve", "--role", "synk"], "sync"),
        ] {
            let line = error(args);
            assert!(line.contains(&format!("; did you mean {meant}?")), "{line}");
            assert!(line.len() < 160, "{line}");
        }
        assert!(!error(&["explain", "what"]).contains("possible"));
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
