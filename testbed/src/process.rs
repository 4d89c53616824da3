//! Child processes that never outlive the test.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use rustix::process::{Pid, kill_process, kill_process_group};
use tokio::io::AsyncWriteExt;
use tokio::time::{sleep, timeout};

pub use rustix::process::Signal;

use crate::eventually::{Attempt, POLL, eventually};
use crate::evidence;

/// How many lines of a log an error shows.
const TAIL: usize = 30;

/// Far above the drain of any program under test: past it, the program hangs.
const TERMINATE: Duration = Duration::from_secs(60);

/// Far above what a command that does not wait for anything needs on a busy machine.
const OUTPUT: Duration = Duration::from_secs(120);

/// What the environment of a child keeps of the test's own: nothing that could steer the child elsewhere.
const INHERITED: [&str; 3] = ["PATH", "TMPDIR", "LLVM_PROFILE_FILE"];

/// A program with its arguments and its whole environment, apart from `PATH` and `TMPDIR`.
#[derive(Clone, Debug)]
pub struct Program {
    path: PathBuf,
    args: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    folder: Option<PathBuf>,
}

impl Program {
    /// The program at this path, or of this name in `PATH`.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), args: Vec::new(), env: Vec::new(), folder: None }
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args(mut self, args: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// Sets the working directory.
    #[must_use]
    pub fn current_dir(mut self, folder: impl Into<PathBuf>) -> Self {
        self.folder = Some(folder.into());
        self
    }

    /// Starts the program with its output appended to the file `log`.
    pub fn spawn(self, log: impl Into<PathBuf>) -> Result<Process> {
        let log = log.into();
        let child = self.start(&log)?;
        evidence::keep_log(&self.path, &log);
        Ok(Process { program: self, log, child: Mutex::new(child) })
    }

    /// Runs the program to its end, with `input` on its standard input, and returns its standard output.
    pub async fn output(self, input: Option<&str>) -> Result<String> {
        let mut child = tokio::process::Command::from(self.command())
            .stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() })
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("start {}", self.path.display()))?;
        let stdin = child.stdin.take();
        let feed = async {
            if let (Some(mut stdin), Some(input)) = (stdin, input) {
                // A program may end without reading all of it: its exit status tells whether that is an error.
                let _ = stdin.write_all(input.as_bytes()).await;
            }
        };
        let both = async { tokio::join!(feed, child.wait_with_output()).1 };
        let output =
            timeout(OUTPUT, both).await.with_context(|| format!("{} ran longer than {OUTPUT:?}", self.shown()))??;
        if !output.status.success() {
            let stderr = String::from_utf8_lossy(&output.stderr);
            let stdout = String::from_utf8_lossy(&output.stdout);
            bail!("{}: {}\n{stderr}{stdout}", self.shown(), output.status);
        }
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Makes it a command of this name in a folder, for programs that look for it in `PATH`. Its environment stays
    /// behind.
    pub fn install(&self, folder: &Path, name: &str) -> Result<()> {
        let quoted = |part: &OsStr| format!("'{}'", part.to_string_lossy().replace('\'', "'\\''"));
        let args: Vec<_> = self.args.iter().map(|arg| quoted(arg)).collect();
        let script = format!("#!/bin/sh\nexec {} {} \"$@\"\n", quoted(self.path.as_os_str()), args.join(" "));
        let path = folder.join(name);
        fs::write(&path, script).with_context(|| path.display().to_string())?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        Ok(())
    }

    fn shown(&self) -> String {
        let parts = std::iter::once(self.path.as_os_str()).chain(self.args.iter().map(OsString::as_os_str));
        parts.map(|part| part.to_string_lossy()).collect::<Vec<_>>().join(" ")
    }

    fn command(&self) -> Command {
        let inherited = INHERITED.iter().filter_map(|name| Some((name, std::env::var_os(name)?)));
        let mut command = Command::new(&self.path);
        command.args(&self.args).env_clear().envs(inherited);
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        if let Some(folder) = &self.folder {
            command.current_dir(folder);
        }
        command
    }

    fn start(&self, log: &Path) -> Result<Child> {
        let out = File::options().create(true).append(true).open(log).with_context(|| log.display().to_string())?;
        let mut command = self.command();
        command.stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out).process_group(0);
        die_with_parent(&mut command);
        spawn_from_lasting_thread(command).with_context(|| format!("start {}", self.path.display()))
    }
}

/// A child in its own process group. A running child is killed with its group on drop; without its group also when
/// the test process is killed.
#[derive(Debug)]
pub struct Process {
    program: Program,
    log: PathBuf,
    child: Mutex<Child>,
}

impl Process {
    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child().id()
    }

    /// All it has written so far, to standard output and standard error.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Whether it has not exited yet. A stopped (`SIGSTOP`) process is running.
    pub fn is_running(&self) -> bool {
        matches!(self.child().try_wait(), Ok(None))
    }

    /// Sends a signal to it, if it has not exited yet; not to its children, as the kubelet would do it.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        if_alive(&mut self.child(), |pid| kill_process(pid, signal))
    }

    /// Kills it with its process group, and reaps it. Nothing happens if it has exited already.
    pub fn stop(&self) -> Result<()> {
        let mut child = self.child();
        if_alive(&mut child, |pid| kill_process_group(pid, Signal::KILL))?;
        child.wait()?;
        Ok(())
    }

    /// Asks it to end (`SIGTERM`) and waits until it has.
    pub async fn terminate(&self) -> Result<ExitStatus> {
        self.signal(Signal::TERM)?;
        self.exited(TERMINATE).await
    }

    /// Waits until it has ended by itself.
    pub async fn exited(&self, timeout: Duration) -> Result<ExitStatus> {
        let what = format!("the end of {}", self.program.path.display());
        let status = eventually(&what, timeout, || async { self.child().try_wait().transpose() }).await;
        Ok(status.map_err(|error| anyhow!("{error:#}\n{}", self.tail()))??)
    }

    /// Starts it again, with the same arguments and the same log. It is killed first if it still runs.
    pub fn start_again(&self) -> Result<()> {
        self.stop()?;
        *self.child() = self.program.start(&self.log)?;
        Ok(())
    }

    /// Like [`eventually`], for something that this process does: ends at once if the process does.
    pub async fn until<F, Fut>(
        &self,
        what: &str,
        timeout: Duration,
        probe: F,
    ) -> Result<<Fut::Output as Attempt>::Value>
    where
        F: FnMut() -> Fut,
        Fut: Future<Output: Attempt>,
    {
        let end = async {
            while self.is_running() {
                sleep(POLL).await;
            }
            // Its last deed may be what is waited for: leave time for one more probe.
            sleep(2 * POLL).await;
        };
        let result = tokio::select! {
            biased;
            result = eventually(what, timeout, probe) => result,
            () = end => Err(anyhow!("waited for {what} in vain: the process ended: {}", self.child().wait()?)),
        };
        result.map_err(|error| anyhow!("{error:#}\n{}", self.tail()))
    }

    fn tail(&self) -> String {
        let log = self.log();
        let lines: Vec<_> = log.lines().collect();
        let tail = &lines[lines.len().saturating_sub(TAIL)..];
        format!("the last lines of {}:\n{}\n", self.log.display(), tail.join("\n"))
    }

    fn child(&self) -> MutexGuard<'_, Child> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.stop();
    }
}

/// Sends a signal unless the child is reaped: after that, its id may be another's. The borrow keeps others from reaping.
fn if_alive(child: &mut Child, send: impl FnOnce(Pid) -> rustix::io::Result<()>) -> Result<()> {
    if child.try_wait()?.is_none() {
        send(Pid::from_child(child))?;
    }
    Ok(())
}

/// Has the kernel kill the child when the thread that starts it ends: see [`spawn_from_lasting_thread`].
#[cfg(target_os = "linux")]
#[allow(unsafe_code)]
fn die_with_parent(command: &mut Command) {
    use rustix::process::{getpid, getppid, set_parent_process_death_signal};

    let parent = Some(getpid());
    let prepare = move || {
        set_parent_process_death_signal(Some(Signal::KILL))?;
        // The parent may have died before the call: then no signal would come.
        if getppid() == parent { Ok(()) } else { Err(io::ErrorKind::Interrupted.into()) }
    };
    // SAFETY: between fork and exec only system calls are made: nothing allocates or takes a lock.
    unsafe { command.pre_exec(prepare) };
}

#[cfg(not(target_os = "linux"))]
fn die_with_parent(_: &mut Command) {}

type Spawn = (Command, mpsc::Sender<io::Result<Child>>);

/// Starts a child from a thread that lives as long as this process: the kernel takes the end of the starting thread,
/// which may be one test of many, for the end of the parent.
fn spawn_from_lasting_thread(command: Command) -> io::Result<Child> {
    static SPAWNER: LazyLock<mpsc::Sender<Spawn>> = LazyLock::new(|| {
        let (commands, inbox) = mpsc::channel::<Spawn>();
        std::thread::spawn(move || {
            for (mut command, reply) in inbox {
                let _ = reply.send(command.spawn());
            }
        });
        commands
    });
    let (reply, outcome) = mpsc::channel();
    SPAWNER.send((command, reply)).map_err(io::Error::other)?;
    outcome.recv().map_err(io::Error::other)?
}
