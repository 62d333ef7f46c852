//! Where settings come from, which wins, and what is refused.
#![allow(clippy::unwrap_used)]

use clap::Parser;

use super::*;

const SAMPLE: &str = include_str!("../../../deploy/tidemark.toml");

#[derive(Parser, Debug)]
struct Line {
    #[command(flatten)]
    settings: Settings,
}

fn flags(line: &[&str]) -> Settings {
    Line::try_parse_from(std::iter::once("tidemark").chain(line.iter().copied()))
        .unwrap()
        .settings
}

fn load(file: &str, line: &[&str], role: Role) -> Result<Config, ConfigError> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("tidemark.toml");
    std::fs::write(&path, file).unwrap();
    Config::load(Some(&path), flags(line), role)
}

fn problems(line: &[&str], role: Role) -> Vec<String> {
    match Config::load(None, flags(line), role) {
        Err(ConfigError::Problems(Problems(problems))) => {
            problems.iter().map(ToString::to_string).collect()
        }
        other => panic!("expected problems, got {other:?}"),
    }
}

#[test]
fn sample_file_gives_the_defaults() {
    let config = load(SAMPLE, &[], Role::Primary).unwrap();
    assert_eq!(config, Config::default());
}

#[test]
fn sample_file_names_every_setting_and_no_other() {
    let command = <Line as clap::CommandFactory>::command();
    let flags: Vec<String> = command
        .get_arguments()
        .filter_map(|flag| flag.get_long())
        .map(str::to_owned)
        .collect();
    assert!(flags.len() > 10, "flags are found: {flags:?}");
    // Settings without a default stand there as comments: `# upstream = "..."`. The table at the end has no flag.
    let keys: Vec<String> = SAMPLE
        .lines()
        .take_while(|line| !line.starts_with('['))
        .filter_map(|line| line.trim_start_matches("# ").split_once(" = "))
        .map(|(key, _)| key.to_owned())
        .collect();
    assert_eq!(keys, flags);
    // And they parse, each.
    for line in SAMPLE.lines().filter_map(|line| line.strip_prefix("# ")) {
        if line.contains(" = ") {
            toml::from_str::<Settings>(line).unwrap();
        }
    }
}

#[test]
fn regions_of_the_file_take_the_place_of_the_known_ones() {
    let file = "[regions]\nfrankfurt = { jurisdictions = ['eu'] }\n";
    let config = load(file, &[], Role::Primary).unwrap();
    let allows = |region: &str| {
        let region = region.parse().unwrap();
        config.regions.allow(Some("eu"), &region)
    };
    assert!(allows("frankfurt"));
    assert!(!allows("WEUR"));
    let misspelt = "[regions]\nfrankfurt = { jurisdiction = ['eu'] }\n";
    let error = load(misspelt, &[], Role::Primary).unwrap_err();
    assert!(matches!(error, ConfigError::Parse { .. }), "{error:?}");
}

#[test]
fn every_flag_has_its_variable() {
    let command = <Line as clap::CommandFactory>::command();
    for flag in command
        .get_arguments()
        .filter(|flag| flag.get_long() != Some("help"))
    {
        let long = flag.get_long().unwrap();
        let variable = flag.get_env().unwrap_or_default().to_str().unwrap();
        assert_eq!(
            variable,
            format!("TIDEMARK_{}", long.replace('-', "_").to_uppercase())
        );
    }
}

#[test]
fn flag_wins_over_file_and_file_over_default() {
    let file = "region = 'weur'\npage-cache = '8MiB'\n";
    let config = load(file, &["--region", "apac"], Role::Primary).unwrap();
    assert_eq!(config.region.as_str(), "APAC");
    assert_eq!(config.page_cache_bytes, 8 << 20);
    assert_eq!(config.engine().cache_kib, 8 << 10);
    assert_eq!(config.listen, LISTEN_DEFAULT);
}

#[test]
fn unknown_key_is_named_with_its_place() {
    let error = load("regoin = 'WEUR'\n", &[], Role::Primary).unwrap_err();
    let ConfigError::Parse { source, .. } = &error else {
        panic!("{error:?}")
    };
    assert!(source.to_string().contains("regoin"), "{source}");
}

#[test]
fn listener_for_other_machines_needs_tokens_and_cluster_secret() {
    let found = problems(&["--listen", "0.0.0.0:8787"], Role::Primary);
    assert_eq!(found.len(), 3, "{found:?}");
    assert!(
        found[0].starts_with("listen: 0.0.0.0:8787 can be reached"),
        "{found:?}"
    );
    assert!(found[1].contains("cluster secret"), "{found:?}");
    assert!(found[2].starts_with("advertise: is not set"), "{found:?}");

    let line = [
        ["--listen", "0.0.0.0:8787"],
        ["--token", "a-long-token"],
        ["--cluster-secret", "a-long-secret"],
        ["--advertise", "http://10.0.0.1:8787"],
    ];
    let config = Config::load(None, flags(&line.concat()), Role::Primary).unwrap();
    assert_eq!(config.tokens().unwrap(), ["a-long-token"]);
    assert_eq!(config.cluster_secret().unwrap(), "a-long-secret");
}

#[test]
fn loopback_listener_needs_no_token() {
    for listen in ["127.0.0.1:0", "[::1]:8787", "127.3.2.1:80"] {
        Config::load(None, flags(&["--listen", listen]), Role::Primary).unwrap();
    }
}

#[test]
fn replica_needs_an_upstream_and_a_primary_has_none() {
    assert_eq!(problems(&[], Role::Replica).len(), 1);
    let upstream = ["--upstream", "http://127.0.0.1:8787"];
    Config::load(None, flags(&upstream), Role::Replica).unwrap();
    assert!(problems(&upstream, Role::Primary)[0].contains("a primary follows nobody"));
}

#[test]
fn voters_are_three_or_five_different_ones_and_this_node_is_among_them() {
    let list = "1=http://a:1,2=http://a:2,3=http://a:3";
    let config = Config::load(
        None,
        flags(&["--node-id", "2", "--voter", list]),
        Role::Primary,
    );
    assert_eq!(config.unwrap().voters.len(), 3);
    let repeated = [
        "--voter",
        "1=http://a",
        "--voter",
        "2=http://b",
        "--voter",
        "3=http://c",
    ];
    let config = Config::load(None, flags(&repeated), Role::Primary).unwrap();
    let file = "voter = ['1=http://a', '2=http://b', '3=http://c']\nnode-id = '3'\n";
    let same = load(file, &[], Role::Primary).unwrap();
    assert_eq!(same.voters, config.voters);

    let found = problems(
        &["--voter", "1=http://a,1=a", "--node-id", "4"],
        Role::Replica,
    );
    for start in [
        "voter: is set, but a replica",
        "voter: 2 voters are listed",
        "voter: 0000000000000001 is listed twice",
        "voter: 'a' is not of the form",
        "voter: 0000000000000004 is not listed",
    ] {
        assert!(
            found.iter().any(|problem| problem.starts_with(start)),
            "{start}: {found:?}"
        );
    }
}

#[test]
fn all_problems_are_told_at_once() {
    let line = [
        ["--upstream", "localhost:8787"],
        ["--advertise", "http://host/path"],
        ["--cluster", "two words"],
        ["--readers", "0"],
        ["--page-cache", "1KiB"],
        ["--otlp-endpoint", "collector:4318"],
        ["--otlp-ratio", "1.5"],
    ];
    let found = problems(&line.concat(), Role::Replica);
    for (problem, start) in found.iter().zip([
        "advertise: 'http://host/path' is not of the form",
        "upstream: 'localhost:8787' is not of the form",
        "cluster: 'two words' is not a cluster name",
        "otlp-endpoint: 'collector:4318' is not of the form",
        "otlp-ratio: is 1.5, expected 0 to 1",
        "page-cache: is 1024, expected 65536 to",
        "readers: is 0, expected 1 to",
    ]) {
        assert!(problem.starts_with(start), "{problem}, expected {start}");
    }
    assert_eq!(found.len(), 7);
}

#[test]
fn base_urls_are_told_from_others() {
    for good in [
        "http://a",
        "http://a.b-c:1/",
        "http://[::1]:8787",
        "http://[::1]",
        "http://10.0.0.1",
    ] {
        assert!(is_base_url(good), "{good}");
    }
    for bad in [
        "",
        "a:1",
        "https://a",
        "http://",
        "http://:80",
        "http://a:0",
        "http://a:x",
        "http://a/b",
        "http://u@a",
        "http://a b",
    ] {
        assert!(!is_base_url(bad), "{bad}");
    }
}

#[test]
fn node_begins_a_cell_or_joins_one() {
    let join = [
        "--join",
        "http://a:1",
        "--replace",
        "3",
        "--via",
        "2=http://b:2",
    ];
    let config = Config::load(None, flags(&join), Role::Primary).unwrap();
    assert_eq!(config.join.as_deref(), Some("http://a:1"));
    assert_eq!(config.replace, Some(NodeId(3)));
    assert_eq!(config.via, ["2=http://b:2".parse().unwrap()]);

    let both = [&join[..], &["--voter", "1=http://a:1", "--node-id", "1"]].concat();
    let found = problems(&both, Role::Primary);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].starts_with("join: is set to 'http://a:1', and first voters"));
    let alone = problems(&["--replace", "3"], Role::Primary);
    assert!(alone[0].starts_with("replace: is set to 0000000000000003, but join is not"));
    let replica = problems(
        &[&join[..], &["--upstream", "http://a"]].concat(),
        Role::Replica,
    );
    assert_eq!(replica.len(), 2, "{replica:?}");
    let path = problems(&["--join", "http://a/b"], Role::Primary);
    assert!(
        path[0].starts_with("join: 'http://a/b' is not of the form"),
        "{path:?}"
    );
}
