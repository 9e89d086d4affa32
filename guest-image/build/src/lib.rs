//! Builds the guest image from a lock file: fetches, unpacks, assembles, verifies.
//!
//! ```text
//! image.lock ──► Store (debs by hash) ──► Tree (unpacked, by hash) ──► Tools: mkfs.erofs, QEMU, swtpm
//!                                           │                            │
//! cargo ──► Programs (cocoon-init, -guest) ─┴─► initrd, root ◄───────────┘ ──► image folder with manifest.json
//! ```
//!
//! Nothing here needs root rights, a container engine or a loop device.

mod archive;
mod cargo_config;
mod deb;
mod download;
mod elf;
mod error;
mod firmware;
mod groups;
mod image;
mod initrd;
mod lock;
mod modules;
mod output;
mod programs;
mod progress;
mod rootfs;
mod store;
mod toolbox;
mod tree;
mod verify;
mod weights;

pub use archive::{Trust, check, update};
pub use error::Error;
pub use groups::Group;
pub use image::{Built, Order, build, default_image_folder};
pub use lock::{Lock, PACKAGE_MAX, Pinned};
pub use programs::{Programs, copy_program, source_tree};
pub use progress::{Progress, Quiet, Task};
pub use store::{ARCHIVE, Store};
pub use toolbox::Toolbox;
pub use tree::{Program, Tools, Tree};
pub use verify::{Image, Verified, VerifyError, verify};
pub use weights::{WeightsDisk, write_weights_disk};
