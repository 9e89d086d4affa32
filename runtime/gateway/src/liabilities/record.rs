//! What was published last, on the disk before it is signed: no crash makes the gateway say two things of one epoch.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use cocoon_contracts::{
    Address, Nanotons,
    bond::Liabilities,
    liabilities::{Liability, Proof, Root, Tree},
    parse_address,
};
use ring::{hmac, rand::SecureRandom};
use serde::{Deserialize, Serialize};

/// The newest record, and the secret that salts are made of.
const RECORD: &str = "epoch.json";
const SECRET: &str = "salts.key";
/// The form of the record.
const FORMAT: u32 = 1;

/// Why the folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The disk refuses.
    #[error("the liabilities' folder {path} cannot be used: {source}")]
    Disk {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file is not what was written. Publishing without knowing what was signed could cost the stake.
    #[error(
        "{path} is damaged ({why}): restore it, or move it away once an epoch later than its own is published"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
}

/// One channel's unsettled amount, in nanotons.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Leaf {
    channel: String,
    amount: Nanotons,
}

/// The file's words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Words {
    format: u32,
    bond: String,
    epoch: u64,
    root: String,
    sum: Nanotons,
    leaves: Vec<Leaf>,
}

/// One epoch's tree, as it is on the disk.
pub(super) struct Record {
    pub(super) bond: Address,
    pub(super) root: Root,
    tree: Tree,
}

impl Record {
    pub(super) fn prove(&self, channel: &Address) -> Option<Proof> {
        self.tree.prove(channel)
    }

    /// As the bond keeps it.
    pub(super) fn liabilities(&self) -> Liabilities {
        Liabilities { epoch: self.root.epoch, root: self.root.hash, sum: self.root.sum }
    }
}

/// The folder in which a gateway keeps what it published.
pub(super) struct Folder {
    path: PathBuf,
    secret: hmac::Key,
}

impl Folder {
    /// Opens the folder; makes it, and the salts' secret, on first use.
    pub(super) fn open(path: PathBuf) -> Result<Self, RecordError> {
        let refused = |source| RecordError::Disk { path: path.clone(), source };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&path).map_err(refused)?;
        let secret = secret(&path.join(SECRET))?;
        Ok(Self { secret: hmac::Key::new(hmac::HMAC_SHA256, &secret), path })
    }

    /// The newest record, if there is one.
    pub(super) fn load(&self) -> Result<Option<Record>, RecordError> {
        let path = self.path.join(RECORD);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(RecordError::Disk { path, source }),
        };
        self.read(&text).map(Some).map_err(|why| RecordError::Damaged { path, why })
    }

    fn read(&self, text: &[u8]) -> Result<Record, String> {
        let words: Words = serde_json::from_slice(text).map_err(|error| error.to_string())?;
        if words.format != FORMAT {
            return Err(format!("its format is {}, and {FORMAT} is known here", words.format));
        }
        let address = |text: &str| parse_address(text).map_err(|error| error.to_string());
        let amounts = words.leaves.iter().map(|leaf| Ok((address(&leaf.channel)?, leaf.amount)));
        let amounts = amounts.collect::<Result<Vec<_>, String>>()?;
        let record = self.make(address(&words.bond)?, words.epoch, amounts).map_err(|e| e.to_string())?;
        if (hex::encode(record.root.hash), record.root.sum) != (words.root, words.sum) {
            return Err("its leaves do not lead to its root".to_owned());
        }
        Ok(record)
    }

    /// The record of these amounts. Nothing is written.
    pub(super) fn make(
        &self,
        bond: Address,
        epoch: u64,
        amounts: Vec<(Address, Nanotons)>,
    ) -> Result<Record, cocoon_contracts::liabilities::TreeError> {
        let leaf = |(channel, amount)| Liability { salt: self.salt(epoch, &channel), channel, amount };
        let tree = Tree::new(epoch, amounts.into_iter().map(leaf).collect())?;
        Ok(Record { bond, root: tree.root(), tree })
    }

    /// Known to us and the payee alone, so that nobody can try amounts.
    fn salt(&self, epoch: u64, channel: &Address) -> [u8; 32] {
        let mut context = hmac::Context::with_key(&self.secret);
        context.update(&epoch.to_be_bytes());
        context.update(&channel.workchain.to_be_bytes());
        context.update(&channel.address.0);
        context.sign().as_ref().try_into().expect("HMAC-SHA256 has 32 bytes")
    }

    /// Writes the record, whole or not at all; on the disk when this returns.
    pub(super) fn save(&self, record: &Record) -> Result<(), RecordError> {
        let leaves = record.tree.leaves().iter();
        let leaves = leaves.map(|leaf| Leaf { channel: leaf.channel.to_string(), amount: leaf.amount });
        let words = Words {
            format: FORMAT,
            bond: record.bond.to_string(),
            epoch: record.root.epoch,
            root: hex::encode(record.root.hash),
            sum: record.root.sum,
            leaves: leaves.collect(),
        };
        let text = serde_json::to_vec(&words).expect("plain data always encodes");
        let (path, staging) = (self.path.join(RECORD), self.path.join(".epoch.part"));
        let write = || {
            let mut file = File::create(&staging)?;
            file.write_all(&text)?;
            file.sync_all()?;
            fs::rename(&staging, &path)?;
            // The name must be on the disk too.
            File::open(&self.path)?.sync_all()
        };
        write().map_err(|source| RecordError::Disk { path: path.clone(), source })
    }
}

fn secret(path: &Path) -> Result<[u8; 32], RecordError> {
    let disk = |source| RecordError::Disk { path: path.to_path_buf(), source };
    match fs::read(path) {
        Ok(bytes) => bytes.as_slice().try_into().map_err(|_| {
            let why = format!("{} bytes are no secret of 32", bytes.len());
            RecordError::Damaged { path: path.to_path_buf(), why }
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let mut secret = [0; 32];
            ring::rand::SystemRandom::new()
                .fill(&mut secret)
                .map_err(|_| disk(io::Error::other("the system's random generator gave no bytes")))?;
            let mut file =
                OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(disk)?;
            file.write_all(&secret).and_then(|()| file.sync_all()).map_err(disk)?;
            Ok(secret)
        }
        Err(error) => Err(disk(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(byte: &str) -> Address {
        parse_address(&format!("0:{}", byte.repeat(32))).expect("an address")
    }

    fn amounts() -> Vec<(Address, Nanotons)> {
        vec![(address("11"), 5), (address("22"), 0), (address("33"), 70)]
    }

    #[test]
    fn what_was_written_is_read_to_the_same_root_and_proofs() {
        let folder = tempfile::tempdir().expect("a folder");
        let made = Folder::open(folder.path().join("deep/er")).expect("it is made");
        assert!(made.load().expect("it is new").is_none());
        let record = made.make(address("99"), 7, amounts()).expect("a small tree");
        made.save(&record).expect("it is written");
        let again = Folder::open(folder.path().join("deep/er")).expect("it is there");
        let read = again.load().expect("sound").expect("there is one");
        assert_eq!((read.root, &read.bond), (record.root, &record.bond));
        let proof = read.prove(&address("33")).expect("a leaf");
        assert_eq!(proof.verify(&record.root).expect("it is in the root").amount, 70);
    }

    #[test]
    fn salts_differ_by_channel_epoch_and_gateway() {
        let (one, two) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
        let (one, two) = (Folder::open(one.path().into()), Folder::open(two.path().into()));
        let (one, two) = (one.expect("made"), two.expect("made"));
        let salts = [
            one.salt(1, &address("11")),
            one.salt(2, &address("11")),
            one.salt(1, &address("22")),
            two.salt(1, &address("11")),
        ];
        let distinct: std::collections::HashSet<_> = salts.iter().collect();
        assert_eq!(distinct.len(), salts.len());
    }

    /// A record that somebody touched is no licence to sign another one.
    #[test]
    fn a_damaged_record_is_an_error_and_never_no_record() {
        let folder = tempfile::tempdir().expect("a folder");
        let made = Folder::open(folder.path().into()).expect("it is made");
        made.save(&made.make(address("99"), 7, amounts()).expect("a small tree")).expect("it is written");
        let path = folder.path().join(RECORD);
        let text = fs::read_to_string(&path).expect("it is there");
        for broken in [
            text.replace("70", "71"),
            text.replace("\"epoch\":7", "\"epoch\":8"),
            text[..40].to_owned(),
            String::new(),
        ] {
            fs::write(&path, broken).expect("ours");
            assert!(matches!(made.load(), Err(RecordError::Damaged { .. })));
        }
    }
}
