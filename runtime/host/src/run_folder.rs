//! The guest's run folder: its fixed names, and short paths to its sockets.

use std::{
    fs, io,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::{fs::symlink, net::UnixListener},
    },
    path::{Path, PathBuf},
};

use crate::{
    HostError, make_folder,
    process::{CONFIGURATION, GUEST_SOCKET, MODEL, TEE_SOCKET},
};

/// A run folder that is ours. Its sockets are reached through its descriptor, since the path of a unix socket has
/// at most 107 bytes and a folder's may be longer.
pub(crate) struct RunFolder {
    pub(crate) path: PathBuf,
    folder: OwnedFd,
}

impl RunFolder {
    /// Makes the folder and puts the configuration and the model in their places.
    pub(crate) fn prepare(path: &Path, configuration: &[u8], model: &Path) -> Result<Self, HostError> {
        make_folder(path)?;
        let failed = |source: io::Error| HostError::Folder { path: path.to_path_buf(), source };
        let model = fs::canonicalize(model)
            .map_err(|source| HostError::Model { path: model.to_path_buf(), source })?;
        replace(&path.join(CONFIGURATION), |to| fs::write(to, configuration)).map_err(failed)?;
        replace(&path.join(MODEL), |to| symlink(&model, to)).map_err(failed)?;
        let folder = OwnedFd::from(fs::File::open(path).map_err(failed)?);
        Ok(Self { path: path.to_path_buf(), folder })
    }

    fn short(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}/{name}", self.folder.as_raw_fd()))
    }

    /// Listens where the guest looks for its TEE.
    pub(crate) fn tee_listener(&self) -> Result<UnixListener, HostError> {
        let failed = |source: io::Error| HostError::Folder { path: self.path.clone(), source };
        remove(&self.short(GUEST_SOCKET)).map_err(failed)?;
        let socket = self.short(TEE_SOCKET);
        remove(&socket).map_err(failed)?;
        UnixListener::bind(socket).map_err(failed)
    }

    /// Where the guest listens.
    pub(crate) fn guest_socket(&self) -> PathBuf {
        self.short(GUEST_SOCKET)
    }
}

fn replace(path: &Path, make: impl FnOnce(&Path) -> io::Result<()>) -> io::Result<()> {
    remove(path)?;
    make(path)
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
