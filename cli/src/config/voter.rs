//! A voter of the cell as text: `ID=URL`.

use std::fmt;
use std::str::FromStr;

use serde::Deserialize;
use tidemark_protocol::NodeId;

/// A node's id as it is given: hexadecimal digits, leading zeros or not.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct GivenId(pub(crate) NodeId);

/// A voter: `1=http://10.0.1.5:8787`.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct Voter {
    /// Its id.
    pub(crate) node: NodeId,
    /// Base URL under which other nodes reach it.
    pub(crate) url: String,
}

/// The text is not a node's id.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("'{text}' is not a node id: want 1 to 16 hexadecimal digits, not all zero")]
pub(crate) struct IdError {
    text: String,
}

/// The text is not a voter.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum VoterError {
    #[error("'{text}' is not a voter: want ID=URL")]
    Form { text: String },
    #[error(transparent)]
    Id(#[from] IdError),
}

impl FromStr for GivenId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = text.bytes().all(|byte| byte.is_ascii_hexdigit());
        match u64::from_str_radix(text, 16) {
            // Zero stands for nobody in places.
            Ok(id @ 1..) if digits => Ok(Self(NodeId(id))),
            _ => Err(IdError {
                text: text.to_owned(),
            }),
        }
    }
}

impl FromStr for Voter {
    type Err = VoterError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (id, url) = text.split_once('=').ok_or_else(|| VoterError::Form {
            text: text.to_owned(),
        })?;
        let GivenId(node) = id.parse()?;
        Ok(Self {
            node,
            url: url.to_owned(),
        })
    }
}

impl TryFrom<String> for GivenId {
    type Error = IdError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl TryFrom<String> for Voter {
    type Error = VoterError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<GivenId> for Option<NodeId> {
    fn from(GivenId(node): GivenId) -> Self {
        Some(node)
    }
}

impl fmt::Display for Voter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}={}", self.node.0, self.url)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn voters_are_read_and_shown() {
        for (text, shown) in [
            ("1=http://a:1", "1=http://a:1"),
            ("00000000000000ab=http://b", "ab=http://b"),
        ] {
            assert_eq!(text.parse::<Voter>().unwrap().to_string(), shown);
        }
        for bad in [
            "",
            "1",
            "=http://a",
            "0=http://a",
            "+1=http://a",
            "x=http://a",
            "11112222333344445=http://a",
        ] {
            assert!(bad.parse::<Voter>().is_err(), "{bad}");
        }
    }
}
