//! SQL of clients, as requests and as files: whatever it does, a copy that applies the transaction arrives at the
//! same state, and an export read back is exported as the same.

use tidemark_protocol::{Rules, Transaction};

use crate::engine::{directory, execute, exported, open};

/// Bytes of SQL that are looked at: what is longer is slow and says nothing new.
const BYTES_MAX: usize = 4096;

/// The first byte says by which rules the others run; they are texts with a zero byte between them.
pub fn check(bytes: &[u8]) {
    let [rules, sql @ ..] = bytes else {
        return;
    };
    let Ok(sql) = str::from_utf8(&sql[..sql.len().min(BYTES_MAX)]) else {
        return;
    };
    let rules = match rules % 2 {
        0 => Rules::Request,
        _ => Rules::Script,
    };
    let texts: Vec<&str> = sql.split('\0').collect();
    let place = directory();
    let mut first = open(&place.path().join("first")).expect("an empty database opens");
    let Ok(Some(transaction)) = execute(&mut first.owner, rules, &texts) else {
        assert_eq!(
            first.owner.tip(),
            first.owner.position(),
            "nothing happened"
        );
        return;
    };
    let next = transaction.header().next;
    let again = Transaction::decode(transaction.encoded().clone());
    assert_eq!(again.as_ref(), Ok(&transaction));
    first.owner.acknowledge(next.seq).expect("the newest one");
    assert_eq!(first.database.position(), Some(next));

    let mut copy = open(&place.path().join("copy")).expect("an empty database opens");
    let arrived = copy.owner.apply(&[transaction]).expect("it follows");
    assert_eq!(arrived, next);
    let text = exported(&first.database);
    assert_eq!(exported(&copy.database), text, "the copy has the same");

    // What cannot be read back: checks and constraints that the rows do not meet, which SQL has ways to bring
    // about, and what is too long for one go.
    let Some(text) = text else {
        return;
    };
    let mut read = open(&place.path().join("read")).expect("an empty database opens");
    if let Ok(Some(transaction)) = execute(&mut read.owner, Rules::Script, &[&text]) {
        let seq = transaction.header().next.seq;
        read.owner.acknowledge(seq).expect("the newest one");
        if let Some(again) = exported(&read.database) {
            assert_eq!(again, text);
        }
    }
}
