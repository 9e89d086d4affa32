//! NVIDIA GPUs for a confidential VM: found, judged, prepared for passthrough, and given back.
//!
//! [`find`] reads what is there. [`plan`] decides what must be done and says it as data: a list of [`Step`]s that can be
//! printed, [`prepare`]d, and undone. Before the first step the state that was found is noted in a run file, so that
//! [`restore`] gives the GPUs back to their drivers even after the process that took them was killed.
//!
//! [`share`] does so for all guests of a host at once, each with the GPUs that its configuration names.
//!
//! Nothing here talks to a GPU. Files of sysfs and procfs are reached through [`crate::root::Files`]; the GPU's
//! confidential-computing mode, which is switched by register writes, through [`CcTool`]: NVIDIA's own admin tool.

mod address;
mod cc;
mod find;
mod journal;
mod names;
mod plan;
mod prepare;
mod share;
mod step;

pub use address::{InvalidAddress, PciAddress};
pub use cc::{AdminTool, CcError, CcMode, CcTool, NoTool};
pub use find::{Bar, Device, Holder, Inventory, Kind, Neighbour, find, holders};
pub use journal::{Before, Journal, JournalError};
pub use names::{Generation, Product, product};
pub use plan::{Modes, Plan, Refusal, Request, Selection, Topology, hole_mib, plan};
pub use prepare::{Handle, NotPrepared, NotRestored, prepare, restore, restore_steps};
pub use share::{NotShared, Share, Shared, Wish, handed_over, share};
pub use step::{Step, StepError};

/// The kernel's driver that hands a PCI device to a program.
pub const VFIO_DRIVER: &str = "vfio-pci";
