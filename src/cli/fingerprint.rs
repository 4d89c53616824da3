//! `istio-ca-gate fingerprint`: the line that openssl prints.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use k8s_openapi::jiff::Timestamp;

use super::source::{self, Unread};
use crate::args::values::dns_label;
use crate::args::{KubernetesArgs, VaultArgs};
use crate::ca::{Glance, file};
use crate::k8s::root_cert::Holder;
use crate::run::{Failure, parts};

/// Longest wait for the API server or Vault, a login included. A file may be a pipe, and is waited for.
const PATIENCE: Duration = Duration::from_secs(10);

/// `istio-ca-gate fingerprint`.
#[derive(Debug, Args)]
pub struct Fingerprint {
    /// PEM file, of which the first certificate counts; - is standard input
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    /// Cluster whose cacerts is read, by its context [else: GATE_CONTEXT, else the current one]
    #[arg(long, value_name = "CONTEXT")]
    context: Option<String>,
    /// Read Vault's record
    #[arg(long, env = "GATE_FINGERPRINT_VAULT")]
    vault: bool,
    /// SHA-1, as a plain `openssl x509 -fingerprint` prints, in place of SHA-256
    #[arg(long, env = "GATE_FINGERPRINT_SHA1")]
    sha1: bool,
    /// The whole line of `openssl x509 -fingerprint`
    #[arg(long, env = "GATE_FINGERPRINT_OPENSSL")]
    openssl: bool,
    /// Kubeconfig file [default: KUBECONFIG, else ~/.kube/config, else in-cluster]
    #[arg(long)]
    kubeconfig: Option<PathBuf>,
    /// Namespace of cacerts
    #[arg(long, short, env = "GATE_NAMESPACE", default_value = "istio-system", value_parser = dns_label)]
    namespace: String,
    /// Name of the Secret that istiod reads its CA from
    #[arg(long, env = "GATE_SECRET", default_value = "cacerts", value_parser = dns_label)]
    secret: String,
    /// How to reach Vault
    #[command(flatten)]
    vault_args: VaultArgs,
}

/// Runs it.
///
/// # Errors
/// Why there is no fingerprint, with the place and the next step.
pub async fn run(args: Fingerprint) -> Result<(), Failure> {
    // Not clap's own check, to which a variable that says `false` is a switch that is used.
    if [args.file.is_some(), args.context.is_some(), args.vault].iter().filter(|named| **named).count() > 1 {
        let more = "one root at a time: name one of FILE, --context and --vault (variable GATE_FINGERPRINT_VAULT)";
        return Err(Failure::Usage(more.to_owned()));
    }
    let root = match &args.file {
        Some(path) => of_file(path).await,
        None if args.vault => of_vault(&args.vault_args).await,
        None => of_cluster(&args).await,
    }?;
    // Whoever closed standard output does not want to know.
    let _ = writeln!(std::io::stdout(), "{}", line(&root, args.sha1, args.openssl));
    Ok(())
}

fn line(root: &Glance, sha1: bool, openssl: bool) -> String {
    // openssl spells its default in capitals and `-sha256` as it is written.
    let (name, digest) = if sha1 { ("SHA1", root.sha1.openssl()) } else { ("sha256", root.sha256.openssl()) };
    if openssl { format!("{name} Fingerprint={digest}") } else { digest }
}

async fn of_file(path: &Path) -> Result<Glance, Failure> {
    let (shown, pem) = if path == Path::new("-") {
        ("standard input".to_owned(), source::stdin().await)
    } else {
        (path.display().to_string(), source::file(path).await)
    };
    first(&pem.map_err(failure)?, &shown)
}

async fn of_vault(args: &VaultArgs) -> Result<Glance, Failure> {
    let mut vault = source::vault(args)?;
    let asked = source::stored(&mut vault, Timestamp::now());
    within("Vault", asked).await.map(|stored| stored.glance)
}

async fn of_cluster(args: &Fingerprint) -> Result<Glance, Failure> {
    let variable = || std::env::var("GATE_CONTEXT").ok().filter(|context| !context.is_empty());
    let context = args.context.clone().or_else(variable);
    let client = parts::client(&KubernetesArgs { kubeconfig: args.kubeconfig.clone(), context }).await?;
    let asked = source::object(&client, Holder::Secret, &args.namespace, &args.secret);
    let files = within("the API server", asked).await?;
    first(&files.root_cert, &format!("root-cert.pem of Secret {}/{}", args.namespace, args.secret))
}

fn first(pem: &[u8], shown: &str) -> Result<Glance, Failure> {
    file::first(pem).map_err(|why| Failure::Usage(format!("{}: give a PEM file, as root-cert.pem is", why.of(shown))))
}

async fn within<T>(who: &str, asked: impl Future<Output = Result<T, Unread>>) -> Result<T, Failure> {
    match tokio::time::timeout(PATIENCE, asked).await {
        Ok(told) => told.map_err(failure),
        Err(_) => Err(Failure::Usage(format!("no answer of {who} within {PATIENCE:?}: check the network"))),
    }
}

/// With a code it is held back; without one it cannot be told.
fn failure(unread: Unread) -> Failure {
    match unread.reason {
        Some(_) => Failure::Held(unread.to_string()),
        None => Failure::Usage(unread.sentence),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::reason::{ByItself, Held, Reason};
    use crate::samples::R1;

    #[test]
    fn a_line_is_the_digest_or_openssls_own() {
        let root = &R1.glance;
        let (sha256, sha1) = (root.sha256.openssl(), root.sha1.openssl());
        assert_eq!(line(root, false, false), sha256);
        assert_eq!(line(root, true, false), sha1);
        assert_eq!(line(root, false, true), format!("sha256 Fingerprint={sha256}"));
        assert_eq!(line(root, true, true), format!("SHA1 Fingerprint={sha1}"));
    }

    #[test]
    fn what_is_held_back_has_its_code_and_all_else_could_not_be_told() {
        let held = failure(Held::without_next(Reason::VaultSealed, "unseal it", ByItself::Unsaid).into());
        assert!(matches!(held, Failure::Held(text) if text == "VaultSealed: unseal it"));
        assert!(matches!(failure(Unread::new("x")), Failure::Usage(text) if text == "x"));
    }
}
