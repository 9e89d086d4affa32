//! An image folder, as far as its manifest says.

use std::path::{Path, PathBuf};

use cocoon_image::manifest::{MANIFEST_MAX, Measurement, Registers, Variant};
use cocoon_image::{Manifest, Sha256};

use super::firmware::MOST_BYTES;
use super::report::Tee;
use crate::root::Root;

/// The manifest of an image folder.
///
/// # Errors
/// In words, with the file.
pub(super) fn manifest(root: &Root, folder: &Path) -> Result<Manifest, String> {
    let path = folder.join("manifest.json").display().to_string();
    let bytes = root.bytes(&path, MANIFEST_MAX as u64).map_err(|error| format!("{path}: {error}"))?;
    Manifest::from_json(&bytes).map_err(|error| format!("{path}: {error}"))
}

/// The image that guests with this TEE boot.
pub(super) fn variant(tee: Tee) -> Variant {
    match tee {
        Tee::Tdx | Tee::Snp => Variant::Production,
        Tee::Emulation => Variant::Development,
    }
}

/// What machines with this TEE measure.
pub(super) fn measurements(manifest: &Manifest, tee: Tee) -> impl Iterator<Item = &Measurement> {
    manifest.measurements.iter().filter(move |measurement| {
        let of = match measurement.registers {
            Registers::Tdx(_) => Tee::Tdx,
            Registers::Emulation(_) => Tee::Emulation,
            Registers::Snp { .. } => Tee::Snp,
        };
        of == tee
    })
}

/// The image's firmware file with this hash: where it should be, and whether it is that very file.
///
/// # Errors
/// In words: the file is not there, or is another.
pub(super) fn firmware(
    root: &Root,
    folder: &Path,
    manifest: &Manifest,
    sha256: Sha256,
) -> Result<PathBuf, String> {
    let listed = manifest.firmware.iter().find(|firmware| firmware.sha256 == sha256);
    let name = &listed.expect("a manifest lists the firmware of each of its measurements").name;
    let path = folder.join("firmware").join(name);
    let shown = path.display().to_string();
    let bytes = root.bytes(&shown, MOST_BYTES).map_err(|error| format!("{shown}: {error}"))?;
    match Sha256::of(&bytes) == sha256 {
        true => Ok(path),
        false => Err(format!("{shown} is not the file that the manifest lists")),
    }
}
