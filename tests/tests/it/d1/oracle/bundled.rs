//! The D1 that workerd has bundled, asked without a binding in between.
//!
//! `wrangler.jsonc` with `d1_databases` makes workerd write itself a configuration in which the bundled
//! module `/workerd/d1.js` serves each database. This is that configuration by hand, with a Worker in
//! front that passes requests on as they are.

use std::path::Path;

use tempfile::TempDir;
use tidemark_tests::{Api, free_ports};

use super::corpus::Corpus;
use crate::d1::worker::Worker;

const FRONT: &str = r#"
export default {
  fetch(request, env) {
    const { pathname, search } = new URL(request.url);
    const [, , database, endpoint] = pathname.split("/");
    return env[database].fetch(new Request(`http://d1/${endpoint}${search}`, request));
  },
};
"#;

/// A running workerd with a database for each group of the corpus.
pub(super) struct Bundled {
    worker: Worker,
    // Last: it goes when the process has.
    _directory: TempDir,
}

impl Bundled {
    pub(super) async fn start(program: &Path, corpus: &Corpus) -> Self {
        let directory = tempfile::tempdir().expect("make a temporary directory");
        let home = directory.path();
        std::fs::create_dir(home.join("disk")).expect("make a folder");
        std::fs::write(home.join("front.js"), FRONT).expect("write the Worker");
        std::fs::write(home.join("config.capnp"), config(corpus)).expect("write the configuration");
        let port = free_ports(1);
        let arguments = [
            "--experimental".to_owned(),
            "config.capnp".to_owned(),
            format!("--socket-addr=http=127.0.0.1:{port}"),
        ];
        let worker = Worker::start(program, home, port, &arguments).await;
        Self {
            worker,
            _directory: directory,
        }
    }

    pub(super) fn api(&self) -> &Api {
        &self.worker.api
    }
}

fn config(corpus: &Corpus) -> String {
    let bindings = corpus.groups.iter().map(|group| {
        let database = &group.database;
        format!(
            r#"(name = "{database}", service = (name = "d1", props = (json = "{{\"database\":\"{database}\"}}"))),"#
        )
    });
    let bindings = bindings.collect::<Vec<_>>().join("\n        ");
    format!(
        r#"using Workerd = import "/workerd/workerd.capnp";

const config :Workerd.Config = (
  services = [
    (name = "front", worker = (
      modules = [(name = "front.js", esModule = embed "front.js")],
      compatibilityDate = "2026-11-01",
      bindings = [
        {bindings}
      ],
    )),
    (name = "d1", worker = (
      modules = [(name = "d1.js", bundled = "/workerd/d1.js")],
      compatibilityDate = "2026-11-01",
      durableObjectNamespaces = [
        (className = "D1Database", uniqueKey = "d1", enableSql = true),
      ],
      durableObjectStorage = (localDisk = "disk"),
      bindings = [(name = "DATABASE", durableObjectNamespace = "D1Database")],
    )),
    (name = "disk", disk = (path = "disk", writable = true)),
  ],
  sockets = [(name = "http", address = "127.0.0.1:8080", http = (), service = "front")],
);
"#
    )
}
