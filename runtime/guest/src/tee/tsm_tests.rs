//! Quotes through configfs-tsm, by a kernel that has bad days.

use super::super::fake::{EACCES, EBUSY, EINTR, EINVAL, ENXIO, Fault, Kernel, TestClock};
use super::super::files::Disk;
use super::*;
use std::io::Read;
use std::path::Path;
use std::sync::{Arc, Mutex};

const FOLDER: &str = "/report";
const ASKED: [u8; 64] = [7; 64];

fn open(kernel: &Kernel) -> (Provider, Tsm) {
    Tsm::open(FOLDER.into(), kernel.files(), Box::new(TestClock::default()))
        .expect("it opens")
        .expect("a provider")
}

fn tdx(faults: &[(&'static str, Fault)]) -> (Kernel, Tsm) {
    let kernel = Kernel::new(FOLDER, "tdx_guest");
    let (provider, tsm) = open(&kernel);
    assert_eq!(provider, Provider::Tdx);
    kernel.state().faults = faults.iter().cloned().collect();
    kernel.state().log.clear();
    (kernel, tsm)
}

fn snp(faults: &[(&'static str, Fault)]) -> (Kernel, Tsm) {
    let kernel = Kernel::new(FOLDER, "sev_guest");
    let (provider, tsm) = open(&kernel);
    assert_eq!(provider, Provider::Snp);
    kernel.state().faults = faults.iter().cloned().collect();
    kernel.state().auxblob = b"certificates".to_vec();
    (kernel, tsm)
}

fn made(kernel: &Kernel) -> usize {
    kernel.state().log.iter().filter(|(operation, _)| operation == "make").count()
}

#[test]
fn a_quote_is_over_what_was_asked_and_its_object_is_gone() {
    let (kernel, mut tsm) = tdx(&[]);
    let report = tsm.quote(&ASKED).expect("a quote");
    assert_eq!(report.quote[568..632], ASKED);
    assert_eq!((report.quote.len(), report.auxiliary.len()), (632 + 4000, 0));
    assert_eq!((kernel.objects(), made(&kernel)), (0, 1));
}

#[test]
fn an_object_that_was_handed_over_is_used_again_and_again_and_stays() {
    let kernel = Kernel::new(FOLDER, "tdx_guest");
    kernel.premake("/report/cocoon");
    let (_, mut tsm) = open(&kernel);
    for asked in [[1; 64], [2; 64], [3; 64]] {
        assert_eq!(tsm.quote(&asked).expect("a quote").quote[568..632], asked);
    }
    kernel.state().faults.push_back(("inblob", Fault::Lost));
    assert_eq!(tsm.quote(&ASKED).expect("tried again").quote[568..632], ASKED);
    assert_eq!((kernel.objects(), made(&kernel)), (1, 0));
}

#[test]
fn an_snp_report_comes_with_its_certificates_and_the_lowest_privilege_level_that_may_be_asked() {
    let (kernel, mut tsm) = snp(&[]);
    let report = tsm.quote(&ASKED).expect("a report");
    assert_eq!((&report.quote[0x50..0x90], report.quote[0x30]), (ASKED.as_slice(), 0));
    assert_eq!(report.auxiliary, b"certificates");
    kernel.state().privlevel_floor = 2;
    assert_eq!(tsm.quote(&ASKED).expect("a report").quote[0x30], 2);
    assert_eq!(kernel.objects(), 0);
}

#[test]
fn what_passes_is_tried_again_from_the_start() {
    for fault in [
        ("make", Fault::Errno(EBUSY)),
        ("generation", Fault::Errno(EINTR)),
        ("inblob", Fault::Errno(EBUSY)),
        ("inblob", Fault::Errno(EINTR)),
        ("inblob", Fault::Late(EINTR)),
        ("inblob", Fault::Lost),
        ("inblob", Fault::Meddled),
        ("outblob", Fault::Errno(EBUSY)),
        ("outblob", Fault::Errno(EINTR)),
        ("outblob", Fault::Meddled),
    ] {
        let (kernel, mut tsm) = tdx(std::slice::from_ref(&fault));
        let report = tsm.quote(&ASKED).unwrap_or_else(|error| panic!("{fault:?}: {error}"));
        assert_eq!(report.quote[568..632], ASKED, "{fault:?}");
        assert_eq!((kernel.objects(), made(&kernel)), (0, 2), "{fault:?}");
    }
    for fault in [("privlevel", Fault::Lost), ("privlevel", Fault::Meddled), ("auxblob", Fault::Meddled)] {
        let (kernel, mut tsm) = snp(std::slice::from_ref(&fault));
        let report = tsm.quote(&ASKED).unwrap_or_else(|error| panic!("{fault:?}: {error}"));
        assert_eq!((&report.quote[0x50..0x90], kernel.objects()), (ASKED.as_slice(), 0), "{fault:?}");
    }
}

#[test]
fn several_faults_in_one_request_are_outlived() {
    let faults = [
        ("outblob", Fault::Errno(EBUSY)),
        ("outblob", Fault::Meddled),
        ("inblob", Fault::Lost),
        ("outblob", Fault::Errno(EINTR)),
    ];
    let (kernel, mut tsm) = tdx(&faults);
    assert_eq!(tsm.quote(&ASKED).expect("a quote").quote[568..632], ASKED);
    assert_eq!((kernel.objects(), made(&kernel)), (0, 5));
}

#[test]
fn what_lasts_is_said_at_once() {
    for (operation, errno) in
        [("make", EACCES), ("inblob", EACCES), ("outblob", EINVAL), ("generation", EACCES)]
    {
        let (kernel, mut tsm) = tdx(&[(operation, Fault::Errno(errno))]);
        let error = tsm.quote(&ASKED).expect_err(operation);
        assert!(matches!(error, TeeError::Unreachable { .. }), "{operation}: {error}");
        assert_eq!((kernel.objects(), made(&kernel)), (0, 1), "{operation}");
    }
    let (_, mut tsm) = tdx(&[("make", Fault::Errno(ENXIO))]);
    assert!(matches!(tsm.quote(&ASKED), Err(TeeError::Refused(_))), "the driver is gone");
}

#[test]
fn a_device_that_is_always_busy_ends_the_patience_and_not_the_guest() {
    let busy = vec![("outblob", Fault::Errno(EBUSY)); 1000];
    let (kernel, mut tsm) = tdx(&busy);
    let error = tsm.quote(&ASKED).expect_err("busy for ever");
    assert!(matches!(error, TeeError::Contended { seconds: 30..=60, .. }), "{error}");
    assert!(error.to_string().contains("outblob"), "{error}");
    assert_eq!(kernel.objects(), 0);
}

#[test]
fn somebody_who_always_writes_in_between_gets_no_quote_made_of_it() {
    let (kernel, mut tsm) = tdx(&vec![("inblob", Fault::Meddled); 1000]);
    let error = tsm.quote(&ASKED).expect_err("never ours");
    assert!(error.to_string().contains("generation 2, not 1"), "{error}");
    assert_eq!(kernel.objects(), 0);
}

#[test]
fn short_reads_are_put_together() {
    for short in [1, 2, 3, 1000, 4095, 4096] {
        let (kernel, mut tsm) = tdx(&[]);
        kernel.state().short = short;
        assert_eq!(tsm.quote(&ASKED).expect("a quote").quote.len(), 4632, "{short} bytes at a time");
    }
}

#[test]
fn a_report_beyond_the_limit_is_refused() {
    let (kernel, mut tsm) = tdx(&[]);
    kernel.state().padding = MAX_REPORT - 632;
    assert_eq!(tsm.quote(&ASKED).expect("at the limit").quote.len(), MAX_REPORT);
    kernel.state().padding += 1;
    assert!(matches!(tsm.quote(&ASKED), Err(TeeError::Malformed(_))));
    let (kernel, mut tsm) = snp(&[]);
    kernel.state().auxblob = vec![1; MAX_AUXILIARY + 1];
    assert!(matches!(tsm.quote(&ASKED), Err(TeeError::Malformed(_))));
    assert_eq!(kernel.objects(), 0);
}

#[test]
fn a_folder_without_a_driver_is_no_tee_and_one_with_a_strange_driver_is_an_error() {
    let kernel = Kernel::new(FOLDER, "tdx_guest");
    kernel.state().faults.push_back(("make", Fault::Errno(ENXIO)));
    let none = Tsm::open(FOLDER.into(), kernel.files(), Box::new(TestClock::default())).expect("no error");
    assert!(none.is_none());
    let kernel = Kernel::new(FOLDER, "arm_cca_guest");
    let error =
        Tsm::open(FOLDER.into(), kernel.files(), Box::new(TestClock::default())).err().expect("unknown");
    assert!(error.to_string().contains("arm_cca_guest"), "{error}");
    assert_eq!(kernel.objects(), 0);
}

/// The kernel's part over real files: it makes the attributes, counts, and removes them.
struct OnDisk {
    report: Vec<u8>,
    seen: Arc<Mutex<Vec<u8>>>,
}

impl Files for OnDisk {
    fn make(&self, folder: &Path) -> io::Result<()> {
        Disk.make(folder)?;
        for (attribute, content) in [
            ("provider", "tdx_guest\n".as_bytes()),
            ("generation", b"0\n"),
            ("inblob", b""),
            ("outblob", &self.report),
        ] {
            std::fs::write(folder.join(attribute), content)?;
        }
        Ok(())
    }

    fn remove(&self, folder: &Path) -> io::Result<()> {
        *self.seen.lock().expect("no panic holds it") = std::fs::read(folder.join("inblob"))?;
        for attribute in ["provider", "generation", "inblob", "outblob"] {
            std::fs::remove_file(folder.join(attribute))?;
        }
        Disk.remove(folder)
    }

    fn write(&self, file: &Path, bytes: &[u8]) -> io::Result<()> {
        Disk.write(file, bytes)?;
        std::fs::write(file.with_file_name("generation"), "1\n")
    }

    fn open(&self, file: &Path) -> io::Result<Box<dyn Read>> {
        Disk.open(file)
    }

    fn exists(&self, path: &Path) -> bool {
        Disk.exists(path)
    }
}

#[test]
fn real_files_are_read_and_written_whole() {
    let folder = tempfile::tempdir().expect("a folder");
    let report: Vec<u8> = (0..9000_u32).map(|at| (at % 251) as u8).collect();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let files = OnDisk { report: report.clone(), seen: seen.clone() };
    let clock = Box::new(TestClock::default());
    let (provider, mut tsm) =
        Tsm::open(folder.path().into(), Box::new(files), clock).expect("it opens").expect("a provider");
    assert_eq!(provider, Provider::Tdx);
    assert_eq!(tsm.quote(&ASKED).expect("a quote").quote, report);
    assert_eq!(*seen.lock().expect("no panic holds it"), ASKED);
    assert_eq!(std::fs::read_dir(folder.path()).expect("it is ours").count(), 0, "an object stayed behind");
}

#[test]
fn a_missing_attribute_is_an_error_with_its_path() {
    let folder = tempfile::tempdir().expect("a folder");
    let open = || Tsm::open(folder.path().into(), Box::new(Disk), Box::new(TestClock::default()));
    let error = open().err().expect("plain folders have no attributes");
    assert!(error.to_string().contains("provider"), "{error}");
    let missing = Disk.write(&folder.path().join("inblob"), b"x").expect_err("it is not created");
    assert_eq!(missing.kind(), io::ErrorKind::NotFound);
}
