//! What each request meets before its handler: a place among those under way, and what tells the connection's phase.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::response::{IntoResponse, Response};
use futures::future::BoxFuture;
use http::{Request, StatusCode, header};
use hyper::body::{Body as _, Frame, Incoming, SizeHint};
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;

use super::places::Place;
use super::{Server, body};
use crate::server::routes::refuse;

/// The service of one connection.
pub(super) struct Requests {
    place: Arc<Place>,
    server: Arc<Server>,
    router: TowerToHyperService<Router>,
}

impl Requests {
    pub(super) fn new(place: &Arc<Place>, server: &Arc<Server>) -> Self {
        let router = TowerToHyperService::new(server.router.clone());
        Self { place: Arc::clone(place), server: Arc::clone(server), router }
    }
}

impl Service<Request<Incoming>> for Requests {
    type Response = Response<Answer>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let (place, server, router) = (Arc::clone(&self.place), Arc::clone(&self.server), self.router.clone());
        let kept = place.begin();
        Box::pin(async move {
            if !kept {
                // The connection ends before this is polled again.
                std::future::pending::<()>().await;
            }
            let response = answer(&server, router, request.map(Body::new)).await;
            place.answering();
            Ok(response.map(|body| Answer { body, place }))
        })
    }
}

async fn answer(server: &Server, router: TowerToHyperService<Router>, request: Request<Body>) -> Response {
    let _in_flight = server.stats.requests_in_flight.enter();
    // What has no body waits for nothing, and is answered from memory: probes find room at any time.
    let _room = match request.body().is_end_stream() {
        true => None,
        false => match server.requests.try_acquire() {
            Ok(room) => Some(room),
            Err(_) => return shed(server, request.into_body()).await,
        },
    };
    match router.call(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    }
}

/// Too many at once: the API server posts it again, within the time of its call.
async fn shed(server: &Server, body: Body) -> Response {
    server.stats.requests_shed.add();
    server.told.shed.tell(|more| tracing::warn!(more, "too many requests at once: some are answered with 429"));
    body::discard(body).await;
    let answer = refuse(StatusCode::TOO_MANY_REQUESTS, "too many requests at once: send it again");
    ([(header::RETRY_AFTER, "1")], answer).into_response()
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
