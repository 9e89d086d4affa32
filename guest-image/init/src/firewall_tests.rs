//! The rules as bytes, and the rules as this machine's kernel takes them.

use super::*;
use crate::sandbox::unshare;
use rustix::thread::UnshareFlags;

#[test]
fn the_rule_for_the_port_has_these_bytes() {
    // nfgenmsg; table, chain; expressions: meta l4proto, cmp 6, payload th+2 2, cmp 8083, accept.
    let expected = "\
        10010000 060a 050c 07000000 00000000 01000000\
        0b000100 636f636f6f6e0000 0a000200 696e707574000000\
        e4000400\
          24000100 09000100 6d65746100000000 14000200 0800010000000001 0800020000000010\
          2c000100 08000100 636d7000 20000200 0800010000000001 0800020000000000 0c000300 05000100 06000000\
          34000100 0c000100 7061796c6f616400 24000200 0800010000000001 0800020000000002 0800030000000002 0800040000000002\
          2c000100 08000100 636d7000 20000200 0800010000000001 0800020000000000 0c000300 06000100 1f930000\
          30000100 0e000100 696d6d656469617465000000 1c000200 0800010000000000 10000200 0c000200 0800010000000001";
    let expected = hex::decode(expected.replace(' ', "")).expect("hex");
    let messages = messages(Some(8083));
    assert_eq!(hex::encode(&messages[7]), hex::encode(expected));
}

#[test]
fn every_chain_drops_what_no_rule_accepts() {
    let all = messages(None);
    assert_eq!(all.len(), 2 + 1 + 3 + 2);
    for (message, name) in all[2..5].iter().zip(["input", "forward", "output"]) {
        let text = String::from_utf8_lossy(message);
        assert!(text.contains(name));
        let policy = [8, 0, 5, 0, 0, 0, 0, 0]; // NFTA_CHAIN_POLICY: NF_DROP
        assert!(message.windows(8).any(|window| window == policy), "{name}");
    }
    assert_eq!(messages(Some(1)).len(), all.len() + 2);
}

/// In a network of its own, which ends with its thread. Says SKIPPED where this machine has none, or no nf_tables.
#[test]
fn the_kernel_takes_the_rules_and_drops_by_them() {
    let outcome = std::thread::spawn(|| {
        unshare(UnshareFlags::NEWNET).map_err(|error| format!("no network namespace: {error}"))?;
        let mut rules = messages(Some(8083));
        rules.drain(5..7); // the loopback's own: packets to this machine go over it, and the port's rules are tried
        match talk(Some(NETFILTER), &rules.concat(), rules.len() - 2).map_err(|error| error.to_string()) {
            Err(error) if error.contains("os error 95") => return Err(format!("no nf_tables: {error}")),
            taken => taken.expect("the kernel takes the rules"),
        }
        connections_are_judged_by_their_port();
        raise(None).expect_err("the table is there already");
        Ok(())
    });
    if let Err(reason) = outcome.join().expect("no panic") {
        eprintln!("SKIPPED: the firewall was not tried on a kernel: {reason}");
    }
}

fn connections_are_judged_by_their_port() {
    let up = [[0; 4], 1_u32.to_ne_bytes(), 1_u32.to_ne_bytes(), 1_u32.to_ne_bytes()].concat();
    talk(None, &message(16, REQUEST, 1, &up), 1).expect("the loopback comes up");
    // A client's packets leave through `output` and arrive through `input`; the answers likewise.
    assert_eq!(connect(8083, 8083), Ok(()));
    assert!(connect(8084, 8083).is_err(), "a connection of the guest's own went out");
    assert!(connect(8083, 8084).is_err(), "another port was let in");
}

/// From one port of this machine to another.
fn connect(from: u16, to: u16) -> rustix::io::Result<()> {
    use rustix::net::sockopt::{Timeout, set_socket_reuseaddr, set_socket_timeout};
    use rustix::net::{AddressFamily, SocketType, bind, connect, socket};
    use std::net::{Ipv4Addr, SocketAddrV4, TcpListener};
    let address = SocketAddrV4::new(Ipv4Addr::LOCALHOST, to);
    let _listener = TcpListener::bind(address).expect("a port");
    let client = socket(AddressFamily::INET, SocketType::STREAM, None)?;
    set_socket_reuseaddr(&client, true)?;
    set_socket_timeout(&client, Timeout::Send, Some(std::time::Duration::from_millis(300)))?;
    bind(&client, &SocketAddrV4::new(Ipv4Addr::new(127, 0, 0, 2), from))?;
    connect(&client, &address)
}
