# A Worker whose D1 binding is a Tidemark cluster. Try it beside `tidemark dev` (see README.md):
#
#     npx workerd@1.20261117.1 serve deploy/workerd/config.capnp
#
# The Worker needs to know nothing of it: `env.DB` is the D1 that workerd has built in, and speaks to a node as to
# Cloudflare. Give each region's Workers the node of their region.

using Workerd = import "/workerd/workerd.capnp";

const config :Workerd.Config = (
  services = [
    (name = "worker", worker = .worker),

    # One service per database: its headers say which one. `--external-addr tidemark=HOST:PORT` names
    # another node; for TLS write `https = (options = (…), tlsOptions = (trustBrowserCas = true))`.
    (name = "tidemark", external = (
      address = "127.0.0.1:8789",
      http = (injectRequestHeaders = [
        # Its name or its UUID.
        (name = "x-d1-database-id", value = "sample"),
        # With tokens:
        # (name = "authorization", value = "Bearer TOKEN"),
        # How long to wait for a bookmark, and what then, if not the defaults (10s, forward):
        # (name = "tidemark-deadline", value = "5s"),
        # (name = "tidemark-on-miss", value = "error"),
      ]),
    )),
  ],
  sockets = [
    (name = "http", address = "127.0.0.1:8080", http = (), service = "worker"),
  ],
);

const worker :Workerd.Worker = (
  modules = [(name = "worker.js", esModule = embed "worker.js")],
  compatibilityDate = "2026-11-01",
  bindings = [
    (name = "DB", wrapped = (
      moduleName = "cloudflare-internal:d1-api",
      innerBindings = [(name = "fetcher", service = "tidemark")],
    )),
  ],
);
