//! Programs of others, and whatever they start themselves: none outlives its test or its deadline.

use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

/// Time between two looks at a process.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// A process and all that it has started.
pub(crate) struct Group(Child);

/// What a program came to.
#[derive(Debug)]
pub(crate) struct Ran {
    /// None if it had to be killed.
    status: Option<ExitStatus>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Group {
    pub(crate) fn start(command: &mut Command) -> io::Result<Self> {
        let process = command.stdin(Stdio::null()).process_group(0).spawn();
        process.map(Self)
    }

    /// How it ended, if it has.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.0.try_wait().expect("look at a process")
    }

    async fn end(&mut self) -> ExitStatus {
        let mut looks = tokio::time::interval(LOOK_EVERY);
        loop {
            looks.tick().await;
            if let Some(status) = self.ended() {
                return status;
            }
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // One that has ended gave its number back: it may be another's by now.
        if self.ended().is_some() {
            return;
        }
        // The standard library kills one process only, and wrangler and npm are several.
        let group = format!("kill -s KILL -- -{}", self.0.id());
        let _ = Command::new("sh").arg("-c").arg(group).status();
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Ran {
    pub(crate) fn success(&self) -> bool {
        self.status.is_some_and(|status| status.success())
    }
}

/// Runs a program to its end, but no longer than this.
pub(crate) async fn run(command: &mut Command, longest: Duration) -> io::Result<Ran> {
    // Files, not pipes: nobody need read them for the program to go on.
    let (out, err) = (tempfile::tempfile()?, tempfile::tempfile()?);
    command.stdout(out.try_clone()?).stderr(err.try_clone()?);
    let mut group = Group::start(command)?;
    let status = tokio::time::timeout(longest, group.end()).await.ok();
    drop(group);
    Ok(Ran {
        status,
        out: text(out)?,
        err: text(err)?,
    })
}

fn text(mut printed: File) -> io::Result<String> {
    let mut bytes = Vec::new();
    printed.rewind()?;
    printed.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
