//! Quotes through Linux's configfs-tsm (`Documentation/ABI/testing/configfs-tsm`, Linux 6.7 and later).
//!
//! One request is one object: a folder under `/sys/kernel/config/tsm/report` in which the kernel shows attributes.
//!
//! | attribute | use |
//! | --- | --- |
//! | `provider` | whose format the report has |
//! | `generation` | counts what was written to the object |
//! | `privlevel_floor`, `privlevel` | SEV-SNP: the VMPL of the report; the lowest that this guest may ask for is asked |
//! | `inblob` | takes the 64 bytes of report data |
//! | `outblob` | gives the quote |
//! | `auxblob` | SEV-SNP: gives the host's certificates |
//!
//! configfs hands the bytes of a binary attribute to the driver when the file is closed, and drops the driver's answer:
//! a refused write looks like a good one. Only `generation` tells, so it is compared with the number of writes of ours,
//! before and after the report is read. A report that does not belong to our bytes is thrown away with its object, and
//! everything starts over.

use super::TeeError;
use super::clock::{Clock, Trouble, persist};
use super::files::{Files, read, read_line, read_number, trouble};
use std::io;
use std::path::PathBuf;

/// Most bytes of a report: what a verifier takes.
const MAX_REPORT: usize = cocoon_attestation::tdx::MAX_QUOTE;
/// Most bytes of the host's certificates: the kernel's own limit (SEV_FW_BLOB_MAX_SIZE).
pub(super) const MAX_AUXILIARY: usize = 16 * 1024;

/// Whose reports there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Provider {
    /// Intel TDX quotes.
    Tdx,
    /// AMD SEV-SNP reports.
    Snp,
}

impl Provider {
    fn name(self) -> &'static str {
        match self {
            Self::Tdx => "tdx_guest",
            Self::Snp => "sev_guest",
        }
    }
}

/// What a device answers to report data.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Report {
    /// The quote, as the platform gives it.
    pub(super) quote: Vec<u8>,
    /// The host's certificate table of an SNP guest; may be empty.
    pub(super) auxiliary: Vec<u8>,
}

/// Makes quotes, one at a time: hence `&mut`.
pub(super) trait Device: Send {
    /// A quote over 64 bytes. Whether it is over those bytes is for the caller to see.
    fn quote(&mut self, report_data: &[u8; 64]) -> Result<Report, TeeError>;
    /// For people: how it is asked.
    fn name(&self) -> &'static str;
}

/// The kernel's folder of reports.
pub(super) struct Tsm {
    clock: Box<dyn Clock>,
    objects: Objects,
    provider: Provider,
}

impl Tsm {
    /// Asks whose reports there are; `None` if no driver provides any.
    pub(super) fn open(
        folder: PathBuf,
        files: Box<dyn Files>,
        clock: Box<dyn Clock>,
    ) -> Result<Option<(Provider, Self)>, TeeError> {
        let mut objects = Objects { files, folder, made: 0 };
        let path = objects.folder.clone();
        let found = persist(clock.as_ref(), || objects.provider(), |gave_up| gave_up.at(path.clone()))?;
        let Some(name) = found else { return Ok(None) };
        let provider = [Provider::Tdx, Provider::Snp]
            .into_iter()
            .find(|known| known.name() == name)
            .ok_or(TeeError::UnknownProvider { path, provider: name })?;
        Ok(Some((provider, Self { clock, objects, provider })))
    }
}

impl Device for Tsm {
    fn quote(&mut self, report_data: &[u8; 64]) -> Result<Report, TeeError> {
        let path = self.objects.folder.clone();
        persist(
            self.clock.as_ref(),
            || self.objects.report(self.provider, report_data),
            |gave_up| gave_up.at(path),
        )
    }

    fn name(&self) -> &'static str {
        match self.provider {
            Provider::Tdx => "Intel TDX through configfs-tsm",
            Provider::Snp => "AMD SEV-SNP through configfs-tsm",
        }
    }
}

/// Makes objects in the folder.
struct Objects {
    files: Box<dyn Files>,
    folder: PathBuf,
    /// Objects made so far: the next one's name.
    made: u64,
}

impl Objects {
    fn make(&mut self) -> Result<Option<Object<'_>>, Trouble<TeeError>> {
        let premade = self.folder.join(PREMADE);
        if self.files.exists(&premade) {
            return Ok(Some(Object { files: self.files.as_ref(), folder: premade, ours: false }));
        }
        self.made += 1;
        let folder = self.folder.join(format!("cocoon-{}-{}", std::process::id(), self.made));
        match self.files.make(&folder) {
            Ok(()) => Ok(Some(Object { files: self.files.as_ref(), folder, ours: true })),
            // No driver has registered: Linux, but not in a TEE that it has a driver for.
            Err(error) if error.raw_os_error() == Some(ENXIO) => Ok(None),
            // Left behind by a process that was killed: the next one has another name.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                Err(Trouble::Passing(format!("{}: {error}", folder.display())))
            }
            Err(error) => Err(trouble(&folder, error)),
        }
    }

    fn provider(&mut self) -> Result<Option<String>, Trouble<TeeError>> {
        let Some(object) = self.make()? else { return Ok(None) };
        object.line("provider").map(Some)
    }

    fn report(&mut self, provider: Provider, report_data: &[u8; 64]) -> Result<Report, Trouble<TeeError>> {
        let gone = || TeeError::Refused("the kernel's driver for reports is gone".to_owned());
        let object = self.make()?.ok_or_else(|| Trouble::Lasting(gone()))?;
        let before = object.number("generation")?;
        let mut writes = 1;
        if provider == Provider::Snp {
            let floor = object.number("privlevel_floor")?;
            object.write("privlevel", floor.to_string().as_bytes())?;
            writes += 1;
        }
        object.write("inblob", report_data)?;
        let ours = before.wrapping_add(writes);
        object.still(ours)?;
        let quote = object.read("outblob", MAX_REPORT)?;
        let auxiliary = match provider {
            Provider::Tdx => Vec::new(),
            Provider::Snp => object.read("auxblob", MAX_AUXILIARY)?,
        };
        object.still(ours)?;
        if quote.is_empty() {
            return Err(Trouble::Lasting(TeeError::Refused(EMPTY.to_owned())));
        }
        Ok(Report { quote, auxiliary })
    }
}

/// "No such device or address": what configfs-tsm says where no driver provides reports.
const ENXIO: i32 = 6;
const EMPTY: &str = "it gave an empty report; is a quote generation service running on the host, and does it know this \
                     machine?";

/// The object that PID 1 of the guest image makes and hands over: objects belong to root, whoever makes them, and the
/// service has a user of its own. It stays, and its `generation` goes on counting.
const PREMADE: &str = "cocoon";

/// An object, removed when it is dropped if it was made here.
struct Object<'a> {
    files: &'a dyn Files,
    folder: PathBuf,
    ours: bool,
}

impl Object<'_> {
    fn line(&self, attribute: &str) -> Result<String, Trouble<TeeError>> {
        read_line(self.files, &self.folder.join(attribute))
    }

    fn number(&self, attribute: &str) -> Result<u64, Trouble<TeeError>> {
        read_number(self.files, &self.folder.join(attribute))
    }

    fn read(&self, attribute: &str, limit: usize) -> Result<Vec<u8>, Trouble<TeeError>> {
        read(self.files, &self.folder.join(attribute), limit)
    }

    fn write(&self, attribute: &str, bytes: &[u8]) -> Result<(), Trouble<TeeError>> {
        let path = self.folder.join(attribute);
        self.files.write(&path, bytes).map_err(|error| trouble(&path, error))
    }

    /// Whether the writes of ours, and no others, were taken.
    fn still(&self, ours: u64) -> Result<(), Trouble<TeeError>> {
        match self.number("generation")? {
            generation if generation == ours => Ok(()),
            generation => Err(Trouble::Passing(format!(
                "{} is at generation {generation}, not {ours}: a write was refused, or is not ours",
                self.folder.display()
            ))),
        }
    }
}

impl Drop for Object<'_> {
    fn drop(&mut self) {
        if !self.ours {
            return;
        }
        if let Err(error) = self.files.remove(&self.folder) {
            tracing::warn!(folder = %self.folder.display(), %error, "an object for reports stays behind");
        }
    }
}

#[cfg(test)]
#[path = "tsm_tests.rs"]
mod tests;
