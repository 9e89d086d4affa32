//! Turns a configuration of the host into a running confidential VM.

pub mod doctor;
pub mod external;
pub mod gpu;
pub mod root;
