//! The firewall: everything is dropped, in, out and through, but what is named here.
//!
//! ```text
//! table inet cocoon {
//!     chain input   { type filter hook input priority 0; policy drop; iif 1 accept; [tcp dport 8083 accept;] }
//!     chain forward { type filter hook forward priority 0; policy drop; }
//!     chain output  { type filter hook output priority 0; policy drop; oif 1 accept; [tcp sport 8083 accept;] }
//! }
//! ```
//!
//! Interface 1 is the loopback. The rules in brackets are for a development guest without vsock; they know no connections,
//! so that the kernel needs no connection tracking. Written as nf_tables' netlink messages
//! (`include/uapi/linux/netfilter/nf_tables.h`); numbers in attributes are big-endian.

use crate::failure::Outcome;
use crate::netlink::{APPEND, CREATE, REQUEST, attribute, message, talk};
use rustix::net::netlink::NETFILTER;

const TABLE: &[u8] = b"cocoon\0";
/// `NFPROTO_INET`: IPv4 and IPv6.
const INET: u8 = 1;
/// `NFNL_SUBSYS_NFTABLES`.
const NFTABLES: u16 = 10;
const NEW_TABLE: u16 = NFTABLES << 8;
const NEW_CHAIN: u16 = (NFTABLES << 8) | 3;
const NEW_RULE: u16 = (NFTABLES << 8) | 6;
const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;
/// `NF_DROP`, `NF_ACCEPT`.
const DROP: u32 = 0;
const ACCEPT: u32 = 1;
/// `NFT_REG_1`: where a value is loaded to be compared.
const REGISTER: u32 = 1;

/// Where packets meet a chain: its name and its hook (`enum nf_inet_hooks`).
const CHAINS: [(&[u8], u32); 3] = [(b"input\0", 1), (b"forward\0", 2), (b"output\0", 3)];
const INPUT: &[u8] = CHAINS[0].0;
const OUTPUT: &[u8] = CHAINS[2].0;

/// A value of a packet, as `meta` loads it.
#[derive(Clone, Copy)]
enum Meta {
    InputInterface = 4,
    OutputInterface = 5,
    Protocol = 16,
}

/// Puts the firewall up; with `port`, TCP connections to it are let in and answered.
pub(crate) fn raise(port: Option<u16>) -> Outcome {
    let messages = messages(port);
    talk(Some(NETFILTER), &messages.concat(), messages.len() - 2) // the batch's own frame has no answers
}

fn messages(port: Option<u16>) -> Vec<Vec<u8>> {
    let loopback = 1_u32.to_ne_bytes();
    let mut bodies = vec![(NEW_TABLE, CREATE, attribute(1, TABLE))];
    bodies.extend(CHAINS.map(|(name, hook)| (NEW_CHAIN, CREATE, chain(name, hook))));
    let mut rules = vec![
        rule(INPUT, &[meta(Meta::InputInterface), equals(&loopback)]),
        rule(OUTPUT, &[meta(Meta::OutputInterface), equals(&loopback)]),
    ];
    if let Some(port) = port {
        let tcp = [meta(Meta::Protocol), equals(&[6])].concat();
        let (source, destination) = (0, 2); // offsets in TCP's header
        rules.push(rule(INPUT, &[tcp.clone(), transport(destination), equals(&port.to_be_bytes())]));
        rules.push(rule(OUTPUT, &[tcp, transport(source), equals(&port.to_be_bytes())]));
    }
    bodies.extend(rules.into_iter().map(|rule| (NEW_RULE, APPEND, rule)));

    // Either all of it holds or nothing.
    let frame = |kind| message(kind, REQUEST & 1, 0, &generic(0, NFTABLES));
    let framed = (1..).zip(bodies).map(|(number, (kind, flags, body))| {
        message(kind, REQUEST | flags, number, &[generic(INET, 0).as_slice(), &body].concat())
    });
    std::iter::once(frame(BATCH_BEGIN)).chain(framed).chain(std::iter::once(frame(BATCH_END))).collect()
}

/// `struct nfgenmsg`.
fn generic(family: u8, resource: u16) -> [u8; 4] {
    let [high, low] = resource.to_be_bytes();
    [family, 0, high, low]
}

fn number(kind: u16, value: u32) -> Vec<u8> {
    attribute(kind, &value.to_be_bytes())
}

/// A base chain: table, name, hook, policy, type.
fn chain(name: &[u8], hook: u32) -> Vec<u8> {
    let hook = attribute(4, &[number(1, hook), number(2, 0)].concat());
    [attribute(1, TABLE), attribute(3, name), hook, number(5, DROP), attribute(7, b"filter\0")].concat()
}

/// A rule that accepts what passes all of `matches`.
fn rule(chain: &[u8], matches: &[Vec<u8>]) -> Vec<u8> {
    let expressions = [matches.concat(), accept()].concat();
    [attribute(1, TABLE), attribute(2, chain), attribute(4, &expressions)].concat()
}

fn expression(name: &[u8], data: &[Vec<u8>]) -> Vec<u8> {
    attribute(1, &[attribute(1, name), attribute(2, &data.concat())].concat())
}

fn meta(key: Meta) -> Vec<u8> {
    expression(b"meta\0", &[number(1, REGISTER), number(2, key as u32)])
}

/// Two bytes of the transport header.
fn transport(offset: u32) -> Vec<u8> {
    expression(b"payload\0", &[number(1, REGISTER), number(2, 2), number(3, offset), number(4, 2)])
}

fn equals(value: &[u8]) -> Vec<u8> {
    expression(b"cmp\0", &[number(1, REGISTER), number(2, 0), attribute(3, &attribute(1, value))])
}

fn accept() -> Vec<u8> {
    let verdict = attribute(2, &number(1, ACCEPT));
    expression(b"immediate\0", &[number(1, 0), attribute(2, &verdict)])
}

#[cfg(test)]
#[path = "firewall_tests.rs"]
mod tests;
