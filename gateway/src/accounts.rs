//! Who is asking, and for which account: what D1's tools want to know before they begin. Any node says so by
//! itself, since every account is the same and every token opens everything.

use std::sync::Arc;

use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, Request, State};
use axum::response::Response;
use serde::{Deserialize, Serialize};
use tidemark_protocol::d1::{ACCOUNT, Account, Membership, ResultInfo, TokenStatus, User};
use tidemark_protocol::{Failure, Node};

use crate::envelope;
use crate::gateway::Gateway;
use crate::metrics::Route;
use crate::router::{bad_path, check_account};

/// As text: a page that is no number is one that has nothing on it.
#[derive(Deserialize)]
pub(crate) struct PageQuery {
    page: Option<String>,
}

type Page = Result<Query<PageQuery>, QueryRejection>;

pub(crate) async fn accounts<N: Node>(
    State(gateway): State<Arc<Gateway<N>>>,
    page: Page,
    request: Request,
) -> Response {
    answer(&gateway, request, async {
        Ok(only(&page, &Account::new(ACCOUNT)))
    })
    .await
}

pub(crate) async fn account<N: Node>(
    State(gateway): State<Arc<Gateway<N>>>,
    path: Result<Path<String>, PathRejection>,
    request: Request,
) -> Response {
    answer(&gateway, request, async {
        let Path(account) = path.map_err(|rejection| bad_path(&rejection))?;
        check_account(&account)?;
        Ok(envelope::success(&Account::new(account), None))
    })
    .await
}

pub(crate) async fn memberships<N: Node>(
    State(gateway): State<Arc<Gateway<N>>>,
    page: Page,
    request: Request,
) -> Response {
    answer(&gateway, request, async {
        Ok(only(&page, &Membership::default()))
    })
    .await
}

pub(crate) async fn user<N: Node>(
    State(gateway): State<Arc<Gateway<N>>>,
    request: Request,
) -> Response {
    answer(&gateway, request, async {
        Ok(envelope::success(&User::default(), None))
    })
    .await
}

pub(crate) async fn token<N: Node>(
    State(gateway): State<Arc<Gateway<N>>>,
    request: Request,
) -> Response {
    answer(&gateway, request, async {
        Ok(envelope::success(&TokenStatus::default(), None))
    })
    .await
}

async fn answer<N: Node>(
    gateway: &Gateway<N>,
    request: Request,
    work: impl Future<Output = Result<Response, Failure>>,
) -> Response {
    let (head, _) = request.into_parts();
    gateway.answer(Route::Account, &head, work).await
}

/// A list of one, on its first page. Clients go on until a page is empty.
fn only(page: &Page, item: &impl Serialize) -> Response {
    let page = match page {
        Ok(Query(PageQuery { page: Some(page) })) => page.parse().unwrap_or(u64::MAX),
        Ok(Query(PageQuery { page: None })) | Err(_) => 1,
    };
    let items = if page <= 1 { vec![item] } else { Vec::new() };
    let info = ResultInfo {
        page,
        per_page: 20,
        count: items.len() as u64,
        total_count: 1,
    };
    envelope::success(&items, Some(&info))
}
