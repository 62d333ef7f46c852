//! Where targets begin: what encoders and people write.

use tidemark_primary::fuzzing;
use tidemark_protocol::stream::ENVELOPE_BYTES;

use crate::{files, raft};

/// Messages and records of the formats' first version, as other tests have them.
const STREAM: [(&str, &[u8]); 18] = [
    (
        "follower-applied",
        include_bytes!("../../protocol/testdata/v1/follower-applied.bin"),
    ),
    (
        "follower-ask",
        include_bytes!("../../protocol/testdata/v1/follower-ask.bin"),
    ),
    (
        "follower-echo",
        include_bytes!("../../protocol/testdata/v1/follower-echo.bin"),
    ),
    (
        "follower-follow",
        include_bytes!("../../protocol/testdata/v1/follower-follow.bin"),
    ),
    (
        "follower-follow-nothing",
        include_bytes!("../../protocol/testdata/v1/follower-follow-nothing.bin"),
    ),
    (
        "follower-hashes",
        include_bytes!("../../protocol/testdata/v1/follower-hashes.bin"),
    ),
    (
        "follower-hello",
        include_bytes!("../../protocol/testdata/v1/follower-hello.bin"),
    ),
    (
        "follower-unfollow",
        include_bytes!("../../protocol/testdata/v1/follower-unfollow.bin"),
    ),
    (
        "source-current",
        include_bytes!("../../protocol/testdata/v1/source-current.bin"),
    ),
    (
        "source-dropped",
        include_bytes!("../../protocol/testdata/v1/source-dropped.bin"),
    ),
    (
        "source-heartbeat",
        include_bytes!("../../protocol/testdata/v1/source-heartbeat.bin"),
    ),
    (
        "source-image-begin",
        include_bytes!("../../protocol/testdata/v1/source-image-begin.bin"),
    ),
    (
        "source-image-end",
        include_bytes!("../../protocol/testdata/v1/source-image-end.bin"),
    ),
    (
        "source-need-hashes",
        include_bytes!("../../protocol/testdata/v1/source-need-hashes.bin"),
    ),
    (
        "source-pages",
        include_bytes!("../../protocol/testdata/v1/source-pages.bin"),
    ),
    (
        "source-transaction",
        include_bytes!("../../protocol/testdata/v1/source-transaction.bin"),
    ),
    (
        "source-welcome",
        include_bytes!("../../protocol/testdata/v1/source-welcome.bin"),
    ),
    (
        "transaction",
        include_bytes!("../../protocol/testdata/v1/transaction.bin"),
    ),
];

const BOOKMARK: &str = include_str!("../../protocol/testdata/v1/bookmark.txt");

const TEXTS: [(&str, &str); 6] = [
    (
        "session",
        "first-unconstrained\nlinearizable\n2500ms\nexact\n018f6b2c-0000-7000-8000-000000000001\nstale",
    ),
    (
        "staleness",
        "first-primary\nmax-staleness=1s500ms\n10s\nd1\n\nforward\n\nmax-staleness=5m",
    ),
    (
        "delivered",
        "waited-ms=8, staleness-ms=120, forwarded=unknown-database",
    ),
    ("region", "WEUR-2"),
    ("name", "shop_2-a"),
    ("uuid", "018f6b2c-0000-7000-8000-000000000001"),
];

const BODIES: [(&str, &str); 9] = [
    (
        "query",
        r#"{"sql":"SELECT ?, ?2","params":[null,true,7,-7.5e3,"x",[1,255]]}"#,
    ),
    (
        "exact",
        r#"{"batch":[{"sql":"SELECT ?","params":[{"base64":"AQI="},{"real":"-Infinity"},-0.0]},{"sql":"x"}]}"#,
    ),
    (
        "binding",
        r#"[{"sql":"INSERT INTO t VALUES (?)","params":[9007199254740993]},{"sql":"SELECT 1"}]"#,
    ),
    (
        "create",
        r#"{"name":"shop","primary_location_hint":"weur","jurisdiction":"eu","read_replication":{"mode":"auto"}}"#,
    ),
    ("edit", r#"{"read_replication":{"mode":"disabled"}}"#),
    (
        "import",
        r#"{"action":"ingest","etag":"00112233445566778899aabbccddeeff","filename":"a.sql"}"#,
    ),
    ("poll", r#"{"action":"poll","current_bookmark":"x"}"#),
    (
        "export",
        r#"{"output_format":"polling","dump_options":{"no_schema":true,"no_data":false,"tables":["t"]}}"#,
    ),
    (
        "sql",
        "WITH a AS (SELECT \"b\" FROM t WHERE c IN ('x', 1.5e3, x'00')) INSERT INTO u VALUES (1, 'y''z'); -- n\n/* m */",
    ),
];

const QUESTIONS: [(&str, &str); 2] = [
    (
        "body",
        r#"{"query":"query Q($f: Any) { viewer { accounts(filter: {accountTag: \"a\"}) { d1AnalyticsAdaptiveGroups(limit: 10, filter: $f, orderBy: [date_ASC]) { sum { readQueries } } } } }","variables":{"f":{"AND":[{"datetimeHour_geq":"2026-01-01T00:00:00Z"},{"databaseId":"x"}]}}}"#,
    ),
    (
        "query",
        "{ viewer { accounts { q: d1QueriesAdaptiveGroups(limit: 5, filter: {date_lt: \"2026-01-02\", AND: [{datetime_leq: \"2026-01-01T10:00:00Z\"}]}, orderBy: sum_rowsRead_DESC) { count } d1StorageAdaptiveGroups(filter: $f) { max { databaseSizeBytes } } } } }",
    ),
];

const IDENTITY: &str = "node = \"00000000000000a1\"\nincarnation = \"0000000000000000000000000000001e\"\n\
                        role = \"primary\"\ncluster = \"tidemark\"\n";

const SCRIPTS: [(&str, &str); 5] = [
    (
        "tables",
        "\0CREATE TABLE t (a INTEGER PRIMARY KEY AUTOINCREMENT, b TEXT UNIQUE, c REAL, d BLOB, e AS (a * 2));\
         INSERT INTO t (b, c, d) VALUES ('x''y', 1e300, x'00ff'), ('a\nb', -0.0, NULL) RETURNING a;",
    ),
    (
        "script",
        "\x01PRAGMA foreign_keys=off; BEGIN; CREATE TABLE p (i PRIMARY KEY) WITHOUT ROWID; \
         CREATE TABLE c (i REFERENCES p ON DELETE CASCADE); INSERT INTO p VALUES (1); INSERT INTO c VALUES (1); COMMIT;",
    ),
    (
        "triggers",
        "\0CREATE TABLE a (x); CREATE INDEX i ON a (x DESC) WHERE x > 1; CREATE VIEW v AS SELECT x FROM a;\0\
         CREATE TRIGGER r INSTEAD OF INSERT ON v BEGIN INSERT INTO a VALUES (new.x); END;\0INSERT INTO v VALUES (7)",
    ),
    (
        "search",
        "\0CREATE VIRTUAL TABLE f USING fts5(a, b, tokenize=porter); INSERT INTO f VALUES ('one', 'two');\
         CREATE TABLE j (x); INSERT INTO j VALUES (json('{\"a\":[1,2]}')); ANALYZE;",
    ),
    (
        "alter",
        "\x01CREATE TABLE t (a, b); ALTER TABLE t ADD COLUMN c DEFAULT 'x'; ALTER TABLE t RENAME COLUMN a TO z; \
         ALTER TABLE t DROP COLUMN b; INSERT INTO t WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n \
         WHERE i < 50) SELECT i, hex(i) FROM n; DELETE FROM t WHERE z % 2;",
    ),
];

const REQUESTS: [(&str, &str); 9] = [
    (
        "query",
        "POST /client/v4/accounts/a/d1/database/shop/query\nx-d1-bookmark: first-primary\ntidemark-values: exact\n\n\
         {\"sql\":\"SELECT ?, x'00', 1.5, 'y'\",\"params\":[1]}",
    ),
    (
        "raw",
        "POST /client/v4/accounts/a/d1/database/shop/raw\n\n\
         {\"sql\":\"CREATE TABLE IF NOT EXISTS t (a); INSERT INTO t VALUES (1); DELETE FROM t\"}",
    ),
    (
        "list",
        "GET /client/v4/accounts/a/d1/database?name=sh&page=1&per_page=10\n\n",
    ),
    (
        "binding",
        "POST /d1/shop/query?resultsFormat=ARRAY_OF_OBJECTS\n\n[{\"sql\":\"SELECT 1\",\"params\":[]}]",
    ),
    (
        "import",
        "POST /client/v4/accounts/a/d1/database/shop/import\n\n\
         {\"action\":\"init\",\"etag\":\"00112233445566778899aabbccddeeff\"}",
    ),
    (
        "export",
        "POST /client/v4/accounts/a/d1/database/shop/export\n\n{\"output_format\":\"polling\"}",
    ),
    (
        "bookmark",
        "GET /client/v4/accounts/a/d1/database/shop/time_travel/bookmark?timestamp=2026-01-01T00:00:00Z\n\n",
    ),
    (
        "graphql",
        "POST /client/v4/graphql\n\n{\"query\":\"{ viewer { accounts { d1StorageAdaptiveGroups { count } } } }\"}",
    ),
    (
        "verify",
        "POST /tidemark/v1/databases/shop/verify\ntidemark-request-id: 018f6b2c-0000-7000-8000-000000000001\n\n",
    ),
];

/// Changes to files of a database, see [`crate::database::check`].
const CHANGES: [(&str, &[u8]); 7] = [
    ("main-sealed", &[0, 0, 100, 0, 2, 5, 0]),
    ("main", &[4, 1, 0, 0, 1, 10]),
    ("wal-sealed", &[1, 0, 40, 0, 1, 3]),
    ("wal", &[5, 0, 0, 0, 4, 0x37, 0x7f, 6, 0x83]),
    ("positions", &[2, 0, 30, 0, 1, 9]),
    ("cut", &[0, 3, 0, 0, 0x80]),
    ("none", &[0]),
];

/// The name of a target, the name of a file, and what it holds.
pub fn seeds() -> Vec<(&'static str, String, Vec<u8>)> {
    let mut seeds = Vec::new();
    let mut add = |target, name: &str, bytes: Vec<u8>| seeds.push((target, name.to_owned(), bytes));
    add("text", "bookmark", BOOKMARK.trim_end().into());
    for (name, text) in TEXTS {
        add("text", name, text.into());
    }
    for (name, message) in STREAM {
        add("stream", name, message.to_vec());
        if name != "transaction" {
            // Its kind and payload, which the target seals anew.
            let payload = [&message[5..6], &message[ENVELOPE_BYTES..]].concat();
            add("stream", &format!("{name}-payload"), payload);
        }
    }
    let which = |name| raft::DECODERS.iter().position(|(known, _)| *known == name);
    for (number, (name, bytes)) in fuzzing::samples().into_iter().enumerate() {
        if let Some(which) = which(name) {
            let which = u8::try_from(which).expect("a few decoders");
            add(
                "raft",
                &format!("{number:02}-{name}"),
                [&[which], &bytes[..]].concat(),
            );
        } else {
            add("files", name, [&[files::APPLIED], &bytes[..]].concat());
        }
    }
    for (number, chain) in fuzzing::chains().into_iter().enumerate() {
        add(
            "files",
            &format!("chain-{number}"),
            [&[files::CHAIN], &chain[..]].concat(),
        );
    }
    let table = crate::sealed::at_the_end(
        &[
            b"TMREQ\0\0\x01\x01\0\0\0",
            &[7; 44][..],
            &[2, 0, 0, 0],
            b"[]",
            &[0; 4],
        ]
        .concat(),
    );
    add(
        "files",
        "requests",
        [&[files::REQUESTS], &table[..]].concat(),
    );
    for (number, image) in fuzzing::images().into_iter().enumerate() {
        add(
            "files",
            &format!("image-{number}"),
            [&[files::IMAGE], &image[..]].concat(),
        );
    }
    add("files", "messages", messages());
    for (name, text) in BODIES {
        add("bodies", name, text.into());
    }
    for (name, text) in QUESTIONS {
        add("graphql", name, text.into());
    }
    add(
        "config",
        "sample",
        include_bytes!("../../deploy/tidemark.toml").to_vec(),
    );
    add("config", "node", IDENTITY.into());
    add(
        "config",
        "tokens",
        b"# for the shop\nshop-token-1\n\nother-token\n".to_vec(),
    );
    for (name, text) in SCRIPTS {
        add("script", name, text.into());
    }
    for (name, text) in REQUESTS {
        add("http", name, text.into());
    }
    for (name, bytes) in CHANGES {
        add("database", name, bytes.to_vec());
    }
    seeds
}

/// An image in the form of [`files::MESSAGES`]: its end, and an empty table.
fn messages() -> Vec<u8> {
    const IMAGE_END: u8 = 70;
    let end = [&[IMAGE_END, 16, 0][..], &[0; 16]].concat();
    let table = [&[0, 8, 0][..], &[0; 8]].concat();
    [&[files::MESSAGES], &end[..], &table].concat()
}
