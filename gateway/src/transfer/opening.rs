//! Where a request about imports or exports is answered: where the database's newest state is.
//!
//! Any read at the primary says so, and has the bookmark of that state; a node that cannot do it passes the
//! request on, or looks for the one that can.

use axum::http::request::Parts;
use axum::response::Response;
use bytes::Bytes;
use tidemark_protocol::render::RowShape;
use tidemark_protocol::{Bookmark, DatabaseId, Failure, Node, ReadContract};

use crate::ask::Ask;
use crate::forward::Effect;
use crate::gateway::{Gateway, missing};
use crate::query::{Job, Ran};
use crate::time_travel::any_read;

/// Where a request is answered.
pub(super) enum Opened {
    /// Here, and this is the newest state.
    Here(DatabaseId, Bookmark),
    /// There, in these words.
    Elsewhere(Response),
}

/// A request about one database.
pub(super) struct Opening<'r> {
    pub(super) head: &'r Parts,
    pub(super) body: &'r Bytes,
    pub(super) ask: &'r Ask,
    pub(super) database: &'r str,
    pub(super) effect: Effect,
}

impl Opening<'_> {
    pub(super) async fn open<N: Node>(&self, gateway: &Gateway<N>) -> Result<Opened, Failure> {
        let ask = Ask {
            read: ReadContract::Primary,
            ..*self.ask
        };
        let job = Job {
            head: self.head,
            body: self.body,
            ask: &ask,
            database: self.database,
            effect: self.effect,
            shape: RowShape::Arrays.into(),
            parse: any_read,
        };
        let answer = match job.run(gateway).await? {
            Ran::Elsewhere(response) => return Ok(Opened::Elsewhere(response)),
            Ran::Here(answer) => answer,
            Ran::Misshaped(failure, _) => return Err(failure),
        };
        match gateway.node.resolve(self.database) {
            Some(database) => Ok(Opened::Here(database, answer.bookmark)),
            None => Err(missing(&*gateway.node, self.database)),
        }
    }
}
