//! What lies between members: requests that are late, lost, doubled or overtaken, and replies that never come back.

use std::{fmt, sync::Arc, time::Duration};

use axum::{
    Router,
    body::Body,
    http::{Request, StatusCode},
};
use cocoon_accounts::{PayError, PayeeLink, authorize, unix_seconds};
use cocoon_contracts::{Address, SignedVoucher, SigningKey};
use cocoon_protocol::http::{AUTHORIZATION_HEADER, AccountStatus, ApiError, ChannelAnnouncement, code};
use futures_util::future::BoxFuture;
use hyper::service::Service as _;
use hyper_util::service::TowerToHyperService;
use tokio::sync::oneshot;

use crate::{
    node::{Node, Running},
    plan::Vice,
    world::World,
};

/// How long a caller waits.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why a request came to nothing.
#[derive(Debug)]
pub(crate) enum LinkError {
    /// No answer: it may or may not have been served.
    Silence,
    /// Refused.
    Refused(u16, String),
    /// The payer's own book.
    Pay(PayError),
}

impl fmt::Display for LinkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Silence => f.write_str("no answer"),
            Self::Refused(status, code) => write!(f, "{status} {code}"),
            Self::Pay(error) => write!(f, "{error}"),
        }
    }
}

impl From<PayError> for LinkError {
    fn from(error: PayError) -> Self {
        Self::Pay(error)
    }
}

/// Serves a request in a member's process.
pub(crate) type Serve<R> = Arc<dyn Fn(Arc<Running>) -> BoxFuture<'static, R> + Send + Sync>;

/// A request to `to`, and its answer. With `twice`, the network may deliver it a second time, whenever it likes.
pub(crate) async fn call<R: Send + 'static>(
    world: &Arc<World>,
    to: &Arc<Node>,
    twice: bool,
    serve: Serve<R>,
) -> Result<R, LinkError> {
    let (dice, loss) = (&world.dice, world.loss());
    let (sender, receiver) = oneshot::channel();
    let mut kept = None;
    if dice.chance(loss) {
        world.trace.count("request lost");
        kept = Some(sender);
    } else if dice.chance(loss) {
        world.trace.count("request late");
        deliver(world, to, dice.seconds(8, 60), Arc::clone(&serve), Some(sender));
    } else {
        deliver(world, to, dice.millis(5, 300), Arc::clone(&serve), Some(sender));
    }
    if twice && dice.chance(loss) {
        world.trace.count("request doubled");
        deliver(world, to, dice.millis(5, 40_000), serve, None);
    }
    let answer = tokio::time::timeout(PATIENCE, receiver).await;
    drop(kept);
    let Ok(Ok(answer)) = answer else { return Err(LinkError::Silence) };
    if dice.chance(loss) {
        world.trace.count("reply lost");
        tokio::time::sleep(PATIENCE).await;
        return Err(LinkError::Silence);
    }
    tokio::time::sleep(dice.millis(5, 300)).await;
    Ok(answer)
}

fn deliver<R: Send + 'static>(
    world: &Arc<World>,
    to: &Arc<Node>,
    delay: Duration,
    serve: Serve<R>,
    reply: Option<oneshot::Sender<R>>,
) {
    let (world, to) = (Arc::clone(world), Arc::clone(to));
    tokio::spawn(async move {
        tokio::time::sleep(delay).await;
        // Nobody listens where no process runs.
        let Some(running) = to.running() else { return };
        let process = running.process;
        world.spawn(&to, process, async move {
            let answer = serve(running).await;
            if let Some(reply) = reply {
                drop(reply.send(answer));
            }
        });
    });
}

/// A payer's way to one payee's routes.
pub(crate) struct Link {
    pub(crate) world: Arc<World>,
    pub(crate) from: Arc<Node>,
    pub(crate) to: Arc<Node>,
    pub(crate) key: SigningKey,
}

impl Link {
    async fn request(
        &self,
        method: &'static str,
        path: String,
        proof: String,
        body: Vec<u8>,
    ) -> Result<AccountStatus, LinkError> {
        let (world, to) = (Arc::clone(&self.world), Arc::clone(&self.to));
        let serve: Serve<Result<AccountStatus, LinkError>> = Arc::new(move |running| {
            let (world, to, path, proof, body) =
                (Arc::clone(&world), Arc::clone(&to), path.clone(), proof.clone(), body.clone());
            Box::pin(async move {
                let Some(payee) = &running.payee else { return Err(LinkError::Silence) };
                let request = Request::builder().method(method).uri(path.as_str());
                let request = request.header(AUTHORIZATION_HEADER, proof).body(Body::from(body));
                let (status, reply) = serve_http(&payee.routes, request.expect("a good request")).await;
                if status != StatusCode::OK {
                    let error: ApiError = serde_json::from_slice(&reply).expect("every refusal has a shape");
                    return Err(LinkError::Refused(status.as_u16(), error.code().to_owned()));
                }
                let mut told: AccountStatus = serde_json::from_slice(&reply).expect("an account's shape");
                let channel = cocoon_contracts::parse_address(&told.address).expect("it is an address");
                world.receipts.acknowledged(&world, &channel, told.voucher);
                if to.has(&world, Vice::Inflates) {
                    told.owed += world.plan.window * 2;
                }
                Ok(told)
            })
        });
        call(&self.world, &self.to, method == "PUT", serve).await?
    }
}

async fn serve_http(routes: &Router, request: Request<Body>) -> (StatusCode, Vec<u8>) {
    let response = TowerToHyperService::new(routes.clone()).call(request).await.expect("routes never fail");
    let status = response.status();
    let body = axum::body::to_bytes(response.into_body(), 1 << 16).await.expect("a small body");
    (status, body.to_vec())
}

impl PayeeLink for Link {
    type Error = LinkError;

    async fn announce(&self, channel: &Address) -> Result<AccountStatus, LinkError> {
        let body = ChannelAnnouncement { address: channel.to_string() };
        let body = serde_json::to_vec(&body).expect("plain data");
        self.request("PUT", "/v1/channels".to_owned(), String::new(), body).await
    }

    async fn voucher(&self, signed: &SignedVoucher) -> Result<AccountStatus, LinkError> {
        let channel = &signed.voucher.channel;
        self.world.receipts.signed(&self.world, channel, signed.voucher.cumulative);
        if self.from.has(&self.world, Vice::StopsPaying) {
            tokio::time::sleep(PATIENCE).await;
            return Err(LinkError::Silence);
        }
        let path = format!("/v1/channels/{channel}/voucher");
        self.request("PUT", path, String::new(), signed.encode()).await
    }

    async fn account(&self, channel: &Address) -> Result<AccountStatus, LinkError> {
        let proof = authorize(&self.key, channel, unix_seconds(), None);
        self.request("GET", format!("/v1/channels/{channel}"), proof, Vec::new()).await
    }

    fn unknown_channel(error: &LinkError) -> bool {
        matches!(error, LinkError::Refused(404, _))
    }

    fn stale_voucher(error: &LinkError) -> bool {
        matches!(error, LinkError::Refused(409, found) if found == code::STALE_VOUCHER)
    }
}
