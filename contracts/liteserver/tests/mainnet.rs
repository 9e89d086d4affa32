//! Answers that mainnet gave (see `mainnet/README.md`): blocks, states and accounts that others made.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where by panicking")]

use cocoon_chain::AccountStatus;
use cocoon_contracts::Address;
use cocoon_liteserver::proof;
use ton_net_tl::lite::{AccountState, BlockIdExt};
use tycho_types::cell::HashBytes;

struct Read {
    address: Address,
    answer: AccountState,
}

fn read(text: &str) -> Read {
    let field =
        |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('=')).unwrap().trim();
    let hash = |name: &str| <[u8; 32]>::try_from(hex::decode(field(name)).unwrap()).unwrap();
    let id = |workchain, prefix: &str| BlockIdExt {
        workchain,
        shard: 1 << 63,
        seqno: field(&format!("{prefix}seqno")).parse().unwrap(),
        root_hash: hash(format!("{prefix}root_hash").as_str()),
        file_hash: [0; 32],
    };
    let workchain: i8 = field("workchain").parse().unwrap();
    let bytes = |name| hex::decode(field(name)).unwrap();
    Read {
        address: Address::new(workchain, HashBytes(hash("account_id"))),
        answer: AccountState {
            id: id(-1, "block_"),
            shardblk: id(i32::from(workchain), "shard_block_"),
            shard_proof: bytes("shard_proof"),
            proof: bytes("proof"),
            state: bytes("state"),
        },
    }
}

#[test]
fn accounts_of_mainnet_are_proven_and_read() {
    // Balances as an independent public service told them for these blocks.
    for (text, balance) in [
        (include_str!("mainnet/basechain.txt"), 1_067_259_229_327),
        (include_str!("mainnet/masterchain.txt"), 222_859_282_039_087),
    ] {
        let Read { address, answer } = read(text);
        // The proof of the masterchain block has its header; its root hash is what is trusted here.
        let bag = if answer.shard_proof.is_empty() { &answer.proof } else { &answer.shard_proof };
        let head = proof::header(&answer.id, bag).unwrap();
        assert_eq!(head.network(), -239);
        let account = proof::account(&head, &address, &answer).unwrap();
        assert_eq!((account.state().balance, account.state().status), (balance, AccountStatus::Active));
        assert!(account.state().code_hash.is_some() && account.state().last_lt > 0);

        let mut other = answer.clone();
        *other.state.last_mut().unwrap() ^= 1;
        assert!(proof::account(&head, &address, &other).is_err(), "a changed state was believed");
        let mut id = answer.id.clone();
        id.root_hash[0] ^= 1;
        assert!(proof::header(&id, bag).is_err(), "another block was believed");
        let neighbour = Address::new(address.workchain, HashBytes([0x5a; 32]));
        assert!(proof::account(&head, &neighbour, &answer).is_err(), "another address was believed");
    }
}
