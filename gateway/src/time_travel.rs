//! Time travel, as far as it goes: the bookmark of the present. A past to go back to is not kept yet, and
//! whoever asks for it is told so.

use std::sync::Arc;

use axum::extract::{Path, Query, Request, State};
use axum::response::Response;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tidemark_protocol::d1::{BadQuery, QueryBounds};
use tidemark_protocol::render::{RowShape, ValueForm};
use tidemark_protocol::{Failure, FailureKind, Node, ReadContract, Statement};

use crate::ask::Ask;
use crate::envelope;
use crate::forward::Effect;
use crate::gateway::{Gateway, check_database};
use crate::metrics::Route;
use crate::query::{DatabasePath, Job, Ran};
use crate::router::{bad_path, check_account};

#[derive(Deserialize)]
struct BookmarkQuery {
    timestamp: Option<String>,
}

#[derive(Serialize)]
struct Present {
    bookmark: String,
}

/// The newest state that was acknowledged, by the primary's word.
pub(crate) async fn bookmark<N: Node>(
    State(gateway): State<Arc<Gateway<N>>>,
    path: DatabasePath,
    request: Request,
) -> Response {
    let (head, _) = request.into_parts();
    let work = async {
        let Path((account, database)) = path.map_err(|rejection| bad_path(&rejection))?;
        check_account(&account)?;
        check_database(&database)?;
        let query = Query::<BookmarkQuery>::try_from_uri(&head.uri);
        let Query(BookmarkQuery { timestamp }) = query.map_err(|rejection| {
            let text = format!("The request is malformed: {}", rejection.body_text());
            Failure::new(FailureKind::BadRequest, text)
        })?;
        if let Some(timestamp) = timestamp {
            return Err(no_history(&format!("timestamp => '{timestamp}'")));
        }
        let ask = Ask {
            read: ReadContract::FirstPrimary,
            ..Ask::read(&head.headers)?
        };
        let job = Job {
            head: &head,
            body: &Bytes::new(),
            ask: &ask,
            database: &database,
            effect: Effect::Looks,
            shape: RowShape::Arrays.into(),
            parse: any_read,
        };
        match job.run(&gateway).await? {
            Ran::Elsewhere(response) => Ok(response),
            Ran::Misshaped(failure, _) => Err(failure),
            Ran::Here(answer) => {
                let bookmark = answer.bookmark.to_string();
                Ok(envelope::success(&Present { bookmark }, None))
            }
        }
    };
    gateway.answer(Route::TimeTravel, &head, work).await
}

pub(crate) async fn restore<N: Node>(
    State(gateway): State<Arc<Gateway<N>>>,
    request: Request,
) -> Response {
    let (head, _) = request.into_parts();
    let work = async { Err(no_history("restore")) };
    gateway.answer(Route::TimeTravel, &head, work).await
}

/// Every answer has the bookmark of the state it was read from, so any read will do.
pub(crate) fn any_read(
    _: &[u8],
    _: ValueForm,
    _: &QueryBounds,
) -> Result<Vec<Statement>, BadQuery> {
    Ok(vec![Statement {
        sql: "SELECT 1".to_owned(),
        params: Vec::new(),
    }])
}

fn no_history(what: &str) -> Failure {
    let text = format!(
        "Invalid property: {what}: no past states of databases are kept yet, only the present one \
         can be named"
    );
    Failure::new(FailureKind::BadRequest, text)
}
