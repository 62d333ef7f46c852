//! A door to the decoders that this crate keeps to itself, for fuzz targets alone (feature `fuzzing`).
//!
//! Each function takes what a file may hold, and reads or refuses it, but for [`serve`]. A panic is a finding.

use std::net::SocketAddr;
use std::path::Path;

use tidemark_protocol::node::Role;
use tokio_util::sync::CancellationToken;

use crate::config::{self, Config, Secret};
use crate::home::Identity;
use crate::node;

/// A configuration file, for a node of either role.
pub fn configuration(text: &str) {
    let file = Path::new("tidemark.toml");
    match config::parse(file, text) {
        Ok(settings) => {
            let mut config = Config::default();
            settings.lay_over(&mut config);
            for role in [Role::Primary, Role::Replica] {
                if let Err(problems) = config.validate(role) {
                    assert!(!problems.to_string().is_empty());
                }
            }
        }
        Err(error) => assert!(error.to_string().contains("tidemark.toml")),
    }
}

/// The file `node.toml`. What was read is read as the same again once it was written.
pub fn identity(text: &str) {
    if let Ok(identity) = toml::from_str::<Identity>(text) {
        let written = toml::to_string(&identity).expect("plain fields");
        assert_eq!(toml::from_str(&written), Ok(identity));
    }
}

/// A file of tokens.
pub fn secrets(text: &str) {
    if let Ok(secrets) = Secret::read(Path::new("tokens"), text) {
        assert!(!secrets.is_empty());
    }
}

/// A primary with its files in `directory`, served on a port of loopback for as long as the process lives.
pub fn serve(directory: &Path) -> std::io::Result<SocketAddr> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let config = Config {
        data: directory.to_owned(),
        ..Config::default()
    };
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0"))?;
    let address = listener.local_addr()?;
    std::thread::spawn(move || {
        let served = node::run(Role::Primary, config, listener, CancellationToken::new());
        let ended = runtime.block_on(served);
        panic!("the node ended: {ended:?}");
    });
    Ok(address)
}
