//! The weights disk: a model file, zeros up to a whole block, and its dm-verity tree. Made in one pass, block by block:
//! models are larger than memory.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use cocoon_image::{HexBytes, Sha256, verity};
use ring::digest::{Context, SHA256};
use serde::{Deserialize, Serialize};

use crate::store::Store;
use crate::{Error, output};

/// How much is read and written at once.
const CHUNK: usize = 1 << 20;

/// A weights disk and what the guest's configuration says about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WeightsDisk {
    /// Where the disk's image is.
    pub path: PathBuf,
    /// SHA-256 of the model file.
    pub weights: Sha256,
    /// The model file's length in bytes.
    pub bytes: u64,
    /// The dm-verity root hash.
    pub verity: Sha256,
}

impl Store {
    /// The weights disk of a model: made once for each content, found again by path, length and time of change.
    ///
    /// # Errors
    /// If the model cannot be read or changes meanwhile, or the disk cannot be written.
    pub fn weights_disk(&self, model: &Path) -> Result<WeightsDisk, Error> {
        let folder = self.subfolder("weights")?;
        let model = model.canonicalize().map_err(Error::io("read", model))?;
        let found = std::fs::metadata(&model).map_err(Error::io("read", &model))?;
        let identity = format!(
            "{}\0{}\0{}\0{}\0{}.{}",
            model.display(),
            found.len(),
            found.dev(),
            found.ino(),
            found.mtime(),
            found.mtime_nsec()
        );
        let note = folder.join(format!("{}.json", Sha256::of(identity.as_bytes())));
        if let Some(known) = remembered(&note) {
            return Ok(known);
        }
        output::remove_stale(&folder);
        let new = tempfile::Builder::new()
            .prefix(output::UNFINISHED)
            .tempfile_in(&folder)
            .map_err(Error::io("write", &folder))?;
        let task = self.progress().begin(&format!("preparing {}", model.display()), found.len());
        let mut disk = write_weights_disk(&model, new.as_file(), new.path(), &|bytes| task.advance(bytes))?;
        disk.path = folder.join(format!("{}.img", disk.weights));
        new.persist(&disk.path).map_err(|error| Error::io("write", &disk.path)(error.error))?;
        let text = serde_json::to_string(&disk).expect("paths of a cache are text, the rest are numbers");
        output::replace_file(&note, text.as_bytes())?;
        Ok(disk)
    }
}

/// A disk that was made earlier, if it is still there in its full length.
fn remembered(note: &Path) -> Option<WeightsDisk> {
    let known: WeightsDisk = serde_json::from_slice(&std::fs::read(note).ok()?).ok()?;
    let length = verity::length(verity::blocks(known.bytes))?;
    (std::fs::metadata(&known.path).ok()?.len() == length).then_some(known)
}

/// Writes the weights disk of `model` into the empty file `out`, which is at `place`. `done` is told how many more bytes
/// have been read.
///
/// # Errors
/// If the model is empty, cannot be read or changes meanwhile, or the disk cannot be written.
pub fn write_weights_disk(
    model: &Path,
    out: &File,
    place: &Path,
    done: &dyn Fn(u64),
) -> Result<WeightsDisk, Error> {
    let input = File::open(model).map_err(Error::io("read", model))?;
    let bytes = input.metadata().map_err(Error::io("read", model))?.len();
    let Some(builder) = verity::Builder::new(verity::blocks(bytes)) else {
        return Err(Error::Contents(format!("the model {} is empty", model.display())));
    };
    let length = verity::length(verity::blocks(bytes)).expect("the builder was told the same");
    reserve(out, length).map_err(Error::io("write", place))?;
    let mut pass = Pass {
        builder,
        weights: Context::new(&SHA256),
        out,
        tree: verity::blocks(bytes) * verity::BLOCK as u64,
    };
    pass.run(input, bytes, done).map_err(|failed| match failed {
        Failed::Read(error) => Error::io("read", model)(error),
        Failed::Write(error) => Error::io("write", place)(error),
        Failed::Changed => Error::Contents(format!("{} changed while it was read", model.display())),
    })?;
    let Pass { builder, weights, tree, .. } = pass;
    let mut write = |offset: u64, block: &[u8; verity::BLOCK]| out.write_all_at(block, tree + offset);
    let verity = builder.finish(&mut write).and_then(|root| out.sync_all().map(|()| root));
    let verity = verity.map_err(Error::io("write", place))?;
    let weights = HexBytes(weights.finish().as_ref().try_into().expect("SHA-256 gives 32 bytes"));
    Ok(WeightsDisk { path: place.to_owned(), weights, bytes, verity })
}

/// Takes the room for the whole disk at once: better now than after an hour.
fn reserve(out: &File, length: u64) -> io::Result<()> {
    match rustix::fs::fallocate(out, rustix::fs::FallocateFlags::empty(), 0, length) {
        Ok(()) => Ok(()),
        Err(rustix::io::Errno::OPNOTSUPP) => out.set_len(length),
        Err(error) => Err(error.into()),
    }
}

enum Failed {
    Read(io::Error),
    Write(io::Error),
    Changed,
}

/// One way through the model.
struct Pass<'a> {
    builder: verity::Builder,
    weights: Context,
    out: &'a File,
    /// Where the tree begins.
    tree: u64,
}

impl Pass<'_> {
    fn run(&mut self, input: File, bytes: u64, done: &dyn Fn(u64)) -> Result<(), Failed> {
        let mut input = BufReader::with_capacity(CHUNK, input);
        let mut data = BufWriter::with_capacity(CHUNK, self.out);
        data.seek(SeekFrom::Start(0)).map_err(Failed::Write)?;
        let mut left = bytes;
        while left > 0 {
            let mut block = [0; verity::BLOCK];
            let length = usize::try_from(left).map_or(verity::BLOCK, |left| left.min(verity::BLOCK));
            input.read_exact(&mut block[..length]).map_err(|error| match error.kind() {
                io::ErrorKind::UnexpectedEof => Failed::Changed,
                _ => Failed::Read(error),
            })?;
            self.weights.update(&block[..length]);
            data.write_all(&block).map_err(Failed::Write)?;
            let (out, tree) = (self.out, self.tree);
            let mut write = |offset: u64, block: &[u8; verity::BLOCK]| out.write_all_at(block, tree + offset);
            self.builder.push(&block, &mut write).map_err(Failed::Write)?;
            left -= length as u64;
            done(length as u64);
        }
        data.flush().map_err(Failed::Write)?;
        match input.read(&mut [0]) {
            Ok(0) => Ok(()),
            Ok(_) => Err(Failed::Changed),
            Err(error) => Err(Failed::Read(error)),
        }
    }
}
