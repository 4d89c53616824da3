//! The programs of the real components: found, or built once from the Go modules in `testbed/go`.
//!
//! A folder with etcd, kube-apiserver and kube-controller-manager is looked for in `KUBEBUILDER_ASSETS`,
//! `/usr/local/kubebuilder/bin` and `PATH`, vault in the same places.

use std::env;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use aws_lc_rs::digest::{Context as Digest, SHA256};

use crate::process::Program;

/// Where controller-runtime's test environment is installed by convention.
const DEFAULT_ASSETS: &str = "/usr/local/kubebuilder/bin";

/// A Go module in `testbed/go` that builds to one program.
#[derive(Debug)]
pub struct Module {
    /// The name of its folder.
    pub name: &'static str,
    /// What of it is built.
    package: &'static str,
    linker_flags: &'static str,
    /// Of a build with nothing in Go's caches, on 2 cores.
    cold_build: &'static str,
    built: OnceLock<PathBuf>,
}

/// etcd, kube-apiserver, kube-controller-manager and kubectl as one program.
pub static KUBERNETES: Module = Module {
    name: "kubernetes",
    package: ".",
    linker_flags: "-s -w \
        -X k8s.io/component-base/version.gitVersion=v1.34.4 \
        -X k8s.io/component-base/version.gitMajor=1 \
        -X k8s.io/component-base/version.gitMinor=34",
    cold_build: "5 to 6 minutes",
    built: OnceLock::new(),
};

/// Vault's server and command line.
pub static VAULT: Module = Module {
    name: "vault",
    package: ".",
    linker_flags: "-s -w",
    cold_build: "10 to 13 minutes",
    built: OnceLock::new(),
};

/// The External Secrets Operator.
pub static EXTERNAL_SECRETS: Module = Module {
    name: "external-secrets",
    package: ".",
    linker_flags: "-s -w",
    // So much after vault's, with which it shares the SDKs of the clouds.
    cold_build: "at least 8 minutes",
    built: OnceLock::new(),
};

/// istiod, the agent beside each proxy, and a client that asks for one workload certificate, as one program.
pub static ISTIO: Module =
    Module { name: "istio", package: ".", linker_flags: "-s -w", cold_build: "5 minutes", built: OnceLock::new() };

/// Helm's command line.
pub static HELM: Module = Module {
    name: "helm",
    // Its main package cannot be imported: go.mod names it as a tool.
    package: "helm.sh/helm/v3/cmd/helm",
    linker_flags: "-s -w",
    cold_build: "2 minutes",
    built: OnceLock::new(),
};

/// The Helm after it, in which helm-controller acts, too.
pub static HELM_4: Module = Module {
    name: "helm4",
    package: "helm.sh/helm/v4/cmd/helm",
    linker_flags: "-s -w",
    // So much after Helm 3.
    cold_build: "1 to 2 minutes",
    built: OnceLock::new(),
};

/// Flux's kustomize-controller.
pub static FLUX: Module = Module {
    name: "flux",
    // Its main package cannot be imported: go.mod names it as a tool.
    package: "github.com/fluxcd/kustomize-controller",
    linker_flags: "-s -w",
    cold_build: "3 minutes",
    built: OnceLock::new(),
};

/// Prometheus' own reader of what is scraped, its linter, and its evaluation of rules.
pub static PROMETHEUS: Module = Module {
    name: "prometheus",
    package: ".",
    linker_flags: "-s -w",
    cold_build: "two minutes",
    built: OnceLock::new(),
};

/// istiod's loading of its CA and Go's verifiers, asked line by line.
pub static JUDGE: Module = Module {
    name: "judge",
    package: ".",
    linker_flags: "-s -w",
    // So much after istio's, with which it shares its packages.
    cold_build: "a minute",
    built: OnceLock::new(),
};

/// A webhook as the author of an operator would write it, with controller-runtime.
pub static WEBHOOK: Module = Module {
    name: "webhook",
    package: ".",
    linker_flags: "-s -w",
    // So much after kubernetes', with which it shares packages.
    cold_build: "2 minutes",
    built: OnceLock::new(),
};

/// All that tests need.
pub static MODULES: [&Module; 9] =
    [&KUBERNETES, &VAULT, &EXTERNAL_SECRETS, &ISTIO, &HELM, &HELM_4, &FLUX, &PROMETHEUS, &JUDGE];

/// The programs of a control plane.
#[derive(Clone, Debug)]
pub struct ControlPlane {
    /// The key-value store.
    pub etcd: Program,
    /// The API server.
    pub api_server: Program,
    /// The controllers.
    pub controller_manager: Program,
    /// What gives pods their nodes.
    pub scheduler: Program,
    /// The command line.
    pub kubectl: Program,
}

impl ControlPlane {
    /// Finds the programs, or builds them.
    pub fn find() -> Result<Self> {
        let servers = ["etcd", "kube-apiserver", "kube-controller-manager"];
        let folder = folders().find(|folder| servers.iter().all(|server| folder.join(server).is_file()));
        // A kubectl that just happens to be in PATH may be of any version: it is taken only from among its servers.
        let program = |name| match folder.as_ref().map(|folder| folder.join(name)).filter(|path| path.is_file()) {
            Some(path) => anyhow::Ok(Program::new(path)),
            None => Ok(Program::new(KUBERNETES.build()?).arg(name)),
        };
        Ok(Self {
            etcd: program("etcd")?,
            api_server: program("kube-apiserver")?,
            controller_manager: program("kube-controller-manager")?,
            scheduler: program("kube-scheduler")?,
            kubectl: program("kubectl")?,
        })
    }
}

/// Finds the program `vault`, or builds it.
pub fn vault() -> Result<Program> {
    let found = folders().map(|folder| folder.join("vault")).find(|path| path.is_file());
    Ok(Program::new(found.map_or_else(|| VAULT.build(), Ok)?))
}

/// Builds the External Secrets Operator, unless it is built.
pub fn external_secrets() -> Result<Program> {
    Ok(Program::new(EXTERNAL_SECRETS.build()?))
}

/// Builds the reader of scrapes, unless it is built: text on standard input, samples as JSON on standard output. With a
/// file of rules as its argument: a scenario, and the alerts that fire.
pub fn prometheus() -> Result<Program> {
    Ok(Program::new(PROMETHEUS.build()?))
}

/// Builds the judge in Go, unless it is built: a line of JSON on standard input, a line on standard output.
pub fn judge() -> Result<PathBuf> {
    JUDGE.build()
}

/// Builds the webhook that the benchmarks compare with, unless it is built: the port and the folder of its certificate are
/// its arguments.
pub fn webhook() -> Result<Program> {
    Ok(Program::new(WEBHOOK.build()?))
}

/// The definitions of the operator's kinds, one file each, as they are in its module.
pub fn external_secrets_definitions() -> Result<PathBuf> {
    EXTERNAL_SECRETS.dependency("github.com/external-secrets/external-secrets", "config/crds/bases")
}

/// Builds a part of Istio, `pilot-discovery`, `pilot-agent` or `workload-certificate`, unless it is built.
pub fn istio(part: &str) -> Result<Program> {
    Ok(Program::new(ISTIO.build()?).arg(part))
}

/// Istio's charts, as they are in its module: `base`, `gateway`, `istio-control/istio-discovery` and others.
pub fn istio_charts() -> Result<PathBuf> {
    ISTIO.dependency("istio.io/istio", "manifests/charts")
}

/// The definitions of the Gateway API's kinds, as Istio's own tests install them.
pub fn gateway_api_definitions() -> Result<PathBuf> {
    ISTIO.dependency("istio.io/istio", "tests/integration/pilot/testdata/gateway-api-crd.yaml")
}

/// Builds Helm, unless it is built. Any other may be of any version.
pub fn helm() -> Result<Program> {
    Ok(Program::new(HELM.build()?))
}

/// Builds Helm 4, unless it is built.
pub fn helm_4() -> Result<Program> {
    Ok(Program::new(HELM_4.build()?))
}

/// Builds kustomize-controller, unless it is built.
pub fn flux() -> Result<Program> {
    Ok(Program::new(FLUX.build()?))
}

/// The definition of its kind, as it is in its module.
pub fn flux_definition() -> Result<PathBuf> {
    FLUX.dependency(
        "github.com/fluxcd/kustomize-controller",
        "config/crd/bases/kustomize.toolkit.fluxcd.io_kustomizations.yaml",
    )
}

fn folders() -> impl Iterator<Item = PathBuf> {
    let assets = env::var_os("KUBEBUILDER_ASSETS").map_or_else(|| DEFAULT_ASSETS.into(), PathBuf::from);
    let path = env::var_os("PATH").unwrap_or_default();
    std::iter::once(assets).chain(env::split_paths(&path).collect::<Vec<_>>())
}

/// Where built programs are kept, for all checkouts of this user.
pub(crate) fn cache_folder() -> Result<PathBuf> {
    let base = match env::var_os("XDG_CACHE_HOME").filter(|path| !path.is_empty()) {
        Some(path) => PathBuf::from(path),
        None => PathBuf::from(env::var_os("HOME").context("HOME is not set")?).join(".cache"),
    };
    Ok(base.join("istio-ca-gate/testbed"))
}

impl Module {
    /// The path of the built program; builds it if these very sources were not built yet.
    pub fn build(&self) -> Result<PathBuf> {
        if let Some(program) = self.built.get() {
            return Ok(program.clone());
        }
        let program = self.cached()?;
        Ok(self.built.get_or_init(|| program).clone())
    }

    fn cached(&self) -> Result<PathBuf> {
        let cache = cache_folder()?;
        let folder = cache.join(format!("{}-{}", self.name, self.key()?));
        let program = folder.join(self.name);
        if program.is_file() {
            return Ok(program);
        }
        fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
        let lock = File::create(cache.join(format!("{}.lock", self.name)))?;
        if lock.try_lock().is_err() {
            say(&format!("waits for another process that builds {}", self.name));
            lock.lock()?;
        }
        if !program.is_file() {
            self.go_build(&folder.join("unfinished"))?;
            fs::rename(folder.join("unfinished"), &program)?;
        }
        Ok(program)
    }

    fn source(&self) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("go").join(self.name)
    }

    /// A path in the source of a Go module that this one needs, in Go's module cache.
    fn dependency(&self, go_module: &str, path: &str) -> Result<PathBuf> {
        // Not `go list`: that one tells no folder where the cache was emptied since the build.
        let output = Command::new("go")
            .args(["mod", "download", "-json", go_module])
            .current_dir(self.source())
            .env("GOFLAGS", "-mod=readonly")
            .output()?;
        if !output.status.success() {
            bail!("go mod download {go_module}: {}", String::from_utf8_lossy(&output.stderr));
        }
        let told: serde_json::Value = serde_json::from_slice(&output.stdout)?;
        let found = Path::new(told["Dir"].as_str().context("go tells no folder")?).join(path);
        ensure!(found.exists(), "{go_module} has no {path}");
        Ok(found)
    }

    fn key(&self) -> Result<String> {
        let version = Command::new("go").arg("version").current_dir(self.source()).output().with_context(|| {
            format!(
                "the tests need the real {}: not found in KUBEBUILDER_ASSETS or PATH, and there is no `go` to build it",
                self.name
            )
        })?;
        let mut files = fs::read_dir(self.source())?.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
        files.sort();
        let mut digest = Digest::new(&SHA256);
        for file in files {
            digest.update(&fs::read(&file).with_context(|| file.display().to_string())?);
        }
        digest.update(self.linker_flags.as_bytes());
        digest.update(&version.stdout);
        let mut hex = String::new();
        for byte in digest.finish().as_ref() {
            write!(hex, "{byte:02x}")?;
        }
        Ok(hex)
    }

    fn go_build(&self, output: &Path) -> Result<()> {
        let Self { name, package, linker_flags, cold_build, .. } = self;
        say(&format!("builds {name} with go, once: {cold_build} on 2 cores if none of it was built before"));
        let start = Instant::now();
        let status = Command::new("go")
            .args(["build", "-trimpath", "-ldflags", linker_flags, "-o"])
            .arg(output)
            .arg(package)
            .current_dir(self.source())
            .status()?;
        if !status.success() {
            bail!("go build in {}: {status}", self.source().display());
        }
        say(&format!("built {name} in {} s", start.elapsed().as_secs()));
        Ok(())
    }
}

/// Not `eprintln`: the test harness would show it only after minutes, or not at all.
fn say(what: &str) {
    let _ = writeln!(io::stderr(), "testbed: {what}");
}
