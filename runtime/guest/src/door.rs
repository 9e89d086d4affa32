//! Where requests come in: a unix socket that this process binds, or a listening socket of any kind that was handed over.
//!
//! PID 1 of the guest image binds the VM's socket (vsock, or TCP in development) and gives it as standard input, so that the
//! service needs no right to make sockets.

use rustix::net::{AddressFamily, SocketFlags, accept_with, sockopt};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use tokio::io::unix::AsyncFd;
use tokio::net::UnixStream;

/// A listening stream socket of any family.
pub struct Door {
    listening: AsyncFd<OwnedFd>,
}

impl Door {
    /// Serves on a unix socket that is bound.
    ///
    /// # Errors
    /// If it cannot be watched; outside of a runtime it panics, as all of tokio does.
    pub fn bound(listener: UnixListener) -> io::Result<Self> {
        Self::new(OwnedFd::from(listener))
    }

    /// Standard input, if that is a listening socket; `None` for anything else.
    ///
    /// # Errors
    /// As [`Door::bound`].
    pub fn handed_over() -> io::Result<Option<Self>> {
        let input = io::stdin();
        if !sockopt::socket_acceptconn(input.as_fd()).unwrap_or(false) {
            return Ok(None);
        }
        Self::new(input.as_fd().try_clone_to_owned()?).map(Some)
    }

    fn new(listening: OwnedFd) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&listening, true)?;
        #[expect(unsafe_code, reason = "tokio cannot know that a descriptor stays open; here it is owned")]
        // SAFETY: the descriptor is owned by what is registered, is never replaced, and is closed after it is deregistered.
        let listening = unsafe { AsyncFd::register(listening) }?;
        Ok(Self { listening })
    }

    /// The next connection. It is read and written like any stream socket, whatever its family: neither std nor tokio has
    /// a name for a vsock stream, so it goes by that of a unix stream.
    ///
    /// # Errors
    /// What `accept` says; most pass.
    pub(crate) async fn accept(&self) -> io::Result<UnixStream> {
        loop {
            let mut ready = self.listening.readable().await?;
            let accept = |listening: &AsyncFd<OwnedFd>| {
                Ok(accept_with(listening.get_ref(), SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)?)
            };
            let Ok(accepted) = ready.try_io(accept) else { continue };
            let accepted = accepted?;
            if matches!(sockopt::socket_domain(&accepted)?, AddressFamily::INET | AddressFamily::INET6) {
                sockopt::set_tcp_nodelay(&accepted, true)?; // tokens are small, and each is awaited
            }
            return UnixStream::from_std(accepted.into());
        }
    }
}
