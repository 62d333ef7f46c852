//! Accounts, users and tokens, of which there is one each: D1's tools look for them before they begin.

use serde::{Deserialize, Serialize};

/// The account that lists show. Paths take any other name as well.
pub const ACCOUNT: &str = "tidemark";

/// An account.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Account {
    /// What it is called in paths.
    pub id: String,
    /// For people.
    pub name: String,
}

impl Account {
    /// The account `id`.
    pub fn new(id: impl Into<String>) -> Self {
        Self {
            id: id.into(),
            name: "Tidemark".to_owned(),
        }
    }
}

/// What connects the user with the account.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Membership {
    /// Its identifier.
    pub id: String,
    /// Always `accepted`.
    pub status: String,
    /// The account.
    pub account: Account,
    /// What the user may do there: everything.
    pub roles: Vec<String>,
}

impl Default for Membership {
    fn default() -> Self {
        Self {
            id: ACCOUNT.to_owned(),
            status: "accepted".to_owned(),
            account: Account::new(ACCOUNT),
            roles: vec!["Super Administrator - All Privileges".to_owned()],
        }
    }
}

/// The user. A token stands for no person, so the address is nobody's.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct User {
    /// Their identifier.
    pub id: String,
    /// Their address.
    pub email: String,
}

impl Default for User {
    fn default() -> Self {
        Self {
            id: ACCOUNT.to_owned(),
            email: "operator@tidemark.invalid".to_owned(),
        }
    }
}

/// A token that was let in.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TokenStatus {
    /// Its identifier: the same for all, since tokens have no names here.
    pub id: String,
    /// Always `active`.
    pub status: String,
}

impl Default for TokenStatus {
    fn default() -> Self {
        Self {
            id: ACCOUNT.to_owned(),
            status: "active".to_owned(),
        }
    }
}
