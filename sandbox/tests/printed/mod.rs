//! What the program prints to try, read out of what it prints and run in a shell.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;
use testbed::{Process, Program};

/// Far above the tour on real components.
const TOUR: Duration = Duration::from_secs(600);

/// The end of what is printed.
const END: &str = "quit, or Ctrl-C: ends it";

/// What commands are indented by, and nothing else that begins with a program's name.
const INDENT: &str = "     ";

/// The programs that printed commands begin with.
const PROGRAMS: [&str; 5] = ["istio-ca-gate", "curl", "tail", "kubectl", "vault"];

/// The built program, with its ports reserved among all of this user's test processes.
pub(crate) fn sandbox() -> Program {
    Program::new(env!("CARGO_BIN_EXE_sandbox")).env("HOME", std::env::var_os("HOME").unwrap_or_default())
}

/// A running sandbox whose tour has ended.
pub(crate) struct Sandbox {
    process: Process,
    _folder: TempDir,
}

impl Sandbox {
    pub(crate) async fn start(args: &[&str]) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let process = sandbox().args(args).spawn(folder.path().join("log"))?;
        let ended = || async { process.log().contains(END).then_some(()) };
        process.until("the end of the tour", TOUR, ended).await?;
        Ok(Self { process, _folder: folder })
    }

    /// The line that the others need, and the others, each as a shell takes it.
    fn commands(&self) -> Result<(String, Vec<String>)> {
        let log = self.process.log().replace("\\\n", " ");
        let lines: Vec<_> = log.lines().filter_map(|line| line.strip_prefix(INDENT)).collect();
        let first = lines.iter().find(|line| line.starts_with(". /")).with_context(|| log.clone())?;
        let of = |line: &&&str| line.split(' ').next().is_some_and(|word| PROGRAMS.contains(&word));
        Ok(((*first).to_owned(), lines.iter().filter(of).map(|line| (*line).to_owned()).collect()))
    }

    /// The addresses of the pages that it names.
    pub(crate) fn pages(&self) -> Vec<String> {
        let log = self.process.log();
        let lines = log.lines().map(str::trim);
        lines.filter(|line| line.starts_with("http://") && line.ends_with('/')).map(str::to_owned).collect()
    }

    /// Runs each printed command of these programs, in the order of the lines, and returns what each said. The programs
    /// that are not in `PATH` are in a folder.
    pub(crate) async fn try_all_of(&self, programs: &[&str], folder: &Path) -> Result<Vec<(String, String)>> {
        let (first, commands) = self.commands()?;
        let mut tried = Vec::new();
        for command in commands {
            if programs.iter().any(|program| command.starts_with(&format!("{program} "))) {
                // What opens it is not waited for by what follows from it.
                if !command.contains("unseal") {
                    self.is_open().await.with_context(|| format!("before {command}"))?;
                }
                let line = format!("PATH={}:$PATH; {first} && {command}", folder.display());
                let said =
                    Program::new("sh").args(["-c", &line]).output(None).await.with_context(|| command.clone())?;
                tried.push((command, said));
            }
        }
        for program in programs {
            ensure!(tried.iter().any(|(command, _)| command.starts_with(program)), "nothing to try with {program}");
        }
        Ok(tried)
    }

    /// What was done before may take the gates a moment.
    async fn is_open(&self) -> Result<()> {
        let client = reqwest::Client::builder().no_proxy().build()?;
        let pages = self.pages();
        ensure!(pages.len() == 2, "{pages:?}");
        let open = || async {
            for page in &pages {
                let report = client.get(format!("{page}fingerprint")).send().await?.text().await?;
                ensure!(report.contains("\"state\":\"open\",\"reason\":null"), "{report}");
            }
            Ok(())
        };
        self.process.until("the gates to be open", Duration::from_secs(30), open).await
    }

    /// Ends it as a user's Ctrl-C or kill does.
    pub(crate) async fn end(self) -> Result<()> {
        ensure!(self.process.terminate().await?.success(), "{}", self.process.log());
        Ok(())
    }
}
