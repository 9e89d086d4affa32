//! The emulator over its socket: honest registers, and an answer to every kind of bytes.

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cocoon_attestation::{
    Endorsements, Evidence, Exceptions, Genuine, TrustAnchors, UnixTime, extend, verify,
};
use cocoon_simulated_tee::{
    Emulator, MAX_CONNECTIONS, MAX_REPLY, MAX_REQUEST, Serving, SimulatedRoot, StoreError,
};
use ring::digest::{SHA384, digest};

fn now() -> UnixTime {
    UnixTime(SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs())
}

fn sha384(bytes: &[u8]) -> [u8; 48] {
    digest(&SHA384, bytes).as_ref().try_into().expect("SHA-384")
}

struct Served {
    folder: tempfile::TempDir,
    root: SimulatedRoot,
    serving: Serving,
}

fn serve() -> Served {
    let folder = tempfile::tempdir().expect("a folder");
    let root = SimulatedRoot::create(now());
    let listener = UnixListener::bind(folder.path().join("tee.sock")).expect("a socket");
    let serving = Emulator::launch(&root, b"binary", &["cocoon-guest", "serve"]).serve(listener);
    Served { folder, root, serving }
}

fn connect(folder: &Path) -> UnixStream {
    let stream = UnixStream::connect(folder.join("tee.sock")).expect("served");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
    stream
}

fn ask(stream: &mut UnixStream, op: u8, payload: &[u8]) -> (u8, Vec<u8>) {
    let mut request = vec![op];
    request.extend((payload.len() as u32).to_le_bytes());
    request.extend(payload);
    stream.write_all(&request).expect("sent");
    read_reply(stream)
}

fn read_reply(stream: &mut UnixStream) -> (u8, Vec<u8>) {
    let mut head = [0; 5];
    stream.read_exact(&mut head).expect("a head");
    let length = u32::from_le_bytes([head[1], head[2], head[3], head[4]]);
    assert!(length <= MAX_REPLY);
    let mut payload = vec![0; length as usize];
    stream.read_exact(&mut payload).expect("a payload");
    (head[0], payload)
}

fn genuine(root: &SimulatedRoot, quote: &[u8], collateral: Vec<u8>) -> Genuine {
    let anchors = TrustAnchors::hardware().with_simulated_root(root.root_der()).expect("a root");
    let own = Endorsements::from_files(vec![collateral]).expect("one small file");
    let evidence = Evidence::detect(quote).expect("a TDX quote");
    verify(&evidence, &own, &anchors, &Exceptions::none(), now()).expect("genuine")
}

#[test]
fn what_the_guest_extends_stands_in_its_quote() {
    let served = serve();
    let mut guest = connect(served.folder.path());
    let (configuration, weights) = (sha384(b"configuration"), sha384(b"weights"));
    for (index, measured) in [(2, configuration), (3, weights), (3, weights)] {
        let payload = [&[index][..], &measured].concat();
        assert_eq!(ask(&mut guest, 1, &payload), (0, vec![]));
    }
    let (status, quote) = ask(&mut guest, 2, &[0xda; 64]);
    assert_eq!(status, 0);
    let (status, collateral) = ask(&mut guest, 3, &[]);
    assert_eq!(status, 0);
    let genuine = genuine(&served.root, &quote, collateral);
    assert!(genuine.simulated());
    assert_eq!(genuine.claims().expect("a TD").report_data(), Some(&[0xda; 64]));
    let zero = [0; 48];
    let registers = genuine.claims().expect("a TD").registers().expect("a TD has them");
    assert_eq!(registers.mrtd, sha384(b"binary"));
    assert_eq!(registers.rtmr[0], zero);
    assert_eq!(registers.rtmr[1], extend(&zero, &sha384(b"cocoon-guest\0serve")));
    assert_eq!(registers.rtmr[2], extend(&zero, &configuration));
    assert_eq!(registers.rtmr[3], extend(&extend(&zero, &weights), &weights));
    assert_eq!(registers, served.serving.registers());
    served.serving.stop();
}

#[test]
fn a_request_that_breaks_the_rules_is_refused_and_the_next_is_served() {
    let served = serve();
    let mut guest = connect(served.folder.path());
    for (op, payload) in [
        (0, vec![]),
        (4, vec![]),
        (255, vec![1; 100]),
        (1, vec![]),
        (1, vec![2; 48]),
        (1, vec![2; 50]),
        (1, [&[0][..], &[1; 48]].concat()),
        (1, [&[1][..], &[1; 48]].concat()),
        (1, [&[4][..], &[1; 48]].concat()),
        (2, vec![0; 63]),
        (2, vec![0; 65]),
    ] {
        let (status, reason) = ask(&mut guest, op, &payload);
        assert_eq!(status, 1, "op {op}, {} bytes", payload.len());
        assert!(!reason.is_empty() && String::from_utf8(reason).is_ok());
    }
    assert_eq!(served.serving.registers().rtmr[2..], [[0; 48]; 2], "nothing was extended");
    assert_eq!(ask(&mut guest, 2, &[0; 64]).0, 0);
}

#[test]
fn a_request_that_is_too_long_ends_the_connection() {
    let served = serve();
    let mut guest = connect(served.folder.path());
    guest.write_all(&[&[2][..], &(MAX_REQUEST + 1).to_le_bytes()].concat()).expect("sent");
    assert_eq!(read_reply(&mut guest).0, 1);
    assert_eq!(guest.read(&mut [0]).expect("an end"), 0);
    assert_eq!(ask(&mut connect(served.folder.path()), 3, &[]).0, 0, "others are served");
}

#[test]
fn any_bytes_leave_the_emulator_serving() {
    let served = serve();
    let mut state = 0x5eed_u64;
    for _ in 0..200 {
        let mut guest = connect(served.folder.path());
        let bytes: Vec<u8> = (0..state % 97)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (state >> 56) as u8
            })
            .collect();
        state = state.wrapping_add(1);
        let _ = guest.write_all(&bytes); // refused connections are fine
        drop(guest);
    }
    // Connections that were dropped are noticed soon, and there is room again.
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    loop {
        let mut guest = connect(served.folder.path());
        let sent = guest.write_all(&[3, 0, 0, 0, 0]).is_ok();
        let mut status = [9];
        if sent && guest.read_exact(&mut status).is_ok() && status == [0] {
            break;
        }
        assert!(std::time::Instant::now() < deadline, "it does not serve again");
        std::thread::sleep(std::time::Duration::from_millis(2)); // its threads need the processor
    }
}

#[test]
fn connections_are_limited() {
    let served = serve();
    let mut open: Vec<UnixStream> = Vec::new();
    for _ in 0..MAX_CONNECTIONS {
        let mut guest = connect(served.folder.path());
        assert_eq!(ask(&mut guest, 9, &[]).0, 1, "served");
        open.push(guest);
    }
    let mut one_more = connect(served.folder.path());
    assert!(matches!(one_more.read(&mut [0]), Ok(0) | Err(_)), "closed at once");
    assert_eq!(ask(&mut open[0], 9, &[]).0, 1, "the others are still served");
}

#[test]
fn stopping_closes_every_connection() {
    let served = serve();
    let mut guest = connect(served.folder.path());
    assert_eq!(ask(&mut guest, 9, &[]).0, 1);
    served.serving.stop();
    assert!(matches!(guest.read(&mut [0]), Ok(0) | Err(_)));
}

#[test]
fn stopping_does_not_need_the_socket_file() {
    let served = serve();
    std::fs::remove_file(served.folder.path().join("tee.sock")).expect("removed");
    served.serving.stop(); // would hang, or leave a thread behind
}

#[test]
fn a_stored_root_signs_as_before_and_its_keys_are_private() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("root");
    let root = SimulatedRoot::create(now());
    root.save(&path).expect("saved");
    root.save(&path).expect("saved again over itself");
    let loaded = SimulatedRoot::load(&path).expect("loaded");
    assert_eq!(loaded.root_der(), root.root_der());
    let emulator = Emulator::launch(&loaded, b"binary", &["cocoon-guest"]);
    let quote = emulator.quote_with_collateral(&[1; 64], now());
    genuine(&root, &quote.quote, quote.endorsements);
    for entry in std::fs::read_dir(&path).expect("a folder") {
        let entry = entry.expect("an entry");
        let mode = entry.metadata().expect("metadata").permissions().mode() & 0o777;
        let is_key = entry.path().extension().is_some_and(|extension| extension == "pk8");
        assert_eq!(mode, if is_key { 0o600 } else { 0o644 }, "{}", entry.path().display());
    }
}

#[test]
fn a_damaged_store_is_refused_with_the_file_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let root = SimulatedRoot::create(now());
    assert!(matches!(SimulatedRoot::load(folder.path()), Err(StoreError::File { .. })));
    root.save(folder.path()).expect("saved");
    for (file, content) in [("pck.pk8", vec![]), ("root-ca.der", vec![0x30]), ("pck-ca.pk8", vec![0; 9_000])]
    {
        root.save(folder.path()).expect("saved");
        std::fs::write(folder.path().join(file), content).expect("written");
        let error = SimulatedRoot::load(folder.path()).err().expect("damaged");
        assert!(error.to_string().contains(file), "{error}");
    }
    root.save(folder.path()).expect("saved");
    SimulatedRoot::create(now()).save(&folder.path().join("other")).expect("saved");
    std::fs::copy(folder.path().join("other/pck.pk8"), folder.path().join("pck.pk8")).expect("copied");
    assert!(SimulatedRoot::load(folder.path()).is_err(), "a key that is not the certificate's");
}
