//! Builds the guest image from a lock file: fetches, unpacks, assembles, verifies.
