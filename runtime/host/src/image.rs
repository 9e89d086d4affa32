//! The image that a VM boots: its manifest, and the one machine profile that is launched.

use std::{
    fs,
    path::{Path, PathBuf},
};

use cocoon_attestation::Measurements;
use cocoon_image::{
    Manifest, Sha256,
    manifest::{Measurement, Registers, Variant},
    runtime_register,
};
use cocoon_image_build::{Store, WeightsDisk};

use cocoon_launch::preflight::ImageFile;

use crate::{HostError, Reference};

/// An image folder and a profile of its manifest.
#[derive(Clone)]
pub struct Image {
    folder: PathBuf,
    manifest: Manifest,
    measurement: Measurement,
    store: Store,
    weights: Option<WeightsDisk>,
}

impl Image {
    /// Reads the manifest of an image folder and picks the measurement of `profile`; without one, the first.
    ///
    /// # Errors
    /// [`HostError::Image`]: no manifest, one that is damaged, or no such profile in it.
    pub fn open(folder: &Path, profile: Option<&str>, store: Store) -> Result<Self, HostError> {
        let path = folder.join("manifest.json");
        let bytes = fs::read(&path).map_err(|e| {
            HostError::Image(format!("{}: {e}; build one with `cocoon image build`", path.display()))
        })?;
        let manifest = Manifest::from_json(&bytes)
            .map_err(|e| HostError::Image(format!("{}: {e}; build it again", path.display())))?;
        let known: Vec<&str> = manifest.measurements.iter().map(|m| m.profile.as_str()).collect();
        let wanted = |m: &&Measurement| profile.is_none_or(|profile| m.profile == profile);
        let Some(measurement) = manifest.measurements.iter().find(wanted).cloned() else {
            let why = match profile {
                Some(profile) => format!("it has no profile {profile:?}; it has {}", known.join(", ")),
                None => "its manifest has no measurements; build it again".to_owned(),
            };
            return Err(HostError::Image(format!("{}: {why}", path.display())));
        };
        Ok(Self { folder: folder.to_path_buf(), manifest, measurement, store, weights: None })
    }

    /// Where it is.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Its manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// What the profile measures.
    pub fn measurement(&self) -> &Measurement {
        &self.measurement
    }

    /// Whether it is a development image.
    pub fn is_development(&self) -> bool {
        self.manifest.variant == Variant::Development
    }

    /// The firmware file of the profile.
    pub(crate) fn firmware(&self) -> Option<PathBuf> {
        let firmware = self.manifest.firmware.iter().find(|f| f.sha256 == self.measurement.firmware)?;
        Some(self.folder.join("firmware").join(&firmware.name))
    }

    /// Every file that boots, as the manifest has it.
    pub(crate) fn files(&self) -> Vec<ImageFile> {
        let files = &self.manifest.files;
        let file = |name: &str, sha256: Sha256, size: u64| ImageFile {
            path: self.folder.join(name),
            size,
            sha256: sha256.0,
        };
        let firmware = self.manifest.firmware.iter().filter(|f| f.sha256 == self.measurement.firmware);
        let firmware = firmware.map(|f| file(&format!("firmware/{}", f.name), f.sha256, f.size));
        [
            file("vmlinuz", files.kernel.sha256, files.kernel.size),
            file("initrd.cpio", files.initrd.sha256, files.initrd.size),
            file("root.img", files.root.sha256, files.root.size),
        ]
        .into_iter()
        .chain(firmware)
        .collect()
    }

    /// The disk that a model becomes.
    pub(crate) fn weights_disk(&self, model: &Path) -> Result<WeightsDisk, HostError> {
        self.store.weights_disk(model).map_err(|error| HostError::Model {
            path: model.to_path_buf(),
            source: std::io::Error::other(error.to_string()),
        })
    }

    pub(crate) fn with_weights(self, disk: WeightsDisk) -> Self {
        Self { weights: Some(disk), ..self }
    }

    pub(crate) fn weights(&self) -> Option<&WeightsDisk> {
        self.weights.as_ref()
    }

    /// What a guest of this image shows with this configuration and these weights.
    pub(crate) fn reference(&self, configuration: &[u8], weights: &[u8; 32]) -> Reference {
        let zero = [0; 48];
        match self.measurement.registers {
            Registers::Tdx(boot) | Registers::Emulation(boot) => {
                let [r0, r1, r2] = boot.rtmr.map(|register| register.0);
                Reference::Tdx(Box::new(Measurements {
                    mrtd: boot.mrtd.0,
                    rtmr: [r0, r1, r2, runtime_register(configuration, weights)],
                    mrconfigid: zero,
                    mrowner: zero,
                    mrownerconfig: zero,
                }))
            }
            Registers::Snp { launch_digest } => Reference::Snp { launch_digest: launch_digest.0 },
        }
    }
}
