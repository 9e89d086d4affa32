//! Who may ask: programs of this machine, and no page of the web.

use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::middleware::Next;
use axum::response::Response;
use cocoon_protocol::http::ApiError;

use super::failure;

/// Refuses what a browser sends for another origin, and hosts that are not this machine.
pub(super) async fn only_local_programs(request: Request, next: Next) -> Response {
    if let Err(what) = check_local(request.headers()) {
        let message = format!("{what}; this endpoint serves programs of this machine only");
        return failure(403, &ApiError::invalid_request("not_local", message));
    }
    next.run(request).await
}

fn check_local(headers: &HeaderMap) -> Result<(), String> {
    let local = |authority: &str| {
        let host = authority.rsplit_once(':').filter(|(_, port)| port.bytes().all(|b| b.is_ascii_digit()));
        let host = host.map_or(authority, |(host, _)| host);
        matches!(host, "127.0.0.1" | "localhost" | "[::1]")
    };
    let text =
        |name| headers.get(name).map(|v: &HeaderValue| String::from_utf8_lossy(v.as_bytes()).into_owned());
    if let Some(host) = text(header::HOST).filter(|host| !local(host)) {
        return Err(format!("the request names the host {host:?}"));
    }
    if let Some(origin) = text(header::ORIGIN) {
        let authority = origin.split_once("://").map_or(origin.as_str(), |(_, rest)| rest);
        if !local(authority) {
            return Err(format!("the request comes from a page of {origin:?}"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(header::HeaderName, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn programs_of_this_machine_are_served() {
        for host in ["127.0.0.1:8080", "localhost", "[::1]:9", "[::1]"] {
            assert_eq!(check_local(&headers(&[(header::HOST, host)])), Ok(()), "{host}");
        }
        let own_page = headers(&[(header::HOST, "localhost:1"), (header::ORIGIN, "http://localhost:3000")]);
        assert_eq!(check_local(&own_page), Ok(()));
    }

    #[test]
    fn pages_of_other_origins_and_rebound_names_are_refused() {
        assert!(check_local(&headers(&[(header::HOST, "evil.example:8080")])).is_err());
        assert!(check_local(&headers(&[(header::HOST, "127.0.0.1.evil.example")])).is_err());
        let page = headers(&[(header::HOST, "127.0.0.1:1"), (header::ORIGIN, "https://evil.example")]);
        assert!(check_local(&page).is_err());
        assert!(check_local(&headers(&[(header::ORIGIN, "null")])).is_err());
    }
}
