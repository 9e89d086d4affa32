//! An image folder held against its manifest: every file hashed again, the root's tree and the measurements made again.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use cocoon_image::Sha256;
use cocoon_image::cpio::Archive;
use cocoon_image::diff::{Difference, manifests};
use cocoon_image::manifest::{File, Firmware, MANIFEST_MAX, Manifest, ManifestError, Program, Root, Verity};
use cocoon_image::measure::{BootFiles, CannotMeasure, measure_all};
use cocoon_image::verity::{BLOCK, Tree};

/// No file of an image is longer than this many bytes.
const FILE_MAX: u64 = 1 << 30;

/// Why an image could not be held against its manifest.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// A file could not be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// Which one.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file that is too long for any image.
    #[error("{} has more than {FILE_MAX} bytes", .0.display())]
    TooLong(PathBuf),
    /// The manifest is none.
    #[error("{}: {source}", path.display())]
    Manifest {
        /// Where it is.
        path: PathBuf,
        /// What is wrong with it.
        source: ManifestError,
    },
    /// The command line is no text.
    #[error("{} is no text", .0.display())]
    CommandLine(PathBuf),
    /// Nothing can be predicted from the files.
    #[error("the image cannot be measured: {0}")]
    Measure(#[from] CannotMeasure),
}

impl VerifyError {
    /// What to do about it, as one sentence for people.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Read { .. } => {
                "name the manifest.json of a whole image folder; fetch or build the image again"
            }
            Self::TooLong(_) | Self::CommandLine(_) => "fetch or build the image again",
            Self::Manifest { .. } => "take the manifest as it was published, byte by byte",
            Self::Measure(_) => "build the image with cocoon image build",
        }
    }
}

/// The files of an image folder that decide what is measured, as they are.
#[derive(Debug, Clone)]
pub struct Image {
    /// What the manifest says.
    pub manifest: Manifest,
    /// `vmlinuz`.
    pub kernel: Vec<u8>,
    /// `initrd.cpio`.
    pub initrd: Vec<u8>,
    /// `cmdline`.
    pub command_line: String,
    /// Name and bytes of each firmware that the manifest lists.
    pub firmware: Vec<(String, Vec<u8>)>,
}

/// What came out.
#[derive(Debug, Clone)]
pub struct Verified {
    /// What the manifest says.
    pub manifest: Manifest,
    /// What the files are: a manifest of the same shape, made anew.
    pub found: Manifest,
    /// In what the two differ: nothing, if the image is what its manifest says.
    pub differences: Vec<Difference>,
}

impl Image {
    /// Reads a manifest, and the files beside it without looking at what they should be.
    ///
    /// # Errors
    /// If something cannot be read, or the manifest is none.
    pub fn read(manifest: &Path) -> Result<Self, VerifyError> {
        let path = manifest;
        let bytes = read(path, MANIFEST_MAX as u64)?;
        let wrong = |source| VerifyError::Manifest { path: path.to_owned(), source };
        let manifest = Manifest::from_json(&bytes).map_err(wrong)?;
        let folder = path.parent().unwrap_or(Path::new("."));
        let file = |name: &str| read(&folder.join(name), FILE_MAX);
        let command_line = String::from_utf8(file("cmdline")?)
            .map_err(|_| VerifyError::CommandLine(folder.join("cmdline")))?;
        let listed = manifest.firmware.iter();
        let firmware =
            listed.map(|firmware| Ok((firmware.name.clone(), file(&format!("firmware/{}", firmware.name))?)));
        Ok(Self {
            kernel: file("vmlinuz")?,
            initrd: file("initrd.cpio")?,
            command_line,
            firmware: firmware.collect::<Result<_, VerifyError>>()?,
            manifest,
        })
    }

    /// What is booted, with the firmware of that name if the image has it.
    pub fn boot_files(&self, firmware: &str) -> Option<BootFiles<'_>> {
        let (_, bytes) = self.firmware.iter().find(|(name, _)| name == firmware)?;
        let Self { kernel, initrd, command_line, .. } = self;
        Some(BootFiles { firmware: bytes, kernel, initrd, command_line })
    }

    /// The programs of the manifest, PID 1 as the initrd has it. What is in the root is held by the root's hash.
    fn programs(&self) -> Vec<Program> {
        const INIT: &str = "/init";
        let listed = self.manifest.programs.iter().filter(|program| program.path != INIT);
        let archive = Archive::from_bytes(&self.initrd);
        let init = archive.as_ref().and_then(|archive| archive.content("init")).map(|bytes| {
            let File { sha256, size } = File::of(bytes);
            Program { path: INIT.to_owned(), sha256, size }
        });
        let mut programs: Vec<Program> = listed.cloned().chain(init).collect();
        programs.sort_unstable_by(|a, b| a.path.cmp(&b.path));
        programs
    }

    /// A manifest of the same shape, with everything that these files and `root.img` say made anew.
    fn made_anew(&self, root: &[u8]) -> Result<Manifest, CannotMeasure> {
        let mut found = self.manifest.clone();
        let Self { kernel, initrd, command_line, .. } = self;
        found.files.kernel = File::of(kernel);
        found.files.initrd = File::of(initrd);
        found.files.cmdline = File::of(command_line.as_bytes());
        found.files.root = root_of(root, self.manifest.files.root.verity.data_blocks);
        found.command_line.clone_from(command_line);
        found.programs = self.programs();
        let entry = |(name, bytes): &(String, Vec<u8>)| {
            let File { sha256, size } = File::of(bytes);
            Firmware { name: name.clone(), sha256, size }
        };
        found.firmware = self.firmware.iter().map(entry).collect();
        let named: Vec<_> =
            self.firmware.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())).collect();
        let files = BootFiles { firmware: &[], kernel, initrd, command_line };
        found.measurements = measure_all(&files, &named)?.measurements;
        // A manifest may be for fewer machines than this program knows.
        let listed = |profile: &str| self.manifest.measurements.iter().any(|own| own.profile == profile);
        found.measurements.retain(|measurement| listed(&measurement.profile));
        Ok(found)
    }
}

/// Holds the folder that a manifest is in against it.
///
/// # Errors
/// If something cannot be read, or the files are none that could be measured. Files that are others than the manifest says are
/// no error: they are [`Verified::differences`].
pub fn verify(manifest: &Path) -> Result<Verified, VerifyError> {
    let image = Image::read(manifest)?;
    let root = read(&manifest.with_file_name("root.img"), FILE_MAX)?;
    let found = match image.made_anew(&root) {
        Ok(found) => found,
        // A firmware that is not known, or a kernel that is none: say first which file is another.
        Err(error) => {
            let mut bare = image.clone();
            bare.firmware.clear();
            let mut found = bare.made_anew(&root)?;
            let entry = |(name, bytes): &(String, Vec<u8>)| {
                let File { sha256, size } = File::of(bytes);
                Firmware { name: name.clone(), sha256, size }
            };
            found.firmware = image.firmware.iter().map(entry).collect();
            found.measurements.clone_from(&image.manifest.measurements);
            if found == image.manifest {
                return Err(error.into());
            }
            found
        }
    };
    let differences = manifests(&image.manifest, &found);
    Ok(Verified { manifest: image.manifest, found, differences })
}

/// What a root is: its hash, and the dm-verity root hash of so many of its first blocks.
fn root_of(bytes: &[u8], data_blocks: u64) -> Root {
    let data = usize::try_from(data_blocks).ok().and_then(|blocks| blocks.checked_mul(BLOCK));
    let data = data.and_then(|data| bytes.get(..data)).unwrap_or(bytes);
    let tree = Tree::of(data);
    let (root_hash, data_blocks) =
        tree.map_or((Sha256::of(&[]), 0), |tree| (tree.root_hash, tree.data_blocks));
    let verity = Verity { root_hash, data_blocks };
    Root { sha256: Sha256::of(bytes), size: bytes.len() as u64, verity }
}

fn read(path: &Path, limit: u64) -> Result<Vec<u8>, VerifyError> {
    let unreadable = |source| VerifyError::Read { path: path.to_owned(), source };
    let file = std::fs::File::open(path).map_err(unreadable)?;
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > limit {
        return Err(VerifyError::TooLong(path.to_owned()));
    }
    Ok(bytes)
}
