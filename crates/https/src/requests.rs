//! What each request meets before its handler: a place among those under way, and what tells the connection's phase.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::response::{IntoResponse, Response};
use futures::future::BoxFuture;
use http::{Request, StatusCode, header};
use hyper::body::{Body as _, Frame, Incoming, SizeHint};
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;
use tokio::sync::SemaphorePermit;
use tokio::time::{Instant, timeout};

use crate::peer::Peer;
use crate::places::Place;
use crate::response::refuse;
use crate::{Server, body};

/// The room of a connection that was just closed comes free within microseconds.
const ROOM_WAIT: Duration = Duration::from_secs(1);

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
        if let Some(peer) = &self.peer {
            request.extensions_mut().insert(peer.clone());
        }
        let (place, server, router) = (Arc::clone(&self.place), Arc::clone(&self.server), self.router.clone());
        let kept = place.begin();
        Box::pin(async move {
            if !kept {
                // The connection ends before this is polled again.
                std::future::pending::<()>().await;
            }
            let response = answer(&server, &place, router, request).await;
            place.answering();
            Ok(response.map(|body| Answer { body, place }))
        })
    }
}

async fn answer(
    server: &Server,
    place: &Arc<Place>,
    router: TowerToHyperService<Router>,
    request: Request<Incoming>,
) -> Response {
    let _in_flight = server.stats.requests_in_flight.enter();
    // What has no body waits for nothing, and is answered from memory: probes find room at any time.
    let has_body = !request.body().is_end_stream();
    let room = if has_body { room(server).await } else { None };
    if has_body {
        if room.is_none() {
            return shed(server, Body::new(request.into_body())).await;
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

/// Room for a request, if need be that of one whose body is overdue.
async fn room(server: &Server) -> Option<SemaphorePermit<'_>> {
    if let Ok(room) = server.requests.try_acquire() {
        return Some(room);
    }
    let begun_before = Instant::now().checked_sub(server.limits.body_grace)?;
    if !server.places.close_receiving(begun_before) {
        return None;
    }
    server.closed_for_room();
    // That connection ends at once.
    timeout(ROOM_WAIT, server.requests.acquire()).await.ok()?.ok()
}

/// Too many at once: the API server posts it again, within the time of its call.
async fn shed(server: &Server, body: Body) -> Response {
    server.stats.requests_shed.add();
    server.told.shed.tell(|more| tracing::warn!(more, "too many requests at once: some are answered with 429"));
    body::discard(body).await;
    let answer = refuse(StatusCode::TOO_MANY_REQUESTS, "too many requests at once: send it again");
    ([(header::RETRY_AFTER, "1")], answer).into_response()
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
