//! Why a connection to the source was not made or has ended. Always followed by another try.

use std::io;
use std::time::Duration;

use tidemark_net::UnpackError;
use tidemark_protocol::Term;
use tidemark_protocol::headers::LEADER;
use tidemark_protocol::stream::StreamError;
use tokio_tungstenite::tungstenite::{self, http::HeaderValue};

/// Why a connection to the source was not made or has ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Lost {
    /// Nobody answers there.
    #[error("connecting failed")]
    Connect(#[source] io::Error),
    /// It took too long.
    #[error("{doing} took longer than {wait:?}")]
    Slow {
        /// What took so long.
        doing: &'static str,
        /// The bound.
        wait: Duration,
    },
    /// The WebSocket broke, or was never one.
    #[error("the stream broke")]
    Socket(#[from] Box<tungstenite::Error>),
    /// The source ended it.
    #[error("the source closed the stream")]
    Closed,
    /// It does not lead, and said who does.
    #[error("the node does not lead, but {leader} does")]
    NotLeading {
        /// Base URL of the leader.
        leader: String,
    },
    /// Nothing came for too long.
    #[error("nothing came for {silence:?}")]
    Silent {
        /// How long.
        silence: Duration,
    },
    /// What came is no message.
    #[error("the source sent a bad message")]
    Message(#[from] StreamError),
    /// What came packed is nothing that the source packed.
    #[error("the source sent a bad packed message")]
    Unpack(#[from] UnpackError),
    /// A message that does not belong there.
    #[error("the source broke the protocol: {complaint}")]
    Protocol {
        /// What it did.
        complaint: String,
    },
    /// The source's leadership has ended.
    #[error("the source has term {got}, newest seen is {newest}")]
    OldTerm {
        /// The source's.
        got: Term,
        /// The newest seen.
        newest: Term,
    },
    /// A new term could not be written down.
    #[error("writing the term failed")]
    Term(#[source] io::Error),
}

impl Lost {
    /// The reason in one word, for metrics.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::Connect(_) => "connect",
            Self::Slow { .. } => "slow",
            Self::Socket(_) => "socket",
            Self::Closed => "closed",
            Self::NotLeading { .. } => "redirect",
            Self::Silent { .. } => "silent",
            Self::Message(_) | Self::Unpack(_) => "message",
            Self::Protocol { .. } => "protocol",
            Self::OldTerm { .. } => "term",
            Self::Term(_) => "storage",
        }
    }
}

impl Lost {
    /// Where it is said to be worth looking next.
    pub(crate) fn leader(&self) -> Option<&str> {
        if let Self::NotLeading { leader } = self {
            Some(leader)
        } else {
            None
        }
    }
}

impl From<tungstenite::Error> for Lost {
    fn from(error: tungstenite::Error) -> Self {
        use tungstenite::Error::{AlreadyClosed, ConnectionClosed};

        if let tungstenite::Error::Http(refusal) = &error
            && let Some(Ok(leader)) = refusal.headers().get(LEADER).map(HeaderValue::to_str)
        {
            let leader = leader.to_owned();
            return Self::NotLeading { leader };
        }
        if matches!(error, ConnectionClosed | AlreadyClosed) {
            Self::Closed
        } else {
            Self::Socket(Box::new(error))
        }
    }
}
