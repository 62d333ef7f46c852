//! A cell as a table.

use std::time::Duration;

use tidemark_protocol::NodeId;
use tidemark_protocol::cell::{CellMember, CellStatus};

use super::short;
use crate::shell::blank_table;

/// Silence of a member that is worth a word: several heartbeats.
const SILENCE_SHOWN: Duration = Duration::from_secs(1);

/// The members, one a line, and what concerns all of them.
pub(super) fn show(cell: &CellStatus, seen_by: NodeId, leading: bool) -> String {
    let mut table = blank_table();
    table.set_header(["node", "part", "url", "behind", "last heard of"]);
    for member in &cell.members {
        table.add_row([
            short(member.node),
            part(cell, member).to_owned(),
            member.url.clone(),
            behind(cell, member),
            heard(cell, member),
        ]);
    }
    let number = |index: Option<u64>| index.map_or("none".to_owned(), |index| index.to_string());
    let mut text = format!(
        "{table}\nterm {}, committed {}, applied {}, log {} KiB",
        cell.term,
        number(cell.committed),
        number(cell.applied),
        cell.log_bytes >> 10,
    );
    if !leading {
        text += &format!(
            "\nas node {} sees it, which does not lead: how far the others are only the leader knows",
            short(seen_by)
        );
    }
    if cell.changing {
        text += "\na change of the members is on its way";
    }
    let voters = cell.members.iter().filter(|member| member.voter).count();
    if voters > 0 && voters % 2 == 0 {
        text += &format!(
            "\n{voters} voters survive the loss of no more than {}: have 1, 3 or 5",
            voters / 2 - 1
        );
    }
    text + "\n"
}

fn part(cell: &CellStatus, member: &CellMember) -> &'static str {
    if cell.leader == Some(member.node) {
        "leader"
    } else if member.voter {
        "voter"
    } else {
        "joining"
    }
}

fn behind(cell: &CellStatus, member: &CellMember) -> String {
    match member.behind {
        _ if cell.leader == Some(member.node) => String::new(),
        Some(0) => "nothing".to_owned(),
        Some(entries) => format!("{entries} entries"),
        None => "?".to_owned(),
    }
}

fn heard(cell: &CellStatus, member: &CellMember) -> String {
    match member.silent_ms.map(Duration::from_millis) {
        _ if cell.leader == Some(member.node) => String::new(),
        Some(silent) if silent < SILENCE_SHOWN => "now".to_owned(),
        Some(silent) => format!("{} s ago", silent.as_secs()),
        None => "?".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use tidemark_protocol::{Incarnation, Term};

    use super::*;

    #[test]
    fn leader_lag_and_even_numbers_are_told() {
        let member = |node: u64, voter, behind| CellMember {
            node: NodeId(node),
            incarnation: Incarnation(node.into()),
            url: format!("http://voter-{node}"),
            voter,
            matched: Some(7),
            behind: Some(behind),
            silent_ms: Some(5_000 * (node - 1)),
        };
        let cell = CellStatus {
            term: Term(3),
            leader: Some(NodeId(1)),
            members: vec![
                member(1, true, 0),
                member(2, true, 0),
                member(0xc, false, 12),
            ],
            changing: false,
            committed: Some(19),
            applied: Some(19),
            log_bytes: 4096,
        };
        let text = show(&cell, NodeId(1), true);
        for expected in [
            "leader",
            "joining",
            "12 entries",
            "5 s ago",
            "term 3, committed 19, applied 19, log 4 KiB",
            "2 voters survive the loss of no more than 0",
        ] {
            assert!(text.contains(expected), "{expected} in\n{text}");
        }
    }
}
