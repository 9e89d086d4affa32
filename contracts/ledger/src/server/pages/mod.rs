//! Pages for people: newest blocks, a block, an account with its transactions. Rendered here, with no script and nothing
//! from elsewhere.

mod account;
mod block;
mod html;
mod transaction;
mod words;

use std::sync::{Arc, LazyLock};

use axum::Router;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{Html as HtmlBody, IntoResponse as _, Redirect, Response};
use axum::routing::get;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use cocoon_contracts::parse_address;

use self::html::Html;
use super::{Shared, lock, status};
use crate::Ledger;
use crate::block::sha256;
use crate::rpc::{RpcError, parse_hash};

const STYLE: &str = include_str!("style.css");
/// Longest text that is searched for.
const MAX_SEARCH_CHARS: usize = 128;

/// The policy allows this very style and nothing else: no script, picture, font or frame; forms come back here.
static POLICY: LazyLock<HeaderValue> = LazyLock::new(|| {
    let style = BASE64.encode(sha256(STYLE.as_bytes()));
    let policy = format!(
        "default-src 'none'; style-src 'sha256-{style}'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    );
    HeaderValue::from_str(&policy).expect("it is plain ASCII")
});

pub(super) fn routes() -> Router<Arc<Shared>> {
    Router::new()
        .route("/", get(home))
        .route("/search", get(search))
        .route("/block/{seqno}", get(block_page))
        .route("/account/{address}", get(account_page))
}

async fn home(State(shared): State<Arc<Shared>>) -> Response {
    page(shared, "blocks", true, block::newest).await
}

async fn block_page(State(shared): State<Arc<Shared>>, Path(seqno): Path<String>) -> Response {
    page(shared, "block", false, move |ledger, html| block::one(ledger, html, &seqno)).await
}

#[derive(serde::Deserialize)]
struct Older {
    /// The logical time from which on back.
    lt: Option<u64>,
}

async fn account_page(
    State(shared): State<Arc<Shared>>,
    Path(address): Path<String>,
    older: Result<Query<Older>, axum::extract::rejection::QueryRejection>,
) -> Response {
    let until = older.map_or(None, |Query(older)| older.lt).unwrap_or(u64::MAX);
    page(shared, "account", false, move |ledger, html| account::page(ledger, html, &address, until)).await
}

#[derive(serde::Deserialize)]
struct Search {
    #[serde(default)]
    q: String,
}

/// To the page of a block's number, an account's address, or the account that a message's hash led to.
async fn search(State(shared): State<Arc<Shared>>, Query(Search { q }): Query<Search>) -> Response {
    let text = q.trim();
    if text.chars().count() <= MAX_SEARCH_CHARS {
        if let Ok(seqno) = text.parse::<u32>() {
            return Redirect::to(&format!("/block/{seqno}")).into_response();
        }
        if let Ok(address) = parse_address(text) {
            return Redirect::to(&format!("/account/{address}")).into_response();
        }
        if let Some(hash) = parse_hash(text)
            && let Ok(Some((address, _))) = lock(&shared.ledger).transaction_of(&hash)
        {
            return Redirect::to(&format!("/account/{address}")).into_response();
        }
    }
    let why =
        "That is neither a block's number, nor an account's address, nor the hash of a message from outside.";
    page(shared, "search", false, move |_, _| Err(RpcError::new(404, why))).await
}

/// A page around what `inside` writes, which runs off the reactor's threads.
async fn page(
    shared: Arc<Shared>,
    title: &'static str,
    refresh: bool,
    inside: impl FnOnce(&Ledger, &mut Html) -> Result<(), RpcError> + Send + 'static,
) -> Response {
    let render = move || {
        let mut main = Html::default();
        let outcome = inside(&lock(&shared.ledger), &mut main);
        let fault = lock(&shared.fault).clone();
        let code = outcome.as_ref().err().map_or(200, |error| error.code);
        (code, document(title, refresh && outcome.is_ok(), fault.as_deref(), outcome.map(|()| main)))
    };
    match tokio::task::spawn_blocking(render).await {
        Ok((code, text)) => with_headers((status(code), HtmlBody(text)).into_response()),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

fn with_headers(mut response: Response) -> Response {
    const FIXED: [(HeaderName, HeaderValue); 3] = [
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    response.headers_mut().extend(FIXED);
    response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, POLICY.clone());
    response
}

fn document(title: &str, refresh: bool, fault: Option<&str>, main: Result<Html, RpcError>) -> String {
    let mut html = Html::default();
    html.markup("<!DOCTYPE html>\n<html lang=\"en\">");
    html.element("head", "", |html| {
        html.markup("<meta charset=\"utf-8\">");
        html.markup("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">");
        if refresh {
            html.markup("<meta http-equiv=\"refresh\" content=\"5\">");
        }
        html.say("title", "", &format!("cocoon chain: {title}"));
        html.element("style", "", |html| html.markup(STYLE));
    });
    html.element("body", "", |html| {
        html.element("header", "", |html| {
            html.element("nav", "", |html| {
                html.link("home", "/", "cocoon chain");
                html.markup(
                    "<form action=\"/search\"><input name=\"q\" maxlength=\"128\" aria-label=\"Block, account or message\" \
                     placeholder=\"block, account or message hash\"><button>Find</button></form>",
                );
            });
            if let Some(why) = fault {
                html.say("p", "fault", &format!("No blocks are made: {why}"));
            }
        });
        html.element("main", "", |html| match main {
            Ok(main) => html.append(main),
            Err(error) => html.element("div", "banner", |html| {
                html.say("h1", "", if error.code == 404 { "Not found" } else { "This cannot be shown" });
                html.say("p", "", &error.message);
            }),
        });
        html.element("footer", "quiet", |html| {
            html.text("A ledger for development: no validators, and its coins are worth nothing. ");
            html.text("toncenter v2 at /api/v2, v3 at /api/v3; POST /faucet gives coins.");
        });
    });
    html.markup("</html>\n");
    html.finish()
}
