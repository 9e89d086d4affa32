//! The prediction against what the emulated TDX module really measures, over its socket.

use cocoon_attestation::UnixTime;
use cocoon_image::{COMMAND_LINE, ProcessImage};
use cocoon_simulated_tee::{Emulator, SimulatedRoot};
use ring::digest::{SHA384, digest};
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};

const NOW: UnixTime = UnixTime(1_795_000_000);

fn extend(stream: &mut UnixStream, register: u8, measured: &[u8]) {
    let measured = digest(&SHA384, measured);
    let mut request = vec![1, 49, 0, 0, 0, register];
    request.extend_from_slice(measured.as_ref());
    stream.write_all(&request).expect("the emulator reads");
    let mut reply = [9; 5];
    stream.read_exact(&mut reply).expect("the emulator answers");
    assert_eq!(reply, [0; 5]);
}

#[test]
fn the_prediction_is_what_the_emulator_measures() {
    let (binary, configuration, weights) = (b"\x7fELF and so on".as_slice(), b"network = -3\n", [7; 32]);
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("tee.sock");
    let listener = UnixListener::bind(&path).expect("a socket");
    let serving = Emulator::launch(&SimulatedRoot::create(NOW), binary, COMMAND_LINE).serve(listener);

    // What a guest does at boot, written out again.
    let mut stream = UnixStream::connect(&path).expect("the emulator listens");
    extend(&mut stream, 3, configuration);
    extend(&mut stream, 3, &[b"cocoon weights v1".as_slice(), &weights].concat());

    let image = ProcessImage {
        guest_binary: binary,
        command_line: COMMAND_LINE,
        configuration,
        weights_sha256: weights,
    };
    assert_eq!(image.measurements(), serving.registers());

    // A second extension of the same is not the same.
    extend(&mut stream, 2, configuration);
    assert_ne!(image.measurements(), serving.registers());
    drop(stream);
    serving.stop();
}
