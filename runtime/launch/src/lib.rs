//! Turns a configuration of the host into a running confidential VM.
