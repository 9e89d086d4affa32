//! Which TEE is found, and what it does with what it is given.

use super::super::certificates::tests::{ASK, VCEK, table};
use super::super::fake::{EACCES, EINTR, ENXIO, Fault, Kernel, TestClock};
use super::*;
use std::path::PathBuf;
use std::sync::Arc;

const ROOT: &str = "/root-of-the-test";

fn kernel(provider: &'static str) -> Kernel {
    Kernel::new(&format!("{ROOT}/{TSM}"), provider)
}

fn open_on(kernel: &Kernel) -> Result<Option<Box<dyn Tee>>, TeeError> {
    open_with(Path::new(ROOT), &|| kernel.files(), &|| Box::new(TestClock::default()))
}

fn rtmr(index: u8) -> PathBuf {
    Path::new(ROOT).join(registers::FOLDER).join(format!("rtmr{index}:sha384"))
}

fn tdx() -> (Kernel, Box<dyn Tee>) {
    let kernel = kernel("tdx_guest");
    for index in 0..4 {
        kernel.state().registers.insert(rtmr(index), [index; 48]);
    }
    let tee = open_on(&kernel).expect("no error").expect("a TEE");
    (kernel, tee)
}

#[test]
fn the_provider_decides_the_platform() {
    let (_, tee) = tdx();
    assert!(tee.has_registers() && tee.name().contains("TDX"), "{}", tee.name());
    let tee = open_on(&kernel("sev_guest")).expect("no error").expect("a TEE");
    assert!(!tee.has_registers() && tee.name().contains("SNP"), "{}", tee.name());
    assert!(matches!(open_on(&kernel("arm_cca_guest")), Err(TeeError::UnknownProvider { .. })));
}

#[test]
fn without_reports_the_devices_decide_and_without_devices_there_is_none() {
    for (device, name) in [
        ("dev/tdx_guest", "Intel TDX through ioctl"),
        ("dev/tdx-guest", "Intel TDX through ioctl"),
        ("dev/sev-guest", "AMD SEV-SNP through ioctl"),
    ] {
        let root = tempfile::tempdir().expect("a folder");
        assert!(open_real_tee(root.path()).expect("no error").is_none());
        std::fs::create_dir(root.path().join("dev")).expect("a folder");
        std::fs::write(root.path().join(device), "").expect("a file");
        assert_eq!(open_real_tee(root.path()).expect("no error").expect("a TEE").name(), name);
    }
    let kernel = kernel("tdx_guest");
    kernel.state().faults.push_back(("make", Fault::Errno(ENXIO)));
    assert!(open_on(&kernel).expect("no error").is_none(), "a folder of reports without a driver");
}

#[test]
fn a_tee_that_cannot_be_used_is_never_taken_for_none() {
    let kernel = kernel("tdx_guest");
    kernel.state().faults.push_back(("make", Fault::Errno(EACCES)));
    assert!(matches!(open_on(&kernel), Err(TeeError::Unreachable { .. })));
}

#[test]
fn a_report_over_other_data_or_of_another_form_is_refused() {
    let (kernel, tee) = tdx();
    assert_eq!(tee.quote(&[5; 64]).expect("a quote").quote[568..632], [5; 64]);
    // A driver that is called one thing and gives another.
    kernel.state().provider = "sev_guest";
    kernel.state().faults.clear();
    let error = tee.quote(&[5; 64]);
    assert!(error.is_err());

    for quote in [vec![], vec![4], vec![4, 0], vec![3, 0], [vec![4, 0], vec![0; 629]].concat(), vec![5, 0, 1]]
    {
        let tee = Tdx::new(Box::new(Fixed(quote.clone())), registers_of(&kernel));
        assert!(matches!(tee.quote(&[0; 64]), Err(TeeError::Malformed(_))), "{quote:?}");
    }
    let other = Tdx::new(Box::new(Fixed([vec![4, 0], vec![0; 2000]].concat())), registers_of(&kernel));
    assert!(other.quote(&[0; 64]).is_ok());
    let error = other.quote(&[1; 64]).expect_err("over zeros");
    assert!(error.to_string().contains("other report data"), "{error}");

    for length in [0, 0x90, 1183, 1185] {
        assert!(Snp::new(Box::new(Fixed(vec![0; length]))).quote(&[0; 64]).is_err(), "{length} bytes");
    }
    let snp = Snp::new(Box::new(Fixed(vec![0; 1184])));
    assert!(snp.quote(&[0; 64]).is_ok());
    assert!(snp.quote(&[1; 64]).is_err());
}

#[test]
fn version_5_quotes_have_their_report_data_six_bytes_later() {
    let mut quote = vec![0; 2000];
    (quote[0], quote[574], quote[637]) = (5, 1, 1);
    let mut asked = [0; 64];
    (asked[0], asked[63]) = (1, 1);
    let tee = Tdx::new(Box::new(Fixed(quote)), registers_of(&kernel("tdx_guest")));
    assert!(tee.quote(&asked).is_ok());
}

/// Always the same answer.
struct Fixed(Vec<u8>);

impl Device for Fixed {
    fn quote(&mut self, _: &[u8; 64]) -> Result<super::super::tsm::Report, TeeError> {
        Ok(super::super::tsm::Report { quote: self.0.clone(), auxiliary: Vec::new() })
    }

    fn name(&self) -> &'static str {
        "fixed"
    }
}

fn registers_of(kernel: &Kernel) -> Registers {
    Registers::new(Path::new(ROOT).join(registers::FOLDER), kernel.files(), Box::new(TestClock::default()))
}

#[test]
fn the_hosts_certificates_become_endorsements() {
    let kernel = kernel("sev_guest");
    kernel.state().auxblob = table(&[(ASK, b"ask"), (VCEK, b"vcek")]);
    let tee = open_on(&kernel).expect("no error").expect("a TEE");
    let quote = tee.quote(&[5; 64]).expect("a report");
    let expected = [b"vcek".to_vec(), b"ask".to_vec()].map(cocoon_attestation::Endorsement::Certificate);
    assert_eq!(quote.endorsements, expected);
    kernel.state().auxblob.truncate(24);
    assert!(matches!(tee.quote(&[5; 64]), Err(TeeError::Malformed(_))));
}

#[test]
fn the_register_is_extended_in_order_and_alone() {
    let (kernel, tee) = tdx();
    tee.extend(&[9; 48]).expect("extended");
    tee.extend(&[8; 48]).expect("extended");
    let state = kernel.state();
    let expected = cocoon_attestation::extend(&[3; 48], &[9; 48]);
    assert_eq!(state.registers[&rtmr(3)], cocoon_attestation::extend(&expected, &[8; 48]));
    assert_eq!([0, 1, 2].map(|index| state.registers[&rtmr(index)]), [[0; 48], [1; 48], [2; 48]]);
}

#[test]
fn an_interrupted_extension_is_done_exactly_once() {
    for fault in [
        ("rtmr3:sha384", Fault::Errno(EINTR)),
        ("extend", Fault::Errno(EINTR)),
        ("extend", Fault::Late(EINTR)),
    ] {
        let (kernel, tee) = tdx();
        kernel.state().faults.push_back(fault.clone());
        tee.extend(&[9; 48]).unwrap_or_else(|error| panic!("{fault:?}: {error}"));
        let expected = cocoon_attestation::extend(&[3; 48], &[9; 48]);
        assert_eq!(kernel.state().registers[&rtmr(3)], expected, "{fault:?}");
        assert!(kernel.state().faults.is_empty(), "{fault:?} did not strike");
    }
}

#[test]
fn an_extension_that_is_not_seen_in_the_register_is_an_error() {
    for fault in [Fault::Lost, Fault::Meddled] {
        let (kernel, tee) = tdx();
        kernel.state().faults.push_back(("extend", fault.clone()));
        let error = tee.extend(&[9; 48]).expect_err("another value");
        assert!(matches!(error, TeeError::Malformed(_)), "{fault:?}: {error}");
    }
    let (kernel, tee) = tdx();
    kernel.state().faults.push_back(("extend", Fault::Errno(EACCES)));
    let error = tee.extend(&[9; 48]).expect_err("not allowed");
    assert!(matches!(error, TeeError::Unreachable { .. }), "{error}");
}

#[test]
fn a_kernel_without_registers_says_which_one_has_them() {
    let kernel = kernel("tdx_guest");
    let tee = open_on(&kernel).expect("no error").expect("a TEE");
    let error = tee.extend(&[9; 48]).expect_err("no register");
    assert!(matches!(error, TeeError::NoRegisters(_)) && error.to_string().contains("6.16"), "{error}");
    let tee = open_on(&self::kernel("sev_guest")).expect("no error").expect("a TEE");
    let error = tee.extend(&[9; 48]).expect_err("no register");
    assert!(error.to_string().contains("SEV-SNP has no register"), "{error}");
}

#[test]
fn quotes_asked_at_once_are_made_one_after_the_other() {
    let (kernel, tee) = tdx();
    kernel.state().log.clear();
    let tee: Arc<dyn Tee> = tee.into();
    let threads: Vec<_> = (0..8_u8)
        .map(|thread| {
            let tee = tee.clone();
            std::thread::spawn(move || {
                for round in 0..20 {
                    let asked = [thread * 20 + round; 64];
                    assert_eq!(tee.quote(&asked).expect("a quote").quote[568..632], asked);
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().expect("it got its own quotes");
    }
    let state = kernel.state();
    assert!(state.log.iter().all(|(_, objects)| *objects <= 1), "two objects at once");
    // One request is make, generation, inblob, generation, outblob, generation: never mixed with another.
    let whole = ["make", "generation", "inblob", "generation", "outblob", "generation"];
    assert_eq!(state.log.len(), 160 * whole.len());
    for request in state.log.chunks(whole.len()) {
        assert!(request.iter().map(|(operation, _)| operation).eq(&whole), "{request:?}");
    }
}
