//! Completions and man pages, from the definitions that `--help` is made of.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::{Args, Command, CommandFactory};
use clap_complete::Shell;
use clap_mangen::Man as Page;
use clap_mangen::roff::{Roff, bold, roman};

use super::paint;
use crate::args::Cli;
use crate::run::Failure;

/// The program's name on a command line.
const NAME: &str = "istio-ca-gate";

/// What the exit codes mean, for every command.
const EXIT_CODES: [(&str, &str); 3] = [
    ("0", "Done."),
    (
        "1",
        "Held back, with the reason and its code on standard error; or a check failed, or what was compared is not equal.",
    ),
    ("2", "Wrong use or configuration, with one line that names the flag; or what was asked could not be told."),
];

/// `istio-ca-gate completions`.
#[derive(Debug, Args)]
pub struct Completions {
    /// The shell
    #[arg(value_enum)]
    pub shell: Shell,
}

/// `istio-ca-gate man`.
#[derive(Debug, Args)]
pub struct Man {
    /// Folder for one page a command, made if it is not there [default: the main page, to standard output]
    #[arg(long, env = "GATE_MAN_OUT", value_name = "DIR")]
    pub out: Option<PathBuf>,
}

/// Prints completions for a shell.
///
/// # Errors
/// Why they could not be written.
pub fn completions(args: &Completions) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), NAME, &mut script);
    print(&script)
}

/// Writes the man pages.
///
/// # Errors
/// Why they could not be written.
pub fn man(args: &Man) -> Result<(), Failure> {
    let mut program = Cli::command().disable_help_subcommand(true);
    program.build();
    match &args.out {
        None => print(&page(&program).map_err(|error| Failure::Broken(error.to_string()))?),
        Some(folder) => write_all(&program, folder).map_err(|error| {
            Failure::Usage(format!(
                "--out (variable GATE_MAN_OUT): cannot write man pages to {}: {error}",
                folder.display()
            ))
        }),
    }
}

fn write_all(program: &Command, folder: &Path) -> io::Result<()> {
    std::fs::create_dir_all(folder)?;
    let nested = program.get_subcommands().flat_map(Command::get_subcommands);
    for command in std::iter::once(program).chain(program.get_subcommands()).chain(nested) {
        let file = format!("{}.1", command.get_display_name().unwrap_or(NAME));
        std::fs::write(folder.join(file), page(command)?)?;
    }
    Ok(())
}

/// One command's page.
fn page(command: &Command) -> io::Result<Vec<u8>> {
    let mut page = Vec::new();
    Page::new(command.clone()).source(format!("{NAME} {}", crate::VERSION)).manual(NAME).render(&mut page)?;
    let mut roff = Roff::new();
    roff.control("SH", ["EXIT STATUS"]);
    for (code, meaning) in EXIT_CODES {
        roff.control("TP", []);
        roff.text([bold(code)]);
        roff.text([roman(meaning)]);
    }
    if command.get_name() != NAME {
        roff.control("SH", ["SEE ALSO"]);
        roff.text([bold(NAME), roman("(1)")]);
    }
    page.extend(roff.to_roff().into_bytes());
    Ok(page)
}

/// Whoever closed standard output does not want to know.
fn print(text: &[u8]) -> Result<(), Failure> {
    match paint::stdout().into_inner().write_all(text) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::Broken(format!("cannot write to standard output: {error}")))
        }
        _ => Ok(()),
    }
}
