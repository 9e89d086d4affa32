//! A hostile gateway: stands between a client and the real one, and changes what passes.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::Response;

/// Most bytes of a body that passes.
const MAX_BODY: usize = 16 * 1024 * 1024;

/// Changes a response: the request's method and path, and the response's body.
pub type Tamper = dyn Fn(&str, &str, Vec<u8>) -> Vec<u8> + Send + Sync;

/// A running relay; ends with this value.
pub struct Relay {
    url: String,
    tamper: Arc<Mutex<Arc<Tamper>>>,
    task: tokio::task::JoinHandle<()>,
}

#[derive(Clone)]
struct Shared {
    upstream: String,
    http: reqwest::Client,
    tamper: Arc<Mutex<Arc<Tamper>>>,
}

impl Relay {
    /// Starts one in front of `upstream`; honest until it is told otherwise.
    pub async fn start(upstream: &str) -> Self {
        let tamper: Arc<Mutex<Arc<Tamper>>> =
            Arc::new(Mutex::new(Arc::new(|_: &str, _: &str, body: Vec<u8>| body)));
        let http = reqwest::Client::builder().no_proxy().build().expect("a client");
        let shared = Shared { upstream: upstream.to_owned(), http, tamper: Arc::clone(&tamper) };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let router = Router::new().fallback(pass).with_state(shared);
        let task = tokio::spawn(async move { axum::serve(listener, router).await.expect("it serves") });
        Self { url, tamper, task }
    }

    /// Where clients reach it.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// From now on every response's body goes through this.
    pub fn tamper(&self, with: impl Fn(&str, &str, Vec<u8>) -> Vec<u8> + Send + Sync + 'static) {
        *self.tamper.lock().expect("no holder panics") = Arc::new(with);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn pass(State(shared): State<Shared>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path_and_query().map_or("/", |p| p.as_str()).to_owned();
    let body: Bytes = to_bytes(body, MAX_BODY).await.unwrap_or_default();
    let mut upstream =
        shared.http.request(parts.method.clone(), format!("{}{path}", shared.upstream)).body(body);
    for (name, value) in &parts.headers {
        if name != header::HOST && name != header::CONTENT_LENGTH {
            upstream = upstream.header(name, value);
        }
    }
    let Ok(reply) = upstream.send().await else { return status(StatusCode::BAD_GATEWAY, Vec::new()) };
    let code = reply.status();
    let body = reply.bytes().await.map(|b| b.to_vec()).unwrap_or_default();
    let tamper = Arc::clone(&shared.tamper.lock().expect("no holder panics"));
    let changed = if code.is_success() { tamper(parts.method.as_str(), &path, body) } else { body };
    status(code, changed)
}

fn status(code: StatusCode, body: Vec<u8>) -> Response {
    Response::builder().status(code).body(Body::from(body)).expect("a response of ours")
}
