//! swtpm's control protocol (swtpm_ioctls(3)): a command, big endian, with a payload whose length the command fixes;
//! then a reply whose length the command fixes too, and which is four bytes where it only says what failed.

use std::{
    io::{self, IoSlice, IoSliceMut, Read, Write},
    mem::MaybeUninit,
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixStream,
    },
    sync::Arc,
};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

use super::relay::Relay;

/// Passes a data socket along.
const SET_DATAFD: u32 = 0x10;
/// TPM_FAIL of TPM 1.2, as swtpm has it on this channel.
const FAILED: [u8; 4] = 9u32.to_be_bytes();

/// One row for each command that QEMU needs to run a TPM: (command, bytes of payload, bytes of the reply). What is
/// for moving a TPM elsewhere (state blobs) is not here, and refused.
const COMMANDS: [(u32, usize, usize); 11] = [
    (0x01, 0, 8), // GET_CAPABILITY: flags only, no result
    (0x02, 4, 4), // INIT: flags
    (0x03, 0, 4), // SHUTDOWN
    (0x04, 0, 8), // GET_TPMESTABLISHED: result, bit, padding
    (0x05, 4, 4), // SET_LOCALITY: locality, padding
    (0x09, 0, 4), // CANCEL_TPM_CMD
    (0x0b, 4, 4), // RESET_TPMESTABLISHED: locality, padding
    (0x0e, 0, 4), // STOP
    (SET_DATAFD, 0, 4),
    (0x11, 4, 16), // SET_BUFFERSIZE: result, size, least, most
    (0x13, 4, 4),  // LOCK_STORAGE: retries
];
/// The one command whose reply does not begin with a result.
const GET_CAPABILITY: u32 = 0x01;
const LONGEST: usize = 16;

/// Serves QEMU's control connection until it closes.
pub(super) fn serve(qemu: &UnixStream, swtpm: &UnixStream, relay: &Arc<Relay>) -> io::Result<()> {
    let (mut from_qemu, mut to_qemu) = (qemu, qemu);
    while let Some((command, passed)) = receive_command(qemu)? {
        let row = COMMANDS.iter().find(|row| row.0 == command);
        let &(_, payload, reply) =
            row.ok_or_else(|| io::Error::other(format!("control command {command:#x} is not relayed")))?;
        let mut buffer = [0; LONGEST];
        let payload = buffer.get_mut(..payload).expect("no row is longer than the longest");
        from_qemu.read_exact(payload)?;
        if command == SET_DATAFD {
            to_qemu.write_all(&set_data_socket(passed, relay))?;
        } else {
            pass_on(command, payload, reply, swtpm, qemu)?;
        }
    }
    Ok(())
}

fn pass_on(
    command: u32,
    payload: &[u8],
    reply: usize,
    mut swtpm: &UnixStream,
    mut qemu: &UnixStream,
) -> io::Result<()> {
    // In one piece: swtpm takes what one read gives it for the whole command.
    swtpm.write_all(&[&command.to_be_bytes(), payload].concat())?;
    let mut buffer = [0; LONGEST];
    let (result, rest) =
        buffer.get_mut(..reply).and_then(|b| b.split_at_mut_checked(4)).expect("rows have 4 to 16");
    swtpm.read_exact(result)?;
    let only_failed = command != GET_CAPABILITY && *result != [0; 4];
    if only_failed {
        return qemu.write_all(result);
    }
    swtpm.read_exact(rest)?;
    qemu.write_all(&buffer[..reply])
}

/// Gives swtpm its data socket. Done before anybody connects: swtpm ends when this one closes, and only then.
pub(super) fn open_data_socket(mut swtpm: &UnixStream) -> io::Result<UnixStream> {
    let (ours, theirs) = UnixStream::pair()?;
    send_descriptor(swtpm, &SET_DATAFD.to_be_bytes(), &theirs)?;
    drop(theirs);
    let mut result = [0; 4];
    swtpm.read_exact(&mut result)?;
    match u32::from_be_bytes(result) {
        0 => Ok(ours),
        code => Err(io::Error::other(format!("it takes no data socket (code {code:#x})"))),
    }
}

/// Takes QEMU's data socket and starts to relay. The result for QEMU.
fn set_data_socket(passed: Option<OwnedFd>, relay: &Arc<Relay>) -> [u8; 4] {
    let begun = passed.is_some_and(|passed| relay.begin(UnixStream::from(passed)));
    if begun { [0; 4] } else { FAILED }
}

/// The next command, with the descriptor that came along if one did; `None` at the end.
fn receive_command(stream: &UnixStream) -> io::Result<Option<(u32, Option<OwnedFd>)>> {
    let mut bytes = [0; 4];
    let mut filled = 0;
    let mut passed = None;
    while let Some(room @ [_, ..]) = bytes.get_mut(filled..) {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let got = recvmsg(stream, &mut [IoSliceMut::new(room)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                // More than one has no meaning here; the kernel closes what has no room.
                passed = descriptors.last().or(passed);
            }
        }
        if got.flags.contains(ReturnFlags::CTRUNC) {
            return Err(io::Error::other("more than one descriptor came at once"));
        }
        match (got.bytes, filled) {
            (0, 0) => return Ok(None),
            (0, _) => return Err(io::ErrorKind::UnexpectedEof.into()),
            (more, _) => filled += more,
        }
    }
    Ok(Some((u32::from_be_bytes(bytes), passed)))
}

/// Sends bytes with one descriptor.
fn send_descriptor(stream: &UnixStream, bytes: &[u8], descriptor: impl AsFd) -> io::Result<()> {
    let descriptors = [descriptor.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let fits = ancillary.push(SendAncillaryMessage::ScmRights(&descriptors));
    debug_assert!(fits, "there is room for one");
    let sent = sendmsg(stream, &[IoSlice::new(bytes)], &mut ancillary, SendFlags::NOSIGNAL)?;
    if sent == bytes.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
}
