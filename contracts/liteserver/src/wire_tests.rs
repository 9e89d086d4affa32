//! The words against those of another implementation, and against damage.

#[path = "../../tests/fuzzing/mod.rs"]
mod fuzzing;

use fuzzing::{Random, iterations, timed};
use ton_liteapi::tl::common::{self, Int256};
use ton_liteapi::tl::request::{GetTransactions, LiteQuery, LookupBlock, Request, SendMessage};
use ton_liteapi::tl::response::{self, Response};
use tycho_types::cell::HashBytes;

use super::*;

fn understood(query: &[u8]) -> Request {
    tl_proto_04::deserialize::<LiteQuery>(query).unwrap().wrapped_request.request
}

fn id() -> BlockIdExt {
    BlockIdExt { workchain: -1, shard: WHOLE_SHARD, seqno: 7, root_hash: [1; 32], file_hash: [2; 32] }
}

fn their_id() -> common::BlockIdExt {
    let (root_hash, file_hash) = (Int256([1; 32]), Int256([2; 32]));
    common::BlockIdExt { workchain: -1, shard: WHOLE_SHARD, seqno: 7, root_hash, file_hash }
}

#[test]
fn requests_are_understood_by_the_other_implementation() {
    let address = Address::new(0, HashBytes([9; 32]));
    assert!(matches!(understood(&masterchain_info()), Request::GetMasterchainInfo));
    for length in [0, 1, 253, 254, 70_000] {
        let body = vec![5; length];
        assert_eq!(understood(&send_message(&body)), Request::SendMessage(SendMessage { body }));
    }
    let Request::LookupBlock(LookupBlock { id: found, seqno, lt, utime, .. }) = understood(&lookup_block(7))
    else {
        panic!()
    };
    assert_eq!(found, common::BlockId { workchain: -1, shard: WHOLE_SHARD, seqno: 7 });
    assert_eq!((seqno, lt, utime), (Some(()), None, None));
    let account = common::AccountId { workchain: 0, id: Int256([9; 32]) };
    let expected = GetTransactions { count: 16, account: account.clone(), lt: 5, hash: Int256([3; 32]) };
    assert_eq!(understood(&transactions(16, &address, 5, &[3; 32])), Request::GetTransactions(expected));
    let Request::GetAccountState(state) = understood(&account_state(&id(), &address)) else { panic!() };
    assert_eq!((state.id, state.account), (their_id(), account));
    let Request::GetBlockProof(proof) = understood(&block_proof(&id(), &id())) else { panic!() };
    assert_eq!((proof.known_block, proof.target_block), (their_id(), Some(their_id())));
}

fn answers() -> Vec<Vec<u8>> {
    let bytes = vec![7; 300];
    let signatures = vec![common::Signature { node_id_short: Int256([4; 32]), signature: vec![5; 64] }; 3];
    let link = common::BlockLink::BlockLinkForward {
        to_key_block: true,
        from: their_id(),
        to: their_id(),
        dest_proof: bytes.clone(),
        config_proof: bytes.clone(),
        signatures: common::SignatureSet { validator_set_hash: 8, catchain_seqno: 9, signatures },
    };
    let header = response::BlockHeader {
        id: their_id(),
        mode: (),
        with_state_update: None,
        with_value_flow: None,
        with_extra: None,
        with_shard_hashes: None,
        with_prev_blk_signatures: None,
        header_proof: bytes.clone(),
    };
    let zero =
        common::ZeroStateIdExt { workchain: -1, root_hash: Int256([1; 32]), file_hash: Int256([1; 32]) };
    [
        Response::MasterchainInfo(response::MasterchainInfo {
            last: their_id(),
            state_root_hash: Int256([6; 32]),
            init: zero,
        }),
        Response::AccountState(response::AccountState {
            id: their_id(),
            shardblk: their_id(),
            shard_proof: bytes.clone(),
            proof: bytes.clone(),
            state: bytes.clone(),
        }),
        Response::BlockHeader(header),
        Response::TransactionList(response::TransactionList {
            ids: vec![their_id(); 2],
            transactions: bytes,
        }),
        Response::SendMsgStatus(response::SendMsgStatus { status: 1 }),
        Response::PartialBlockProof(response::PartialBlockProof {
            complete: true,
            from: their_id(),
            to: their_id(),
            steps: vec![link; 2],
        }),
        Response::Error(response::Error { code: 651, message: "not in db".into() }),
    ]
    .map(tl_proto_04::serialize)
    .to_vec()
}

/// Reads an answer as each kind, and says which kind it is.
fn kinds(answer: &[u8]) -> Vec<usize> {
    let read = [
        read_masterchain_info(answer).is_ok(),
        read_account_state(answer).is_ok(),
        read_block_header(answer).is_ok(),
        read_transactions(answer).is_ok(),
        read_send_status(answer).is_ok(),
        read_block_proof(answer).is_ok(),
        matches!(read_send_status(answer), Err(AnswerError::Refused { code: 651, .. })),
    ];
    read.iter().enumerate().filter(|(_, read)| **read).map(|(at, _)| at).collect()
}

#[test]
fn each_answer_of_the_other_implementation_is_read_as_what_it_is() {
    for (at, answer) in answers().iter().enumerate() {
        assert_eq!(kinds(answer), [at]);
        assert!(kinds(&[answer, &[0; 4][..]].concat()).is_empty(), "bytes after answer {at}");
    }
    let proof = read_block_proof(&answers()[5]).unwrap();
    assert_eq!((proof.steps.len(), proof.to), (2, id()));
    let BlockLink::Forward { signatures, .. } = &proof.steps[1] else { panic!() };
    assert_eq!(signatures.signatures().len(), 3);
}

#[test]
fn counts_beyond_the_limits_are_refused_before_room_is_made() {
    let mut links = answers()[5].clone();
    let at = 4 + 4 + 80 + 80;
    links[at..at + 4].copy_from_slice(&(MAX_LINKS + 1).to_le_bytes());
    assert!(matches!(read_block_proof(&links), Err(AnswerError::Malformed(_))));
    let mut list = answers()[3].clone();
    list[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(matches!(read_transactions(&list), Err(AnswerError::Malformed(_))));
}

#[test]
fn damaged_answers_are_read_or_refused() {
    let valid = answers();
    let mut random = Random::seeded("answers of liteservers");
    let mut read = 0;
    for round in 0..iterations() {
        let answer = random.bytes(random_of(&valid, round));
        read += timed(round, || kinds(&answer)).len();
    }
    assert!(read > 0, "the damage is too coarse");
}

fn random_of(valid: &[Vec<u8>], round: u64) -> &[u8] {
    &valid[usize::try_from(round).unwrap() % valid.len()]
}
