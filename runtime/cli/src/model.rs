//! `cocoon model`: a Hugging Face folder as the one file that guests serve, and that a registry names by its hash.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use cocoon_engine::{PackError, pack};
use ring::digest::{Context, SHA256};

use crate::error::{Explain, Failure};
use crate::network::role_folder;
use crate::ui::{Screen, print, printable};

/// Where archives of folders are kept, in a state folder.
const KEPT: &str = "models";

#[derive(clap::Subcommand)]
pub(crate) enum Commands {
    /// Write a Hugging Face folder (config.json, tokenizer.json, safetensors) as one file, and say its SHA-256
    Pack(Pack),
}

#[derive(clap::Args)]
#[command(after_help = "\
The file is a tar archive of what the engine reads of the folder, the same bits from the same files everywhere: without
times and owners, in the order of names. Its SHA-256 is the model's `weights` in registries, evidence and receipts.
`cocoon chain` and `cocoon host up` pack a folder that is given as --model by themselves.")]
pub(crate) struct Pack {
    /// The folder
    folder: PathBuf,
    /// The file to write [default: the folder's name and .tar, here]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// One JSON object instead of words
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(Commands::Pack(arguments): &Commands) -> Result<ExitCode, Failure> {
    let named = arguments.out.clone();
    let out = named.map_or_else(|| name(&arguments.folder).map(|name| PathBuf::from(name + ".tar")), Ok)?;
    let weights = hex::encode(write(&arguments.folder, &out)?);
    if arguments.json {
        let told = serde_json::json!({"file": out.display().to_string(), "weights": weights});
        print(&told.to_string())?;
    } else {
        let screen = Screen::new(false);
        screen.line(&printable(&out.display().to_string()));
        screen.detail("weights", &weights);
    }
    Ok(ExitCode::SUCCESS)
}

/// The model as one file: a folder's archive, which is kept under its hash in the state folder; any other path as it is.
///
/// # Errors
/// The folder holds no model that this engine runs, or the archive cannot be written.
pub(crate) fn one_file(path: PathBuf, state: &Path) -> Result<PathBuf, Failure> {
    if !path.is_dir() {
        return Ok(path);
    }
    let kept = role_folder(state, KEPT)?;
    let name = name(&path)?;
    let staging = kept.join(format!(".{name}.{}", std::process::id()));
    let weights = write(&path, &staging)?;
    let place = kept.join(hex::encode(&weights[..8]));
    let file = place.join(format!("{name}.tar"));
    // One that is there is the same, and keeps its time, by which its disk for VMs is known.
    let placed = match file.is_file() {
        true => std::fs::remove_file(&staging),
        false => std::fs::create_dir_all(&place).and_then(|()| std::fs::rename(&staging, &file)),
    };
    placed.explain(|| format!("cannot keep {}", file.display()), "check the disk")?;
    Ok(file)
}

/// A folder's own name, which its model is served under.
fn name(folder: &Path) -> Result<String, Failure> {
    let cannot = || format!("cannot use {}", folder.display());
    let whole = folder.canonicalize().explain(cannot, "check the name")?;
    let name = whole.file_name().and_then(|name| name.to_str()).map(str::to_owned);
    name.ok_or_else(|| Failure::usage(cannot(), "name a folder whose name is a model's"))
}

/// Writes a folder's archive whole or not at all, and gives its SHA-256.
fn write(folder: &Path, out: &Path) -> Result<[u8; 32], Failure> {
    let cannot = || format!("cannot write {}", out.display());
    let file = File::create(out).explain(cannot, "check the folder and the disk")?;
    let mut hashing = Hashing { out: BufWriter::with_capacity(1 << 20, file), hash: Context::new(&SHA256) };
    let packed = pack(folder, &mut hashing).and_then(|()| Ok(hashing.out.flush()?));
    match packed {
        Ok(()) => Ok(hashing.hash.finish().as_ref().try_into().expect("SHA-256 has 32 bytes")),
        Err(error) => {
            let _ = std::fs::remove_file(out); // half of one is none
            let remedy = match &error {
                PackError::Model(_) => {
                    "name a GGUF file, or a folder as Hugging Face has them: config.json, tokenizer.json, safetensors"
                }
                PackError::Write(_) => "check the disk",
            };
            Err(Failure::usage(format!("the model in {} cannot be used: {error}", folder.display()), remedy))
        }
    }
}

struct Hashing {
    out: BufWriter<File>,
    hash: Context,
}

impl Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.hash.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
