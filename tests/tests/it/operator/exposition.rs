//! What a node shows under `/metrics`, read as strictly as OpenMetrics 1.0 is written.

use std::collections::{BTreeMap, BTreeSet};

/// Names of samples, with the suffixes that their types give them.
pub(crate) type Samples = BTreeSet<String>;

/// The names of all samples of a text. Panics where it is not OpenMetrics.
pub(crate) fn samples(text: &str) -> Samples {
    let body = text
        .strip_suffix("# EOF\n")
        .expect("the text ends with # EOF");
    let mut types = BTreeMap::new();
    let mut last = String::new();
    let mut names = Samples::new();
    let mut seen = BTreeSet::new();
    for line in body.lines() {
        match line.strip_prefix("# ") {
            Some(comment) => {
                let mut words = comment.splitn(3, ' ');
                let mut word = || words.next().unwrap_or_else(|| panic!("{line}"));
                let (what, family, rest) = (word(), word(), word());
                match what {
                    "HELP" => assert!(!rest.is_empty(), "{line}"),
                    "TYPE" => {
                        let before = types.insert(family.to_owned(), rest.to_owned());
                        assert_eq!(before, None, "declared twice: {line}");
                        assert_name(family);
                        family.clone_into(&mut last);
                    }
                    "UNIT" => {}
                    _ => panic!("not a line of OpenMetrics: {line}"),
                }
            }
            None => {
                let name = sample(line);
                assert!(
                    seen.insert(line.rsplit_once(' ').expect("a value").0),
                    "twice: {line}"
                );
                let suffix = name
                    .strip_prefix(&last)
                    .unwrap_or_else(|| panic!("not of {last}: {line}"));
                let allowed: &[&str] = match types[&last].as_str() {
                    "counter" => &["_total", "_created"],
                    "gauge" => &[""],
                    "histogram" => &["_bucket", "_sum", "_count", "_created"],
                    "info" => &["_info"],
                    other => panic!("{last} is a {other}"),
                };
                assert!(
                    allowed.contains(&suffix),
                    "{line}: not a sample of a {}",
                    types[&last]
                );
                names.insert(name);
            }
        }
    }
    names
}

/// Reads `name{label="value",…} value`, gives the name.
fn sample(line: &str) -> String {
    let (head, value) = line
        .rsplit_once(' ')
        .unwrap_or_else(|| panic!("no value: {line}"));
    let number = value.parse::<f64>().is_ok() || matches!(value, "+Inf" | "-Inf" | "NaN");
    assert!(number, "not a number: {line}");
    let Some((name, labels)) = head.split_once('{') else {
        assert_name(head);
        return head.to_owned();
    };
    assert_name(name);
    let mut rest = labels
        .strip_suffix('}')
        .unwrap_or_else(|| panic!("open labels: {line}"));
    while !rest.is_empty() {
        let (label, after) = rest
            .split_once("=\"")
            .unwrap_or_else(|| panic!("no value: {line}"));
        assert_name(label);
        let end = end_of_text(after).unwrap_or_else(|| panic!("open value: {line}"));
        rest = after[end + 1..].trim_start_matches(',');
    }
    name.to_owned()
}

/// Where the quote is that ends a value.
fn end_of_text(text: &str) -> Option<usize> {
    let mut escaped = false;
    text.bytes().position(|byte| {
        let ends = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        ends
    })
}

fn assert_name(name: &str) {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let named = name.bytes().all(plain) && name.starts_with(|c: char| c.is_ascii_alphabetic());
    assert!(named, "'{name}' cannot be a name");
}
