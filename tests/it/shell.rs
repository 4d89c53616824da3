//! Completions, man pages and the version, as the built program prints them.

use std::path::Path;
use std::process::{Command, Output};

use anyhow::{Context, Result, ensure};
use clap::CommandFactory;
use istio_ca_gate::args::Cli;

use crate::product::binary;

fn run(args: &[&str]) -> Result<Output> {
    Ok(Command::new(binary()).args(args).env_clear().output()?)
}

fn stdout(args: &[&str]) -> Result<String> {
    let output = run(args)?;
    ensure!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    Ok(String::from_utf8(output.stdout)?)
}

/// The names of the commands, and of the flags of each.
fn commands() -> Vec<(String, Vec<String>)> {
    let flags = |command: &clap::Command| {
        command.get_arguments().filter_map(|arg| arg.get_long()).map(|long| format!("--{long}")).collect()
    };
    Cli::command().get_subcommands().map(|command| (command.get_name().to_owned(), flags(command))).collect()
}

#[test]
fn completions_of_each_shell_know_every_command_and_flag() -> Result<()> {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let script = stdout(&["completions", shell])?;
        for (command, flags) in commands() {
            ensure!(script.contains(&command), "{shell} does not complete {command}");
            for flag in flags {
                let flag = if shell == "fish" { format!("-l {}", &flag[2..]) } else { flag };
                ensure!(script.contains(&flag), "{shell} does not complete {flag} of {command}");
            }
        }
    }
    Ok(())
}

#[test]
fn every_flag_of_these_commands_has_a_variable() -> Result<()> {
    for name in ["bootstrap", "sync", "adopt", "man"] {
        let mut program = Cli::command();
        let command = program.find_subcommand_mut(name).context("no such command")?;
        // KUBECONFIG is read by the client itself, and may name several files.
        let flags = command.get_arguments().filter(|arg| arg.get_long().is_some_and(|long| long != "kubeconfig"));
        for flag in flags {
            ensure!(flag.get_env().is_some() && flag.get_help().is_some(), "{name}: {flag}");
        }
        let help = stdout(&[name, "--help"])?;
        ensure!(help.contains("Usage: istio-ca-gate"), "{help}");
    }
    Ok(())
}

#[test]
fn bash_takes_its_completions_and_completes_with_them() -> Result<()> {
    let script = stdout(&["completions", "bash"])?;
    // As readline does it: by the function that the script registers.
    let asked = format!(
        "{script}\nregistered=$(complete -p istio-ca-gate)\nregistered=${{registered#*-F }}\n\
         COMP_WORDS=(istio-ca-gate boot); COMP_CWORD=1\n${{registered%% *}} istio-ca-gate boot istio-ca-gate\n\
         echo \"${{COMPREPLY[@]}}\""
    );
    let output = Command::new("bash").args(["-c", &asked]).output()?;
    ensure!(output.status.success() && output.stdout == b"bootstrap\n", "{output:?}");
    Ok(())
}

#[test]
fn each_command_has_a_man_page_with_every_flag_and_variable_and_the_exit_codes() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let out = folder.path().join("made/on/the/way");
    stdout(&["man", "--out", out.to_str().context("path")?])?;
    let page = |name: &str| -> Result<String> {
        Ok(std::fs::read_to_string(out.join(name)).with_context(|| name.to_owned())?.replace("\\-", "-"))
    };
    let main = page("istio-ca-gate.1")?;
    let all: Vec<_> = commands();
    let nested: usize = Cli::command().get_subcommands().map(|command| command.get_subcommands().count()).sum();
    ensure!(nested > 0 && std::fs::read_dir(&out)?.count() == all.len() + nested + 1);
    ensure!(page("istio-ca-gate-rotate-start.1")?.contains("GATE_ROTATE_TTL"));
    for (command, flags) in all {
        ensure!(main.contains(&format!("istio-ca-gate-{command}(1)")), "{command} is not in the main page");
        let page = page(&format!("istio-ca-gate-{command}.1"))?;
        for flag in flags {
            ensure!(page.contains(&flag), "{flag} is not in the page of {command}");
        }
        ensure!(page.contains("EXIT STATUS") && page.contains("SEE ALSO"), "{page}");
    }
    let serve = page("istio-ca-gate-serve.1")?;
    ensure!(serve.contains("GATE_MAX_STALENESS") && serve.contains("[default: 24h]"), "{serve}");
    ensure!(stdout(&["man"])?.replace("\\-", "-") == main);
    Ok(())
}

#[test]
fn man_pages_that_cannot_be_written_name_the_flag_and_the_folder() -> Result<()> {
    let file = tempfile::NamedTempFile::new()?;
    let path = file.path().to_str().context("path")?;
    let output = run(&["man", "--out", path])?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(2) && output.stdout.is_empty(), "{output:?}");
    ensure!(
        said.lines().count() == 1 && said.contains("--out (variable GATE_MAN_OUT)") && said.contains(path),
        "{said}"
    );
    Ok(())
}

#[test]
fn an_unknown_shell_is_a_wrong_value_that_names_the_known_ones() -> Result<()> {
    let output = run(&["completions", "csh"])?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(2) && said.contains("'csh'") && said.contains("zsh"), "{said}");
    Ok(())
}

// The version. The build script is compiled anew, and run where it has, or has not, a repository around it.

struct Script {
    folder: tempfile::TempDir,
}

impl Script {
    fn compile() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/build.rs");
        let compiled = Command::new(option_env!("RUSTC").unwrap_or("rustc"))
            .args(["--edition=2024", source, "-o"])
            .arg(folder.path().join("script"))
            .env("CARGO_PKG_VERSION", "1.2.3")
            .output()?;
        ensure!(compiled.status.success(), "{compiled:?}");
        Ok(Self { folder })
    }

    fn folder(&self, name: &str) -> Result<std::path::PathBuf> {
        let path = self.folder.path().join(name);
        std::fs::create_dir_all(&path)?;
        Ok(path)
    }

    fn run(&self, at: &Path, commit: &str) -> Result<Output> {
        let mut command = Command::new(self.folder.path().join("script"));
        command.current_dir(at).env("GATE_COMMIT", commit);
        // Whatever is above the temporary folder is not meant.
        command.env("GIT_CEILING_DIRECTORIES", self.folder.path()).env_remove("GIT_DIR");
        Ok(command.output()?)
    }

    /// The version, and the files by which cargo notices that it is another.
    fn tells(&self, at: &Path, commit: &str) -> Result<(String, Vec<String>)> {
        let output = self.run(at, commit)?;
        ensure!(output.status.success(), "{output:?}");
        let lines = String::from_utf8(output.stdout)?;
        let of = |key: &str| lines.lines().filter_map(|line| line.strip_prefix(key)).map(str::to_owned).collect();
        let versions: Vec<String> = of("cargo::rustc-env=GATE_VERSION=");
        Ok((versions.concat(), of("cargo::rerun-if-changed=")))
    }
}

fn git(at: &Path, args: &[&str]) -> Result<String> {
    let identity = ["-c", "user.name=Test", "-c", "user.email=test@example.com", "-c", "commit.gpgsign=false"];
    let output = Command::new("git").current_dir(at).args(identity).args(args).env_remove("GIT_DIR").output()?;
    ensure!(output.status.success(), "{output:?}");
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

#[test]
fn the_version_has_the_commit_that_is_checked_out_and_cargo_watches_where_it_moves() -> Result<()> {
    let script = Script::compile()?;
    let repository = script.folder("repository")?;
    git(&repository, &["init", "--quiet", "--initial-branch=main"])?;
    let mut versions = Vec::new();
    let mut watched = Vec::new();
    for message in ["one", "two"] {
        git(&repository, &["commit", "--quiet", "--allow-empty", "-m", message])?;
        let head = git(&repository, &["rev-parse", "HEAD"])?;
        let (version, files) = script.tells(&repository, "")?;
        ensure!(version == format!("1.2.3 ({})", &head[..12]), "{version}");
        for wanted in ["build.rs", ".git/HEAD", ".git/logs/HEAD", ".git/refs/heads/main"] {
            ensure!(files.iter().any(|file| file == wanted), "{wanted} is not watched: {files:?}");
        }
        // What is not there would have it run at each build.
        ensure!(files.iter().all(|file| file == "build.rs" || repository.join(file).is_file()), "{files:?}");
        watched.push(std::fs::read(repository.join(".git/logs/HEAD"))?);
        versions.push(version);
    }
    ensure!(versions[0] != versions[1] && watched[0] != watched[1]);

    // A work tree of its own has its own HEAD.
    let tree = script.folder.path().join("tree");
    git(&repository, &["worktree", "add", "--quiet", "--detach", tree.to_str().context("path")?, "HEAD~1"])?;
    ensure!(script.tells(&tree, "")?.0 == versions[0]);
    Ok(())
}

#[test]
fn without_a_repository_the_version_has_no_commit() -> Result<()> {
    let script = Script::compile()?;
    let archive = script.folder("archive")?;
    ensure!(script.tells(&archive, "")? == ("1.2.3".to_owned(), vec!["build.rs".to_owned()]));

    // Unpacked inside of another repository, that one's commit is not its own.
    let other = script.folder("other")?;
    git(&other, &["init", "--quiet"])?;
    git(&other, &["commit", "--quiet", "--allow-empty", "-m", "other"])?;
    let inside = script.folder("other/vendor")?;
    ensure!(script.tells(&inside, "")?.0 == "1.2.3");
    // A repository without a commit.
    let empty = script.folder("empty")?;
    git(&empty, &["init", "--quiet"])?;
    ensure!(script.tells(&empty, "")?.0 == "1.2.3");
    // No git at all.
    let mut without_git = Command::new(script.folder.path().join("script"));
    let output = without_git.current_dir(&other).env_clear().env("PATH", &inside).output()?;
    ensure!(String::from_utf8_lossy(&output.stdout).contains("GATE_VERSION=1.2.3\n"), "{output:?}");
    Ok(())
}

#[test]
fn a_build_without_a_repository_may_be_told_its_commit() -> Result<()> {
    let script = Script::compile()?;
    let archive = script.folder("archive")?;
    let commit = "ABCDEF0123456789abcdef0123456789abcdef01";
    ensure!(script.tells(&archive, commit)?.0 == "1.2.3 (abcdef012345)");
    for wrong in ["main", "abcdef", "abcdef0123456789\nx", "v1.2.3-4-gabcdef0"] {
        let output = script.run(&archive, wrong)?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(!output.status.success() && said.contains("GATE_COMMIT"), "{wrong:?}: {output:?}");
    }
    Ok(())
}

#[test]
fn the_program_tells_the_version_that_it_was_built_with() -> Result<()> {
    let version = stdout(&["--version"])?;
    ensure!(version == format!("istio-ca-gate {}\n", istio_ca_gate::VERSION), "{version}");
    ensure!(version.starts_with(concat!("istio-ca-gate ", env!("CARGO_PKG_VERSION"))), "{version}");
    Ok(())
}
