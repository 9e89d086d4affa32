//! A kernel for tests: configfs-tsm and the registers of a TD, with the faults of real ones on demand.

use super::clock::Clock;
use super::files::Files;
use std::collections::{BTreeMap, VecDeque};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A clock that jumps when it is waited by.
#[derive(Clone, Default)]
pub(super) struct TestClock {
    now: Arc<Mutex<Duration>>,
    stopped: bool,
}

impl TestClock {
    /// One that does not even jump.
    pub(super) fn stopped() -> Self {
        Self { stopped: true, ..Self::default() }
    }
}

impl Clock for TestClock {
    fn now(&self) -> Duration {
        *self.now.lock().expect("no panic holds it")
    }

    fn wait(&self, time: Duration) {
        if !self.stopped {
            *self.now.lock().expect("no panic holds it") += time;
        }
    }
}

/// What goes wrong, once, at an operation.
#[derive(Clone, Debug)]
pub(super) enum Fault {
    /// It fails with this errno.
    Errno(i32),
    /// It succeeds, and another process writes its own report data right after it.
    Meddled,
    /// It looks as if it succeeded; the bytes are gone.
    Lost,
    /// It does what it should, and fails with this errno.
    Late(i32),
}

pub(super) const EINTR: i32 = 4;
pub(super) const ENXIO: i32 = 6;
pub(super) const EACCES: i32 = 13;
pub(super) const EBUSY: i32 = 16;
pub(super) const EINVAL: i32 = 22;

/// An object as the driver keeps it.
#[derive(Clone, Default)]
struct Object {
    generation: u64,
    inblob: Vec<u8>,
    privlevel: String,
}

pub(super) struct State {
    pub(super) folder: PathBuf,
    pub(super) provider: &'static str,
    pub(super) auxblob: Vec<u8>,
    /// Bytes behind the report data in a TDX quote.
    pub(super) padding: usize,
    pub(super) privlevel_floor: u8,
    /// Most bytes that one read gives.
    pub(super) short: usize,
    pub(super) registers: BTreeMap<PathBuf, [u8; 48]>,
    /// Operation ("make", "extend", or an attribute's name) and fault; each strikes once, in this order.
    pub(super) faults: VecDeque<(&'static str, Fault)>,
    objects: BTreeMap<PathBuf, Object>,
    /// Attributes in the order of use, with the number of objects that existed then.
    pub(super) log: Vec<(String, usize)>,
}

/// Shared by all who hold a clone.
#[derive(Clone)]
pub(super) struct Kernel(Arc<Mutex<State>>);

impl Kernel {
    pub(super) fn new(folder: &str, provider: &'static str) -> Self {
        Self(Arc::new(Mutex::new(State {
            folder: folder.into(),
            provider,
            auxblob: Vec::new(),
            padding: 4000,
            privlevel_floor: 0,
            short: usize::MAX,
            registers: BTreeMap::new(),
            faults: VecDeque::new(),
            objects: BTreeMap::new(),
            log: Vec::new(),
        })))
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn objects(&self) -> usize {
        self.state().objects.len()
    }

    /// As PID 1 does before the service starts.
    pub(super) fn premake(&self, folder: &str) {
        self.state().objects.insert(folder.into(), Object::default());
    }

    pub(super) fn files(&self) -> Box<dyn Files> {
        Box::new(self.clone())
    }
}

impl State {
    fn strike(&mut self, operation: &str) -> Option<Fault> {
        self.log.push((operation.to_owned(), self.objects.len()));
        match self.faults.front() {
            Some((at, _)) if *at == operation => self.faults.pop_front().map(|(_, fault)| fault),
            _ => None,
        }
    }

    fn object(&mut self, file: &Path) -> io::Result<&mut Object> {
        let folder = file.parent().expect("attributes have one");
        self.objects.get_mut(folder).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn report(&self, object: &Object) -> Vec<u8> {
        match self.provider {
            "sev_guest" => {
                let mut report = vec![0; 1184];
                report[0] = 2;
                report[0x30] = object.privlevel.parse().unwrap_or(0);
                report[0x50..0x90].copy_from_slice(&object.inblob);
                report
            }
            _ => [&[4, 0], [0; 566].as_slice(), &object.inblob, &vec![0xaa; self.padding]].concat(),
        }
    }

    fn content(&mut self, file: &Path, attribute: &str) -> io::Result<Vec<u8>> {
        if let Some(register) = self.registers.get(file) {
            return Ok(register.to_vec());
        }
        let object = self.object(file)?.clone();
        Ok(match attribute {
            "provider" => format!("{}\n", self.provider).into_bytes(),
            "generation" => format!("{}\n", object.generation).into_bytes(),
            "privlevel_floor" => format!("{}\n", self.privlevel_floor).into_bytes(),
            "outblob" if object.inblob.is_empty() => return Err(io::Error::from_raw_os_error(EINVAL)),
            "outblob" => self.report(&object),
            "auxblob" => self.auxblob.clone(),
            _ => return Err(io::ErrorKind::NotFound.into()),
        })
    }

    fn store(&mut self, file: &Path, attribute: &str, bytes: &[u8]) -> io::Result<()> {
        if let Some(register) = self.registers.get_mut(file) {
            let digest = bytes.try_into().map_err(|_| io::Error::from_raw_os_error(EINVAL))?;
            *register = cocoon_attestation::extend(register, digest);
            return Ok(());
        }
        let object = self.object(file)?;
        object.generation += 1;
        match attribute {
            "inblob" => object.inblob = bytes.to_vec(),
            "privlevel" => object.privlevel = String::from_utf8(bytes.to_vec()).expect("text"),
            _ => return Err(io::ErrorKind::PermissionDenied.into()),
        }
        Ok(())
    }

    fn meddle(&mut self, file: &Path) {
        if self.registers.contains_key(file) {
            self.store(file, "", &[0xee; 48]).expect("a register");
        } else {
            self.store(file, "inblob", &[0xee; 64]).expect("an object");
        }
    }
}

fn name(file: &Path) -> String {
    file.file_name().expect("a file").to_string_lossy().into_owned()
}

/// Gives at most so many bytes at once.
struct Short(io::Cursor<Vec<u8>>, usize);

impl Read for Short {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = buffer.len().min(self.1);
        self.0.read(&mut buffer[..most])
    }
}

impl Files for Kernel {
    fn make(&self, folder: &Path) -> io::Result<()> {
        let mut state = self.state();
        if let Some(Fault::Errno(errno)) = state.strike("make") {
            return Err(io::Error::from_raw_os_error(errno));
        }
        assert_eq!(folder.parent(), Some(state.folder.as_path()));
        match state.objects.insert(folder.to_path_buf(), Object::default()) {
            None => Ok(()),
            Some(_) => Err(io::ErrorKind::AlreadyExists.into()),
        }
    }

    fn remove(&self, folder: &Path) -> io::Result<()> {
        match self.state().objects.remove(folder) {
            Some(_) => Ok(()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn write(&self, file: &Path, bytes: &[u8]) -> io::Result<()> {
        let attribute = name(file);
        let mut state = self.state();
        let operation = if state.registers.contains_key(file) { "extend" } else { &attribute };
        match state.strike(operation) {
            Some(Fault::Errno(errno)) => return Err(io::Error::from_raw_os_error(errno)),
            Some(Fault::Lost) => return Ok(()),
            Some(Fault::Late(errno)) => {
                state.store(file, &attribute, bytes)?;
                return Err(io::Error::from_raw_os_error(errno));
            }
            Some(Fault::Meddled) => {
                state.store(file, &attribute, bytes)?;
                state.meddle(file);
            }
            None => state.store(file, &attribute, bytes)?,
        }
        drop(state);
        std::thread::yield_now(); // others come in here, if they may
        Ok(())
    }

    fn open(&self, file: &Path) -> io::Result<Box<dyn Read>> {
        let attribute = name(file);
        let mut state = self.state();
        let fault = state.strike(&attribute);
        if let Some(Fault::Errno(errno)) = fault {
            return Err(io::Error::from_raw_os_error(errno));
        }
        let content = state.content(file, &attribute)?;
        if matches!(fault, Some(Fault::Meddled)) {
            state.meddle(file);
        }
        let short = state.short;
        drop(state);
        std::thread::yield_now();
        Ok(Box::new(Short(io::Cursor::new(content), short)))
    }

    fn exists(&self, path: &Path) -> bool {
        let state = self.state();
        path == state.folder || state.registers.contains_key(path) || state.objects.contains_key(path)
    }
}
