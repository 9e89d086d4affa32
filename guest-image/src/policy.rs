//! From a manifest to what a relying party accepts: the manifest's registers as a release of `cocoon_attestation`.

use cocoon_attestation::{ImageReference, Measurements, Pin, Release, SnpReference, TdxReference};

use crate::digest::{ZERO, sha256};
use crate::manifest::{Manifest, Measurement, Registers};
use crate::process::runtime_register;

/// What a guest is given beside its image, where a relying party knows it.
#[derive(Clone, Copy)]
pub struct Configuration<'a> {
    /// The bytes of `config.toml`.
    pub bytes: &'a [u8],
    /// SHA-256 of the model file.
    pub weights_sha256: [u8; 32],
}

/// The release that accepts exactly this image's registers, and the profiles that it had to leave out.
///
/// MRTD and RTMR0 to RTMR2, or the launch digest, are pinned. With a configuration RTMR3 is pinned too, or on SNP the host data.
/// Without one RTMR3 is free, and SNP profiles are left out: SNP has no register for the configuration, so nothing would hold it.
pub fn release(manifest: &Manifest, configuration: Option<&Configuration<'_>>) -> (Release, Vec<String>) {
    let title = title(manifest);
    let (mut images, mut left_out) = (Vec::new(), Vec::new());
    for measurement in &manifest.measurements {
        let name = name(&title, measurement);
        match reference(name, measurement, configuration) {
            Some(image) => images.push(image),
            None => left_out.push(measurement.profile.clone()),
        }
    }
    (Release { name: title, images }, left_out)
}

/// The release as TOML, as `cocoon verify --release` reads it.
pub fn to_toml(release: &Release) -> String {
    toml::to_string(release).expect("names and digests can be written")
}

/// The same, with a comment before each image that says how far its prediction is proved. `release` was made from `manifest`.
pub fn to_toml_with_standing(release: &Release, manifest: &Manifest) -> String {
    let title = title(manifest);
    let standing = |image: &ImageReference| {
        let own = |own: &&Measurement| image.name == name(&title, own);
        manifest.measurements.iter().find(own).map_or("of another manifest", Measurement::standing)
    };
    let mut images = release.images.iter();
    let mut text = String::new();
    for line in to_toml(release).lines() {
        if line == "[[images]]" {
            let standing = images.next().map_or("", standing);
            text.push_str(&format!("# {standing}\n"));
        }
        text.push_str(line);
        text.push('\n');
    }
    text
}

fn title(manifest: &Manifest) -> String {
    format!("{} ({})", manifest.name, manifest.variant.word())
}

fn name(title: &str, measurement: &Measurement) -> String {
    format!("{title} on {}", measurement.profile)
}

fn reference(
    name: String,
    measurement: &Measurement,
    configuration: Option<&Configuration<'_>>,
) -> Option<ImageReference> {
    let hash = configuration.map(|own| sha256(&[own.bytes]));
    match &measurement.registers {
        Registers::Tdx(tdx) | Registers::Emulation(tdx) => {
            let [rtmr0, rtmr1, rtmr2] = tdx.rtmr.map(|register| register.0);
            let rtmr3 = configuration.map(|own| runtime_register(own.bytes, &own.weights_sha256));
            let registers = Measurements {
                mrtd: tdx.mrtd.0,
                rtmr: [rtmr0, rtmr1, rtmr2, rtmr3.unwrap_or(ZERO)],
                mrconfigid: ZERO,
                mrowner: ZERO,
                mrownerconfig: ZERO,
            };
            let mut reference = TdxReference::from(&registers);
            if rtmr3.is_none() {
                reference.rtmr3 = Pin::Free;
            }
            Some(ImageReference { name, configuration: hash, tdx: Some(reference), snp: None, azure: None })
        }
        Registers::Snp { launch_digest } => {
            let hash = hash?;
            let reference =
                SnpReference { host_data: Pin::to(hash), ..SnpReference::pinned(launch_digest.0) };
            Some(ImageReference {
                name,
                configuration: Some(hash),
                tdx: None,
                snp: Some(reference),
                azure: None,
            })
        }
    }
}

#[cfg(test)]
mod tests;
