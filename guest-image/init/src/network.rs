//! The network, and the one socket that is served.
//!
//! Where the machine has a virtio socket device, the host is reached through it and no network interface but the loopback
//! is up. A development guest without one has a virtio card instead, with a fixed address and no route.

use crate::failure::{Explain, Failure, Outcome};
use crate::netlink::{CREATE, REQUEST, attribute, message, talk};
use crate::{devices, firewall};
use rustix::net::addr::{SocketAddrArg, SocketAddrLen, SocketAddrOpaque};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, listen, socket_with};
use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::OwnedFd;
use std::path::Path;

/// The port of the guest's HTTP API, of vsock and of TCP.
const PORT: u16 = 8083;
/// What QEMU's user network calls its guest.
const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 15);
const PREFIX: u8 = 24;
/// The loopback's index.
const LOOPBACK: u32 = 1;
/// Connections that wait to be accepted.
const BACKLOG: i32 = 128;
const NEW_LINK: u16 = 16;
const NEW_ADDRESS: u16 = 20;

/// How the host reaches this guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    /// A virtio socket.
    Vsock,
    /// TCP over the one network card.
    Card,
}

impl Transport {
    /// What the machine has decides; only a development guest takes a card.
    pub(crate) fn find(sys: &Path, development: bool) -> Outcome<Self> {
        match (devices::has_vsock(sys)?, development) {
            (true, _) => Ok(Self::Vsock),
            (false, true) => Ok(Self::Card),
            (false, false) => Err(Failure::new(
                "there is no virtio socket device; the launcher must attach vhost-vsock-pci",
            )),
        }
    }

    /// Raises the firewall, then what it guards.
    pub(crate) fn bring_up(self, sys: &Path) -> Outcome {
        firewall::raise((self == Self::Card).then_some(PORT))?;
        talk(None, &link_up(LOOPBACK), 1)?;
        if self == Self::Card {
            let index = card(sys)?;
            talk(None, &link_up(index), 1)?;
            talk(None, &address(index), 1)?;
        }
        Ok(())
    }

    /// The listening socket.
    pub(crate) fn listen(self) -> Outcome<OwnedFd> {
        let what = format!("port {PORT} of the guest");
        let remedy = "use the image's kernel and modules";
        match self {
            Self::Vsock => listen_vsock(PORT).explain(what, remedy),
            Self::Card => Ok(TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)).explain(what, remedy)?.into()),
        }
    }
}

/// Index of the one network card.
fn card(sys: &Path) -> Outcome<u32> {
    let names = devices::network_cards(sys)?;
    let [name] = names.as_slice() else {
        let text = format!(
            "there must be one network card, not {}: {}; the launcher attaches one virtio-net",
            names.len(),
            names.join(" ")
        );
        return Err(Failure::new(text));
    };
    let index = devices::attribute(&sys.join("class/net").join(name), "ifindex")?;
    index.parse().explain(format_args!("the index of {name}"), "use the image's kernel")
}

/// `struct ifinfomsg`: `IFF_UP` set, and nothing else changed.
fn link_up(index: u32) -> Vec<u8> {
    let body = [[0; 4], index.to_ne_bytes(), 1_u32.to_ne_bytes(), 1_u32.to_ne_bytes()].concat();
    message(NEW_LINK, REQUEST, 1, &body)
}

/// `struct ifaddrmsg`: family AF_INET, prefix, no flags, scope universe, index; then `IFA_LOCAL` and `IFA_ADDRESS`.
fn address(index: u32) -> Vec<u8> {
    let octets = ADDRESS.octets();
    let head = [[2, PREFIX, 0, 0], index.to_ne_bytes()].concat();
    message(NEW_ADDRESS, REQUEST | CREATE, 1, &[head, attribute(2, &octets), attribute(1, &octets)].concat())
}

fn listen_vsock(port: u16) -> rustix::io::Result<OwnedFd> {
    let socket = socket_with(AddressFamily::VSOCK, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    bind(&socket, &VsockAddress::any(port.into()))?;
    listen(&socket, BACKLOG)?;
    Ok(socket)
}

/// `struct sockaddr_vm` (`include/uapi/linux/vm_sockets.h`).
#[repr(C)]
struct VsockAddress {
    family: u16,
    reserved: u16,
    port: u32,
    cid: u32,
    flags: u8,
    zero: [u8; 3],
}

impl VsockAddress {
    /// A port of this machine, whatever its context identifier is (`VMADDR_CID_ANY`).
    fn any(port: u32) -> Self {
        let family = AddressFamily::VSOCK.as_raw();
        Self { family, reserved: 0, port, cid: u32::MAX, flags: 0, zero: [0; 3] }
    }
}

#[expect(unsafe_code, reason = "an address that rustix does not know")]
// SAFETY: `f` is called with a pointer to a whole `sockaddr_vm` and its length, both good until it returns.
unsafe impl SocketAddrArg for VsockAddress {
    unsafe fn with_sockaddr<R>(&self, f: impl FnOnce(*const SocketAddrOpaque, SocketAddrLen) -> R) -> R {
        f(std::ptr::from_ref(self).cast(), size_of::<Self>() as SocketAddrLen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::io::Errno;

    #[test]
    fn a_vsock_address_is_sixteen_bytes_with_the_port_second() {
        assert_eq!(size_of::<VsockAddress>(), 16);
        assert_eq!(std::mem::offset_of!(VsockAddress, port), 4);
        assert_eq!(std::mem::offset_of!(VsockAddress, cid), 8);
        assert_eq!(VsockAddress::any(8083).family, 40);
    }

    /// Says SKIPPED where this machine's kernel has no virtual sockets.
    #[test]
    fn the_kernel_takes_the_address_and_its_port() {
        match listen_vsock(PORT) {
            Err(Errno::AFNOSUPPORT) => eprintln!("SKIPPED: this kernel has no vsock to listen on"),
            listening => {
                let _listening = listening.expect("it listens");
                assert_eq!(listen_vsock(PORT).err(), Some(Errno::ADDRINUSE));
                assert!(listen_vsock(PORT + 1).is_ok());
            }
        }
    }

    #[test]
    fn a_card_is_for_development_and_without_a_socket_device_only() {
        let root = tempfile::tempdir().expect("a folder");
        assert_eq!(Transport::find(root.path(), true), Ok(Transport::Card));
        assert!(Transport::find(root.path(), false).is_err());
        let device = root.path().join("bus/virtio/devices/virtio0");
        std::fs::create_dir_all(&device).expect("a folder");
        std::fs::write(device.join("device"), "0x0013\n").expect("a file");
        for development in [false, true] {
            assert_eq!(Transport::find(root.path(), development), Ok(Transport::Vsock));
        }
    }

    #[test]
    fn two_cards_or_none_are_refused() {
        let root = tempfile::tempdir().expect("a folder");
        let add = |name: &str| {
            let folder = root.path().join("class/net").join(name);
            std::fs::create_dir_all(&folder).expect("a folder");
            std::fs::write(folder.join("ifindex"), "2\n").expect("a file");
        };
        add("lo");
        assert!(card(root.path()).is_err());
        add("eth0");
        assert_eq!(card(root.path()), Ok(2));
        add("eth1");
        assert!(card(root.path()).is_err());
    }
}
