//! What is different in a VM, where PID 1 measures first, opens the disks and hands over a socket.

use crate::common::{Setup, config, sha256};
use cocoon_image::COMMAND_LINE;
use cocoon_simulated_tee::{Emulator, SimulatedRoot};
use ring::digest::{SHA384, digest};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Duration;

fn sha384_hex(bytes: &[u8]) -> Vec<u8> {
    hex::encode(digest(&SHA384, bytes)).into_bytes()
}

#[test]
fn a_configuration_that_pid_1_measured_is_not_measured_again() {
    let mut setup = Setup::new();
    setup.files.push(("measured", sha384_hex(setup.config.as_bytes())));
    let guest = setup.start();
    guest.bundle(7, None);
    let weights = [b"cocoon weights v1".as_slice(), &guest.setup.weights()].concat();
    let weights = digest(&SHA384, &weights).as_ref().try_into().expect("SHA-384");
    assert_eq!(guest.registers().rtmr[3], cocoon_attestation::extend(&[0; 48], &weights));
}

#[test]
fn another_configuration_than_was_measured_is_refused() {
    let mut setup = Setup::new();
    setup.files.push(("measured", sha384_hex(b"another")));
    let mut guest = setup.launch();
    assert!(!guest.wait().success());
    let log = guest.end().1;
    assert!(log.contains("changed after it was measured"), "{log}");
}

#[test]
fn a_weights_disk_is_read_to_the_configured_length_and_no_further() {
    let mut setup = Setup::new();
    let length = setup.model.len();
    setup.config.push_str(&format!("bytes = {length}\nverity = \"{}\"\n", "ab".repeat(32)));
    setup.model.extend([0x55; 5000]); // padding and the hash tree
    let guest = setup.start();
    let bundle = guest.bundle(7, None);
    let statement = cocoon_attestation::Statement::decode(&bundle.statement).expect("a statement");
    assert_eq!(statement.models[0].weights, sha256(&guest.setup.model[..length]));

    let mut setup = Setup::new();
    setup.config = format!("{}bytes = {}\n", config(2, 4, &sha256(&setup.model)), length + 1);
    let mut guest = setup.launch();
    assert!(!guest.wait().success());
    let log = guest.end().1;
    assert!(log.contains(&format!("{length} bytes, but config.toml says {}", length + 1)), "{log}");
}

#[test]
fn the_firmwares_log_goes_into_bundles() {
    let mut setup = Setup::new();
    setup.files.push(("eventlog", b"the log".to_vec()));
    let guest = setup.start();
    assert_eq!(guest.bundle(7, None).event_log.as_deref(), Some(b"the log".as_slice()));
}

#[test]
fn a_listening_socket_on_standard_input_is_served() {
    let setup = Setup::new();
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("config.toml"), &setup.config).expect("it is ours");
    std::fs::write(folder.path().join("model.gguf"), &setup.model).expect("it is ours");
    let tee = UnixListener::bind(folder.path().join("tee.sock")).expect("a fresh folder");
    let program = std::fs::read(&setup.binary).expect("it was built");
    let root = SimulatedRoot::create(crate::common::now());
    let serving = Emulator::launch(&root, &program, COMMAND_LINE).serve(tee);
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound");
    let mut child = Command::new(&setup.binary)
        .arg0(COMMAND_LINE[0])
        .env_clear()
        .current_dir(folder.path())
        .stdin(Stdio::from(OwnedFd::from(listener)))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the guest starts");
    // The socket listens already: this waits in its queue until the guest serves.
    let mut stream = TcpStream::connect(address).expect("it listens");
    stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a timeout");
    stream.write_all(b"GET /v1/health HTTP/1.1\r\nhost: guest\r\nconnection: close\r\n\r\n").expect("sent");
    let mut reply = String::new();
    let read = stream.read_to_string(&mut reply);
    child.kill().expect("it runs");
    child.wait().expect("it ends");
    serving.stop();
    read.expect("a reply");
    assert!(reply.starts_with("HTTP/1.1 200") && reply.contains("unattested"), "{reply}");
    assert!(!folder.path().join("guest.sock").exists());
}

#[test]
fn a_guest_that_is_asked_to_end_ends_well() {
    let mut guest = Setup::new().start();
    assert_eq!(guest.post("/v1/shutdown", "application/json", b"").status, 202);
    assert!(guest.wait().success());
}
