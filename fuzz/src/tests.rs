//! Targets on files that are there, without a fuzzer: what encoders write passes, and what once failed does.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::{TARGETS, seeds};

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// The files of a folder per target, by their paths in it.
fn files(root: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    for (target, _) in TARGETS {
        let Ok(entries) = std::fs::read_dir(root.join(target)) else {
            continue;
        };
        for entry in entries {
            let path = entry.expect("list a folder").path();
            let name = path.file_name().and_then(|name| name.to_str());
            let name = format!("{target}/{}", name.expect("a name in UTF-8"));
            files.insert(name, std::fs::read(&path).expect("read a file"));
        }
    }
    files
}

/// In one test: memory is counted for the whole process.
#[test]
fn every_file_that_is_kept_passes() {
    let made = seeds().into_iter();
    let made: BTreeMap<_, _> = made
        .map(|(target, name, bytes)| (format!("{target}/{name}"), bytes))
        .collect();
    let root = folder("seeds");
    if std::env::var_os("TIDEMARK_BLESS").is_some() {
        for (name, bytes) in &made {
            let path = root.join(name);
            std::fs::create_dir_all(path.parent().expect("a target")).expect("make a folder");
            std::fs::write(path, bytes).expect("write a file");
        }
    }
    let kept = files(&root);
    let names = |files: &BTreeMap<String, Vec<u8>>| files.keys().cloned().collect::<Vec<_>>();
    assert_eq!(
        names(&kept),
        names(&made),
        "TIDEMARK_BLESS=1 writes the missing ones"
    );
    for (name, bytes) in &made {
        assert!(kept[name] == *bytes, "{name} is not what is written today");
    }
    for (target, check) in TARGETS {
        for (name, bytes) in kept.iter().chain(&files(&folder("regressions"))) {
            if name.split('/').next() == Some(target) {
                eprintln!("{name}");
                check(bytes);
            }
        }
        check(b"");
    }
}
