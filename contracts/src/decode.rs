//! What accounts and messages of our contracts say, for people: names and fields, in the order of their layouts.
//!
//! Explorers show what this reads; nothing decides by it. Accounts are told apart by the hash of their code, and read by
//! the parsers that decide elsewhere. Messages are told apart by the opcode of their body: each row of [`MESSAGES`] is
//! one, as `*.tolk` declares it, and a test holds the rows against those files. What is unknown stays unnamed.

use tycho_types::cell::{Cell, CellSlice};
use tycho_types::error::Error;
use tycho_types::models::StateInit;

use crate::{Address, Nanotons, bond, channel, registry, wallet, wallet::WalletVersion};

/// The kind of a contract that we know by its code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A wallet, version 4 release 2.
    WalletV4R2,
    /// A wallet, version 5 release 1.
    WalletV5R1,
    /// A wallet for large payouts.
    WalletPayout,
    /// A payment channel.
    Channel,
    /// The registry.
    Registry,
    /// An operator's or a gateway's stake.
    Bond,
}

impl Kind {
    /// The kind of contract that has this code.
    pub fn of(code_hash: &[u8; 32]) -> Option<Self> {
        let known = [
            (wallet::v4r2::code_hash(), Self::WalletV4R2),
            (wallet::v5r1::code_hash(), Self::WalletV5R1),
            (wallet::payout::code_hash(), Self::WalletPayout),
            (channel::code_hash(), Self::Channel),
            (registry::code_hash(), Self::Registry),
            (bond::code_hash(), Self::Bond),
        ];
        known.into_iter().find(|(hash, _)| hash == code_hash).map(|(_, kind)| kind)
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::WalletV4R2 => "wallet v4r2",
            Self::WalletV5R1 => "wallet v5r1",
            Self::WalletPayout => "payout wallet",
            Self::Channel => "channel",
            Self::Registry => "registry",
            Self::Bond => "bond",
        }
    }

    /// What an exit code of this kind's transactions means.
    pub fn exit_code_meaning(self, code: i32) -> Option<&'static str> {
        match self {
            Self::Channel => channel::exit_code_meaning(code),
            Self::Registry => registry::exit_code_meaning(code),
            Self::Bond => bond::exit_code_meaning(code),
            Self::WalletPayout => wallet::payout::exit_code_meaning(code),
            Self::WalletV4R2 | Self::WalletV5R1 => None,
        }
    }
}

/// A value as people read it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// An amount of coins.
    Amount(Nanotons),
    /// A plain number.
    Number(u64),
    /// Unix time in seconds.
    Time(u32),
    /// An account.
    Account(Address),
    /// A hash or a key.
    Bytes(Vec<u8>),
    /// Words.
    Text(String),
}

/// A named value.
pub type Field = (&'static str, Value);

/// What an account's data says; `None` when it is not of a known kind or not readable.
pub fn state(init: &StateInit, balance: Nanotons) -> Option<(Kind, Vec<Field>)> {
    let kind = Kind::of(&init.code.as_ref()?.repr_hash().0)?;
    let data = init.data.as_ref()?;
    let seqno =
        |version: WalletVersion| Some(vec![("seqno", Value::Number(version.seqno(data).ok()?.into()))]);
    let fields = match kind {
        Kind::WalletV4R2 => seqno(WalletVersion::V4R2)?,
        Kind::WalletV5R1 => seqno(WalletVersion::V5R1)?,
        Kind::WalletPayout => seqno(WalletVersion::Payout)?,
        Kind::Channel => channel_state(&channel::State::parse(data, balance).ok()?),
        Kind::Registry => registry_state(&registry::Registry::parse(data).ok()?),
        Kind::Bond => bond_state(&bond::State::parse(data, balance).ok()?),
    };
    Some((kind, fields))
}

fn channel_state(state: &channel::State) -> Vec<Field> {
    let terms = &state.terms;
    let mut fields = vec![
        ("payer", Value::Account(terms.payer.clone())),
        ("payee", Value::Account(terms.payee.clone())),
        ("treasury", Value::Account(terms.treasury.clone())),
        ("payer's key", Value::Bytes(terms.payer_key.to_vec())),
        ("network", Value::Text(terms.network.to_string())),
        ("nonce", Value::Number(terms.nonce)),
        ("network fee", Value::Text(format!("{} basis points", terms.fee_bps))),
        ("challenge", Value::Text(format!("{} s", terms.challenge_seconds))),
        ("paid", Value::Amount(state.paid)),
        ("session key's limit", Value::Amount(state.limit)),
        ("fee that waits for the treasury", Value::Amount(state.fee_waiting())),
        ("vouchers up to", Value::Amount(state.deposit())),
    ];
    fields.push(match state.deadline {
        None => ("status", Value::Text("open".into())),
        Some(deadline) => ("closing, last second to settle", Value::Time(deadline)),
    });
    fields
}

fn bond_state(state: &bond::State) -> Vec<Field> {
    let terms = &state.terms;
    let mut fields = vec![
        ("operator", Value::Account(terms.operator.clone())),
        ("operator's key", Value::Bytes(terms.operator_key.to_vec())),
        ("treasury", Value::Account(terms.treasury.clone())),
        ("network", Value::Text(terms.network.to_string())),
        ("release delay", Value::Text(format!("{} s", terms.delay_seconds))),
        ("stake", Value::Amount(state.balance)),
    ];
    fields.push(match state.release_at {
        None => ("status", Value::Text("bonded".into())),
        Some(at) => ("releasing, first second to withdraw", Value::Time(at)),
    });
    if let Some(published) = &state.published {
        fields.push(("newest epoch", Value::Number(published.liabilities.epoch)));
        fields.push(("its root", Value::Bytes(published.liabilities.root.to_vec())));
        fields.push(("owed in all", Value::Amount(published.liabilities.sum)));
        fields.push(("published", Value::Time(published.at)));
    }
    fields
}

fn registry_state(state: &registry::Registry) -> Vec<Field> {
    let mut fields = vec![
        ("version", Value::Number(state.version.into())),
        ("owners", Value::Text(format!("{} of {}", state.owners.required(), state.owners.keys().len()))),
        ("delay", Value::Text(format!("{} s", state.delay))),
        ("treasury", Value::Account(state.content.treasury.clone())),
        ("network fee", Value::Text(format!("{} basis points", state.content.fee_bps))),
    ];
    fields.extend(state.images().map(|image| ("image", Value::Text(image.name.clone()))));
    fields.extend(state.models().map(|model| ("model", Value::Text(model.name.clone()))));
    fields.extend(state.gateways().map(|gateway| ("gateway", Value::Text(gateway.name.clone()))));
    if let Some(proposal) = &state.proposal {
        fields.push(("proposal counts from", Value::Time(proposal.ready_at)));
    }
    fields
}

/// How a field lies in a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Layout {
    /// 64 bits of nanotons.
    Amount,
    /// 32 bits.
    Word,
    /// 64 bits that count something.
    Long,
    /// 8 bits.
    Byte,
    /// Unix time in 32 bits.
    Time,
    /// 256 bits.
    Hash,
}

/// A message of a contract: who understands it, its opcode, its name, and the fields that are shown. Signatures and
/// whatever follows the last field are not.
struct Message {
    contract: &'static str,
    opcode: u32,
    name: &'static str,
    fields: &'static [(&'static str, Layout)],
}

const fn message(
    contract: &'static str,
    opcode: u32,
    name: &'static str,
    fields: &'static [(&'static str, Layout)],
) -> Message {
    Message { contract, opcode, name, fields }
}

/// Opcodes as the contracts' sources have them.
const MESSAGES: &[Message] = &[
    message("channel", 0x4348_0001, "Open", &[("limit", Layout::Amount)]),
    message("channel", 0x4348_0002, "TopUp", &[]),
    message("channel", 0x4348_0003, "Settle", &[("cumulative", Layout::Amount)]),
    message("channel", 0x4348_0004, "StartClose", &[]),
    message("channel", 0x4348_0005, "FinishClose", &[]),
    message("channel", 0x4348_0006, "Close", &[]),
    message("channel", 0x4348_0007, "Authorize", &[("limit", Layout::Amount)]),
    message("channel", 0x4348_0008, "Collect", &[]),
    message("channel", 0x4348_0010, "Payout", &[("cumulative", Layout::Amount)]),
    message("channel", 0x4348_0011, "NetworkFee", &[]),
    message("channel", 0x4348_0012, "Refund", &[]),
    message("channel", 0x4348_0013, "Excess", &[]),
    message("registry", 0x5247_0001, "Propose", &[("approvals valid until", Layout::Time)]),
    message("registry", 0x5247_0002, "Cancel", &[("approvals valid until", Layout::Time)]),
    message("registry", 0x5247_0003, "Activate", &[("version", Layout::Word)]),
    message("registry", 0x5247_0004, "TopUp", &[]),
    message("registry", 0x5247_0010, "Excess", &[]),
    message("bond", 0x424e_0001, "Back", &[]),
    message("bond", 0x424e_0002, "TopUp", &[]),
    message("bond", 0x424e_0003, "Publish", PUBLISH),
    message("bond", 0x424e_0004, "Unbond", &[]),
    message("bond", 0x424e_0005, "Withdraw", &[]),
    message("bond", 0x424e_0006, "Forfeit", STATEMENT),
    message("bond", 0x424e_0010, "Released", &[]),
    message("bond", 0x424e_0011, "Forfeited", STATEMENT),
    message("bond", 0x424e_0012, "Excess", &[]),
];

const PUBLISH: &[(&str, Layout)] =
    &[("epoch", Layout::Long), ("root", Layout::Hash), ("owed in all", Layout::Amount)];
const STATEMENT: &[(&str, Layout)] = &[("kind of statement", Layout::Byte), ("number", Layout::Long)];

/// A message's body, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decoded {
    /// Whose message it is and what it is called, such as `channel Settle`.
    pub name: String,
    /// What it says.
    pub fields: Vec<Field>,
}

/// The opcode of a body.
pub fn opcode(body: &Cell) -> Option<u32> {
    body.as_slice().and_then(|mut slice| slice.load_u32()).ok()
}

/// What a body says; `None` when it is none of ours, or cut short.
pub fn body(body: &Cell) -> Option<Decoded> {
    let mut slice = body.as_slice().ok()?;
    let opcode = slice.load_u32().ok()?;
    if opcode == 0 {
        return comment(&mut slice)
            .map(|text| Decoded { name: "comment".into(), fields: vec![("text", text)] });
    }
    let known = MESSAGES.iter().find(|message| message.opcode == opcode)?;
    let fields = known.fields.iter().map(|(name, layout)| Ok((*name, read(&mut slice, *layout)?)));
    let fields = fields.collect::<Result<_, Error>>().ok()?;
    Some(Decoded { name: format!("{} {}", known.contract, known.name), fields })
}

fn read(slice: &mut CellSlice<'_>, layout: Layout) -> Result<Value, Error> {
    Ok(match layout {
        Layout::Amount => Value::Amount(slice.load_u64()?),
        Layout::Word => Value::Number(slice.load_u32()?.into()),
        Layout::Long => Value::Number(slice.load_u64()?),
        Layout::Byte => Value::Number(slice.load_u8()?.into()),
        Layout::Time => Value::Time(slice.load_u32()?),
        Layout::Hash => Value::Bytes(slice.load_u256()?.0.to_vec()),
    })
}

/// A plain comment's first cell: text after an opcode of zero.
fn comment(slice: &mut CellSlice<'_>) -> Option<Value> {
    let bits = slice.size_bits() / 8 * 8;
    let mut buffer = [0; 128];
    let bytes = slice.load_raw(&mut buffer, bits).ok()?;
    Some(Value::Text(String::from_utf8_lossy(bytes).into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{SigningKey, Voucher, build_cell};

    /// The sources: their name, and `struct (0xOPCODE) Name` for each message.
    const SOURCES: [(&str, &str); 3] = [
        ("channel", include_str!("../channel.tolk")),
        ("registry", include_str!("../registry.tolk")),
        ("bond", include_str!("../bond.tolk")),
    ];

    #[test]
    fn the_rows_are_the_messages_of_the_sources() {
        for (contract, source) in SOURCES {
            let mut declared = Vec::new();
            for line in source.lines() {
                if let Some((opcode, rest)) =
                    line.strip_prefix("struct (0x").and_then(|line| line.split_once(") "))
                {
                    let name = rest.split([' ', '{']).next().expect("a name");
                    declared.push((u32::from_str_radix(opcode, 16).expect("hex"), name));
                }
            }
            // Cells that are signed and never sent have a tag with a letter in its lower half.
            declared.retain(|(opcode, _)| opcode & 0xff00 == 0);
            let rows = MESSAGES.iter().filter(|row| row.contract == contract);
            assert_eq!(rows.map(|row| (row.opcode, row.name)).collect::<Vec<_>>(), declared, "{contract}");
        }
    }

    #[test]
    fn a_settlement_says_its_amount() {
        let channel = crate::message::basechain([7; 32]);
        let voucher = Voucher { network: -217, channel, nonce: 1, cumulative: 1_500_000_000 };
        let settle = channel::settle_body(&voucher.sign(&SigningKey::from_seed(&[1; 32])));
        let decoded = body(&settle).expect("known");
        assert_eq!(decoded.name, "channel Settle");
        assert_eq!(decoded.fields, [("cumulative", Value::Amount(1_500_000_000))]);
    }

    #[test]
    fn what_is_unknown_or_cut_short_is_not_named() {
        assert_eq!(body(&Cell::default()), None);
        assert_eq!(body(&build_cell(|b| b.store_u32(0xdead_beef))), None);
        assert_eq!(body(&build_cell(|b| b.store_u32(0x4348_0003))), None, "without its amount");
        assert_eq!(Kind::of(&[0; 32]), None);
    }

    #[test]
    fn a_comment_is_text() {
        let cell = build_cell(|b| {
            b.store_u32(0)?;
            b.store_raw(b"thank you", 72)
        });
        assert_eq!(body(&cell).expect("a comment").fields, [("text", Value::Text("thank you".into()))]);
    }
}
