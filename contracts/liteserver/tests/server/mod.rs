//! A liteserver of the other implementation's ADNL and words (`adnl`, `ton_liteapi`): what it says is the test's.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where by panicking")]
#![allow(dead_code, reason = "each test program uses its part")]

use std::sync::{Arc, Mutex};

use adnl::AdnlPeer;
use adnl::crypto::{KeyPair, SecretKey};
use cocoon_liteserver::Server;
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::net::{TcpListener, TcpStream};
use ton_liteapi::tl::adnl::Message;
use ton_liteapi::tl::common::{
    BlockIdExt, BlockLink, Int256, Signature, SignatureSet, String, ZeroStateIdExt,
};
use ton_liteapi::tl::request::Request;
use ton_liteapi::tl::response::{
    AccountState, BlockHeader, Error, MasterchainInfo, PartialBlockProof, Response, SendMsgStatus,
    TransactionList,
};
use ton_net_tl::lite;

use crate::world::{self, World};

/// What the server does with a question.
pub(crate) enum Say {
    Answer(Box<Response>),
    /// These bytes instead of an answer.
    Bytes(Vec<u8>),
    /// Nothing, ever.
    Nothing,
    /// Ends the connection.
    Leave,
}

pub(crate) type Mind = dyn Fn(&Request) -> Say + Send + Sync;

/// A running server, whose mind can be changed.
pub(crate) struct Running {
    pub(crate) server: Server,
    pub(crate) mind: Arc<Mutex<Arc<Mind>>>,
    pub(crate) asked: Arc<Mutex<Vec<Request>>>,
}

impl Running {
    pub(crate) fn think(&self, mind: impl Fn(&Request) -> Say + Send + Sync + 'static) {
        *self.mind.lock().unwrap() = Arc::new(mind);
    }

    /// Answers as a liteserver of this network does.
    pub(crate) fn honest(&self, world: &Arc<World>) {
        let world = Arc::clone(world);
        self.think(move |request| honest(&world, request));
    }
}

pub(crate) async fn start(seed: u8) -> Running {
    let pair = KeyPair::from(&SecretKey::from_bytes([seed; 32]));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = Server { address: listener.local_addr().unwrap(), key: *pair.public_key.as_bytes() };
    let nothing: Arc<Mind> = Arc::new(|_| Say::Nothing);
    let running = Running { server, mind: Arc::new(Mutex::new(nothing)), asked: Arc::default() };
    let (mind, asked) = (Arc::clone(&running.mind), Arc::clone(&running.asked));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(talk(stream, pair, Arc::clone(&mind), Arc::clone(&asked)));
        }
    });
    running
}

async fn talk(
    stream: TcpStream,
    pair: KeyPair,
    mind: Arc<Mutex<Arc<Mind>>>,
    asked: Arc<Mutex<Vec<Request>>>,
) {
    let Ok(mut peer) = AdnlPeer::handle_handshake(stream, |_| Some(pair)).await else { return };
    while let Some(Ok(packet)) = peer.next().await {
        let Ok(Message::Query { query_id, query }) = tl_proto_04::deserialize::<Message>(&packet) else {
            return;
        };
        let request = query.wrapped_request.request;
        asked.lock().unwrap().push(request.clone());
        let mind = Arc::clone(&mind.lock().unwrap());
        let answer = match mind(&request) {
            Say::Answer(answer) => tl_proto_04::serialize(Message::Answer { query_id, answer: *answer }),
            Say::Bytes(answer) => {
                ton_net_tl::serialize(ton_net_tl::adnl::Message::Answer { query_id: query_id.0, answer })
            }
            Say::Nothing => continue,
            Say::Leave => return,
        };
        if peer.send(answer.into()).await.is_err() {
            return;
        }
    }
}

pub(crate) fn refuse(code: i32, message: &str) -> Say {
    Say::Answer(Box::new(Response::Error(Error { code, message: String::new(message.to_owned()) })))
}

/// An honest answer.
pub(crate) fn honest(world: &World, request: &Request) -> Say {
    let made = [&world.pinned, &world.next_key, &world.head];
    let answer = match request {
        Request::GetMasterchainInfo => Response::MasterchainInfo(MasterchainInfo {
            last: id(&world.head.id),
            state_root_hash: Int256(world.head.state.repr_hash().0),
            init: ZeroStateIdExt {
                workchain: -1,
                root_hash: Int256::default(),
                file_hash: Int256::default(),
            },
        }),
        Request::LookupBlock(lookup) => {
            let wanted = made.iter().find(|made| made.id.seqno.cast_unsigned() == lookup.id.seqno);
            let Some(made) = wanted else { return refuse(651, "block is not in db") };
            Response::BlockHeader(BlockHeader {
                id: id(&made.id),
                mode: (),
                with_state_update: None,
                with_value_flow: None,
                with_extra: None,
                with_shard_hashes: None,
                with_prev_blk_signatures: None,
                header_proof: world::header_proof(&made.block),
            })
        }
        Request::GetBlockProof(wanted) => {
            Response::PartialBlockProof(way(world, &wanted.known_block, wanted.target_block.as_ref()))
        }
        Request::GetAccountState(wanted) if wanted.id == id(&world.head.id) => {
            let workchain = i8::try_from(wanted.account.workchain).unwrap();
            let address =
                cocoon_contracts::Address::new(workchain, tycho_types::cell::HashBytes(wanted.account.id.0));
            Response::AccountState(account(&world.account_state(&address)))
        }
        Request::GetTransactions(wanted) => {
            let address = world::address(wanted.account.id.0[0]);
            let all = world::transactions(&address);
            let from = all.iter().position(|cell| cell.repr_hash().0 == wanted.hash.0).unwrap_or(all.len());
            // One at a time, so that pages are turned.
            let page = &all[from..(from + 1).min(all.len())];
            Response::TransactionList(TransactionList {
                ids: vec![id(&world.left.id); page.len()],
                transactions: world::bag(page),
            })
        }
        Request::SendMessage(_) => Response::SendMsgStatus(SendMsgStatus { status: 1 }),
        _ => return refuse(-400, "unknown"),
    };
    Say::Answer(Box::new(answer))
}

/// One link at a time, so that the walk takes several answers.
fn way(world: &World, known: &BlockIdExt, target: Option<&BlockIdExt>) -> PartialBlockProof {
    let chain = world.chain();
    let at = usize::from(*known != id(&world.pinned.id));
    let lite::BlockLink::Forward { to_key_block, from, to, dest_proof, config_proof, signatures } =
        &chain.steps[at]
    else {
        panic!("links lead forward")
    };
    let signatures = signatures
        .signatures()
        .iter()
        .map(|one| Signature { node_id_short: Int256(one.node_id_short), signature: one.signature.clone() });
    let step = BlockLink::BlockLinkForward {
        to_key_block: *to_key_block,
        from: id(from),
        to: id(to),
        dest_proof: dest_proof.clone(),
        config_proof: config_proof.clone(),
        signatures: SignatureSet {
            validator_set_hash: 0,
            catchain_seqno: 0,
            signatures: signatures.collect(),
        },
    };
    PartialBlockProof { complete: target == Some(&id(to)), from: id(from), to: id(to), steps: vec![step] }
}

fn account(state: &lite::AccountState) -> AccountState {
    AccountState {
        id: id(&state.id),
        shardblk: id(&state.shardblk),
        shard_proof: state.shard_proof.clone(),
        proof: state.proof.clone(),
        state: state.state.clone(),
    }
}

pub(crate) fn id(id: &lite::BlockIdExt) -> BlockIdExt {
    BlockIdExt {
        workchain: id.workchain,
        shard: id.shard,
        seqno: id.seqno.cast_unsigned(),
        root_hash: Int256(id.root_hash),
        file_hash: Int256(id.file_hash),
    }
}
