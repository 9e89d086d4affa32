//! Endorsements: what vendors say about their hardware, told apart by their own form.

use crate::der::Reader;
use crate::x509::{Certificate, Crl};
use crate::{Malformed, pem};

/// Most endorsement files a caller may hand over.
pub(crate) const MAX_FILES: usize = 64;
/// The largest endorsement file, in bytes.
pub(crate) const MAX_FILE: usize = 1024 * 1024;
/// Most single endorsements, once chains are taken apart.
const MAX_ITEMS: usize = 256;

const WHAT: &str = "endorsement";

/// One endorsement. Nothing in it is believed yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endorsement {
    /// Intel's collateral as JSON: TCB info, QE identity, CRLs and their issuers' chains.
    IntelCollateral(Vec<u8>),
    /// An X.509 certificate in DER: VCEK, VLEK, ASK, ARK, a GPU's chain.
    Certificate(Vec<u8>),
    /// A CRL in DER.
    Crl(Vec<u8>),
    /// An NVIDIA RIM: a signed SWID tag in XML.
    Rim(Vec<u8>),
    /// An OCSP response in DER.
    OcspResponse(Vec<u8>),
    /// A TCG event log (CCEL, or a TPM's).
    EventLog(Vec<u8>),
}

/// Endorsements in any order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Endorsements {
    items: Vec<Endorsement>,
    canonical: bool,
}

impl Endorsements {
    /// None: use what the bundle carries.
    pub fn none() -> Self {
        Self::default()
    }

    /// Files in any order, each told apart by its form: Intel's collateral as JSON with the field names of Intel's PCS;
    /// certificates and CRLs in DER or PEM; RIMs; OCSP responses in DER; event logs.
    ///
    /// # Errors
    /// If there are more than 64 files, one is larger than 1 MiB, or one is none of these; the text says which.
    pub fn from_files(files: impl IntoIterator<Item = Vec<u8>>) -> Result<Self, Malformed> {
        let mut items = Vec::new();
        for (at, file) in files.into_iter().enumerate() {
            if at == MAX_FILES {
                return Err(Malformed::new(WHAT, format!("more than {MAX_FILES} files")));
            }
            let sorted = Endorsement::sort(&file).map_err(|error| Malformed {
                reason: format!("number {}: {}", at + 1, error.reason),
                ..error
            })?;
            items.extend(sorted);
        }
        if items.len() > MAX_ITEMS {
            return Err(Malformed::new(
                WHAT,
                format!("{} certificates and documents, at most {MAX_ITEMS}", items.len()),
            ));
        }
        Ok(Self { items, canonical: false })
    }

    /// What a bundle carries: there, collateral has one form only.
    pub(crate) fn of_bundle(items: &[Endorsement], event_log: Option<&[u8]>) -> Self {
        let log = event_log.map(|log| Endorsement::EventLog(log.to_vec()));
        Self { items: items.iter().cloned().chain(log).collect(), canonical: true }
    }

    /// Of each kind, what was handed over; where nothing of the kind was, what `carried` has of it.
    pub(crate) fn or_else(&self, carried: Self) -> Self {
        use std::mem::discriminant;
        let own: Vec<_> = self.items.iter().map(discriminant).collect();
        let canonical = !self.items.iter().any(|item| matches!(item, Endorsement::IntelCollateral(_)));
        let rest = carried.items.into_iter().filter(|item| !own.contains(&discriminant(item)));
        Self { items: self.items.iter().cloned().chain(rest).collect(), canonical }
    }

    /// All of them, in the order in which they were given.
    pub fn items(&self) -> &[Endorsement] {
        &self.items
    }

    /// Adds one.
    pub fn push(&mut self, item: Endorsement) {
        self.items.push(item);
    }

    /// Intel collateral must be in its canonical form: it comes from a bundle.
    pub(crate) fn canonical(&self) -> bool {
        self.canonical
    }

    pub(crate) fn intel(&self) -> impl Iterator<Item = &[u8]> {
        self.items.iter().filter_map(|item| match item {
            Endorsement::IntelCollateral(json) => Some(&json[..]),
            _ => None,
        })
    }

    pub(crate) fn certificates(&self) -> impl Iterator<Item = &[u8]> {
        self.items.iter().filter_map(|item| match item {
            Endorsement::Certificate(der) => Some(&der[..]),
            _ => None,
        })
    }

    pub(crate) fn crls(&self) -> impl Iterator<Item = &[u8]> {
        self.items.iter().filter_map(|item| match item {
            Endorsement::Crl(der) => Some(&der[..]),
            _ => None,
        })
    }

    pub(crate) fn rims(&self) -> impl Iterator<Item = &[u8]> {
        self.items.iter().filter_map(|item| match item {
            Endorsement::Rim(xml) => Some(&xml[..]),
            _ => None,
        })
    }

    pub(crate) fn ocsp_responses(&self) -> impl Iterator<Item = &[u8]> {
        self.items.iter().filter_map(|item| match item {
            Endorsement::OcspResponse(der) => Some(&der[..]),
            _ => None,
        })
    }

    pub(crate) fn event_logs(&self) -> impl Iterator<Item = &[u8]> {
        self.items.iter().filter_map(|item| match item {
            Endorsement::EventLog(log) => Some(&log[..]),
            _ => None,
        })
    }
}

impl Endorsement {
    /// What a file holds: one endorsement, or the certificates of a chain.
    ///
    /// # Errors
    /// If it is none that this verifier knows, or is longer than 1 MiB.
    pub fn sort(file: &[u8]) -> Result<Vec<Self>, Malformed> {
        if file.len() > MAX_FILE {
            return Err(Malformed::new(WHAT, format!("{} bytes, at most {MAX_FILE}", file.len())));
        }
        let text = file.trim_ascii_start();
        if text.starts_with(b"{") {
            return Ok(vec![Self::IntelCollateral(file.to_vec())]);
        }
        if text.starts_with(b"<") || text.starts_with(b"\xef\xbb\xbf<") {
            return Ok(vec![Self::Rim(file.to_vec())]);
        }
        if text.starts_with(b"-----BEGIN ") {
            return pem::blocks(text)?.into_iter().map(|block| Self::from_der(&block)).collect();
        }
        if file.starts_with(&[0x30]) {
            return Self::from_der(file).map(|item| vec![item]);
        }
        if is_event_log(file) {
            return Ok(vec![Self::EventLog(file.to_vec())]);
        }
        // Tools write a certificate's subject before its block (RFC 7468, 2: text outside is passed over).
        if has_pem_line(file) {
            return pem::blocks(file)?.into_iter().map(|block| Self::from_der(&block)).collect();
        }
        Err(Malformed::at(
            WHAT,
            0,
            "form",
            "neither JSON, a certificate, a CRL, a RIM, an OCSP response nor an event log",
        ))
    }

    fn from_der(der: &[u8]) -> Result<Self, Malformed> {
        let certificate = match Certificate::parse(der) {
            Ok(_) => return Ok(Self::Certificate(der.to_vec())),
            Err(error) => error,
        };
        if is_ocsp(der) {
            return Ok(Self::OcspResponse(der.to_vec()));
        }
        // Both errors are about the same bytes: the one that got further says more.
        match Crl::parse(der) {
            Ok(_) => Ok(Self::Crl(der.to_vec())),
            Err(crl) if crl.offset > certificate.offset => Err(crl),
            Err(_) => Err(certificate),
        }
    }
}

fn has_pem_line(file: &[u8]) -> bool {
    file.split(|byte| *byte == b'\n').any(|line| line.starts_with(b"-----BEGIN "))
}

/// The header event of a TCG log: register 0, EV_NO_ACTION, twenty zero bytes, and its signature behind the length.
fn is_event_log(file: &[u8]) -> bool {
    file.get(..8).is_some_and(|head| head[4..] == [3, 0, 0, 0])
        && file.get(32..47).is_some_and(|signature| signature == b"Spec ID Event03")
}

/// An OCSPResponse begins with its status, an ENUMERATED (RFC 6960, 4.2.1).
fn is_ocsp(der: &[u8]) -> bool {
    let mut outer = Reader::new(der, WHAT);
    outer
        .sequence("OCSP response")
        .is_ok_and(|mut inner| inner.expect(crate::der::tag::ENUMERATED, "status").is_ok())
}
