//! The map of the cluster, drawn where most is known.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;
use tidemark_protocol::Node;
use tidemark_protocol::cluster::ClusterMap;

use crate::ask::Ask;
use crate::databases::{Primary, ask_primary, looked};
use crate::envelope;
use crate::gateway::Gateway;
use crate::metrics::Route;

/// The map as the node that leads draws it, or else what this one knows.
pub(crate) async fn map<N: Node>(
    State(gateway): State<Arc<Gateway<N>>>,
    request: Request,
) -> Response {
    let (head, _) = request.into_parts();
    let work = async {
        let ask = Ask::read(&head.headers)?;
        // Whatever keeps the node that leads from answering, this one can say who it is.
        if !ask.forwarded
            && let Ok(Primary::Said(response)) = ask_primary(&gateway, &head, &ask).await
            && response.status().is_success()
        {
            return Ok(response);
        }
        let status = looked(&ask, async { Ok(gateway.node.status().await) }).await?;
        let map = ClusterMap::drawn(&status, gateway.node.cluster(), gateway.url.as_deref());
        Ok(envelope::success(&map, None))
    };
    gateway.answer(Route::Status, &head, work).await
}
