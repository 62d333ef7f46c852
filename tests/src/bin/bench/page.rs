//! Figures in pages of `docs/`: what stands between two marks is made by this program, the rest by people.

use std::path::Path;

use anyhow::Context as _;

/// Writes `text` into the page, between the comments `<!-- figures NAME -->` and `<!-- end of NAME -->`.
pub(crate) fn put(page: &Path, name: &str, text: &str) -> anyhow::Result<()> {
    let shown = page.display();
    let old = std::fs::read_to_string(page).with_context(|| format!("read {shown}"))?;
    let (begin, end) = (
        format!("<!-- figures {name} -->\n"),
        format!("<!-- end of {name} -->"),
    );
    let split = |text: &'_ str, mark: &str| -> Option<(String, String)> {
        let (before, after) = text.split_once(mark)?;
        Some((before.to_owned(), after.to_owned()))
    };
    let parts = split(&old, &begin).and_then(|(head, rest)| Some((head, split(&rest, &end)?.1)));
    let (head, tail) = parts.with_context(|| format!("{shown} has no figures called {name}"))?;
    let new = format!("{head}{begin}{text}{end}{tail}");
    std::fs::write(page, new).with_context(|| format!("write {shown}"))
}
