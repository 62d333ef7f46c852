//! Programs from PyPI, each list of them in an environment of its own, in a cache beside cargo's.
//!
//! A list says the version of every package, so that the same ones run everywhere.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tokio::sync::Mutex;

use super::program;
use super::tools::skipped;

/// Installations under way: one at a time in this process.
static INSTALLING: Mutex<()> = Mutex::const_new(());

/// Longest that an installation may take.
const INSTALL_WAIT: Duration = Duration::from_secs(300);

/// A Python with these packages, which are installed first if need be. `requirements` is a file in pip's form,
/// below the folder of the tests.
pub(crate) async fn with(requirements: &str) -> Option<PathBuf> {
    let _installing = INSTALLING.lock().await;
    let list = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/it")
        .join(requirements);
    let text = std::fs::read_to_string(&list).expect("read the list of packages");
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("python");
    let home = cache.join(format!("{:016x}", digest(&text)));
    let python = home.join("bin/python");
    if python.exists() {
        return Some(python);
    }
    std::fs::create_dir_all(&cache).expect("make the cache of packages");
    // Under its name only when it is whole: another process may be installing it too. An environment can be moved
    // as long as its programs are run through its Python.
    let making = tempfile::tempdir_in(&cache).expect("make a temporary directory");
    let mut make = Command::new("python3");
    make.args(["-m", "venv"]).arg(making.path());
    let mut install = Command::new(making.path().join("bin/python"));
    install
        .args([
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
        ])
        .arg("--no-deps")
        .arg("--requirement")
        .arg(&list);
    for command in [&mut make, &mut install] {
        let why = match program::run(command, INSTALL_WAIT).await {
            Ok(ran) if ran.success() => continue,
            Ok(ran) => format!("{ran:?}"),
            Err(error) => error.to_string(),
        };
        skipped(&format!("python3 cannot install {requirements}: {why}"));
        return None;
    }
    let moved = std::fs::rename(making.path(), &home);
    assert!(moved.is_ok() || python.exists(), "{moved:?}");
    Some(python)
}

/// Tells two lists apart.
fn digest(text: &str) -> u64 {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}
