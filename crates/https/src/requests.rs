//! What each request meets before its handler: a place among those under way, and what tells the connection's phase.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::response::{IntoResponse, Response};
use futures::future::BoxFuture;
use http::{Request, StatusCode, header};
use hyper::body::{Body as _, Frame, Incoming, SizeHint};
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;

use crate::peer::Peer;
use crate::places::Place;
use crate::response::refuse;
use crate::room::{Occupied, Room};
use crate::{Server, body};

/// An answer of so many bytes is of those that each connection may have.
const ANSWER_SMALL: u64 = 8 << 10;

/// The service of one connection.
pub(super) struct Requests {
    place: Arc<Place>,
    server: Arc<Server>,
    router: TowerToHyperService<Router>,
    /// Who the caller is, where there is TLS.
    peer: Option<Peer>,
}

impl Requests {
    pub(super) fn new(place: &Arc<Place>, server: &Arc<Server>, peer: Option<Peer>) -> Self {
        let router = TowerToHyperService::new(server.router.clone());
        Self { place: Arc::clone(place), server: Arc::clone(server), router, peer }
    }
}

impl Service<Request<Incoming>> for Requests {
    type Response = Response<Answer>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        request.extensions_mut().insert(Arc::clone(&self.server.room));
        if let Some(peer) = &self.peer {
            request.extensions_mut().insert(peer.clone());
        }
        let (place, server, router) = (Arc::clone(&self.place), Arc::clone(&self.server), self.router.clone());
        Box::pin(async move {
            place.written().await;
            if !place.begin() {
                // The connection ends before this is polled again.
                std::future::pending::<()>().await;
            }
            let (response, held) = within_memory(&server.room, answer(&server, &place, router, request).await);
            place.answering();
            Ok(response.map(|body| Answer { body, place, _held: held }))
        })
    }
}

async fn answer(
    server: &Server,
    place: &Arc<Place>,
    router: TowerToHyperService<Router>,
    request: Request<Incoming>,
) -> Response {
    let _in_flight = server.room.stats.requests_in_flight.enter();
    // What has no body waits for nothing, and is answered from memory: probes find room at any time.
    let has_body = !request.body().is_end_stream();
    let room = if has_body { server.room.request().await } else { None };
    if has_body {
        if room.is_none() {
            return shed(&server.room, Body::new(request.into_body())).await;
        }
        place.receiving();
    }
    let response = match router.call(request.map(|body| Body::new(Receiving { body, place: Arc::clone(place) }))).await
    {
        Ok(response) => response,
        Err(never) => match never {},
    };
    drop(room);
    response
}

/// Too many at once: the API server posts it again, within the time of its call.
async fn shed(room: &Room, body: Body) -> Response {
    room.stats.requests_shed.add();
    room.told.shed.tell(|more| tracing::warn!(more, "too many requests at once: some are answered with 429"));
    body::discard(body).await;
    let answer = refuse(StatusCode::TOO_MANY_REQUESTS, "too many requests at once: send it again");
    ([(header::RETRY_AFTER, "1")], answer).into_response()
}

/// An answer that is large takes of what all share until its caller has it; where there is no more, it is not given.
fn within_memory(room: &Room, response: Response) -> (Response, Option<Occupied>) {
    let size = response.body().size_hint().upper().unwrap_or(0);
    if size <= ANSWER_SMALL {
        return (response, None);
    }
    match usize::try_from(size).ok().and_then(|size| room.memory_now(size)) {
        Some(held) => (response, Some(held)),
        None => {
            let refusal = refuse(StatusCode::SERVICE_UNAVAILABLE, "too many answers wait to be read: ask again");
            (([(header::RETRY_AFTER, "1")], refusal).into_response(), None)
        }
    }
}

/// A request's body, which tells when it is whole.
struct Receiving {
    body: Incoming,
    place: Arc<Place>,
}

impl hyper::body::Body for Receiving {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if frame.is_none() || self.body.is_end_stream() {
            self.place.received();
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Receiving {
    fn drop(&mut self) {
        self.place.received();
    }
}

/// An answer's body, which tells when hyper has the last of it.
pub(super) struct Answer {
    body: Body,
    place: Arc<Place>,
    _held: Option<Occupied>,
}

impl hyper::body::Body for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.place.handed_over();
    }
}
