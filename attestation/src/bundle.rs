//! The evidence bundle: a CMW collection (RFC 9999) in deterministic CBOR.
//!
//! A map of records `[media type, bytes]`, with the collection's type under `__cmwc_t`. GPU evidence and endorsements
//! may be several: they are nested collections with integer labels. Empty collections are left out.
//!
//! | label | media type | content |
//! | --- | --- | --- |
//! | `gpu` | collection of `application/vnd.cocoon.nvidia-spdm` | GPU evidence, see [`crate::GpuRecord`] |
//! | `quote` | `application/vnd.cocoon.tdx-quote`, `….snp-report` or `….azure-vtpm+json` | the CPU's evidence, unchanged |
//! | `__cmwc_t` | | `tag:cocoon.network,2026:evidence` |
//! | `event-log` | `application/vnd.cocoon.ccel` | event log, unchanged |
//! | `statement` | `application/vnd.cocoon.statement+cbor` | see [`crate::statement`] |
//! | `endorsements` | collection of `application/vnd.cocoon.intel-collateral+json` (canonical), `application/pkix-cert`, `application/pkix-crl`, `application/swid+xml` (RIM), `application/ocsp-response` | see [`crate::Endorsement`] |
//!
//! There is one encoding of a bundle: decoding refuses all others.

use std::collections::BTreeMap;

use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{Endorsement, Malformed};

/// The largest bundle, in bytes.
pub const MAX_BUNDLE: usize = 1024 * 1024;
/// Most records in a nested collection.
pub const MAX_RECORDS: usize = 64;

const WHAT: &str = "bundle";
const COLLECTION: &str = "tag:cocoon.network,2026:evidence";
const STATEMENT: &str = "application/vnd.cocoon.statement+cbor";
const GPU: &str = "application/vnd.cocoon.nvidia-spdm";
const EVENT_LOG: &str = "application/vnd.cocoon.ccel";

/// The CPU that made a bundle's evidence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tee {
    /// Intel TDX: a quote.
    Tdx,
    /// AMD SEV-SNP: a report.
    Snp,
    /// Azure's paravisor on either of them: vTPM evidence as JSON.
    Azure,
}

impl Tee {
    const ALL: [Self; 3] = [Self::Tdx, Self::Snp, Self::Azure];

    fn media_type(self) -> &'static str {
        match self {
            Self::Tdx => "application/vnd.cocoon.tdx-quote",
            Self::Snp => "application/vnd.cocoon.snp-report",
            Self::Azure => "application/vnd.cocoon.azure-vtpm+json",
        }
    }
}

impl Endorsement {
    fn media_type(&self) -> &'static str {
        match self {
            Self::IntelCollateral(_) => "application/vnd.cocoon.intel-collateral+json",
            Self::Certificate(_) => "application/pkix-cert",
            Self::Crl(_) => "application/pkix-crl",
            Self::Rim(_) => "application/swid+xml",
            Self::OcspResponse(_) => "application/ocsp-response",
            Self::EventLog(_) => EVENT_LOG,
        }
    }

    fn bytes(&self) -> &[u8] {
        let (Self::IntelCollateral(bytes)
        | Self::Certificate(bytes)
        | Self::Crl(bytes)
        | Self::Rim(bytes)
        | Self::OcspResponse(bytes)
        | Self::EventLog(bytes)) = self;
        bytes
    }

    /// By its media type. An event log has a place of its own in a bundle, and is none of these.
    fn of_record(Record(kind, ByteString(bytes)): Record) -> Result<Self, Malformed> {
        let forms = [Self::IntelCollateral, Self::Certificate, Self::Crl, Self::Rim, Self::OcspResponse];
        let found = forms.into_iter().find(|form| form(Vec::new()).media_type() == kind);
        found
            .map(|form| form(bytes))
            .ok_or_else(|| Malformed::new(WHAT, format!("an endorsement of type {kind:?}")))
    }
}

/// Native evidence with everything needed to verify it offline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bundle {
    /// The encoded [`crate::Statement`].
    pub statement: Vec<u8>,
    /// Which CPU made the quote.
    pub tee: Tee,
    /// The CPU's quote or report, as it gave it.
    pub quote: Vec<u8>,
    /// GPU evidence records.
    pub gpu: Vec<Vec<u8>>,
    /// The event log.
    pub event_log: Option<Vec<u8>>,
    /// What vendors say about the platform; Intel's collateral in its canonical form. No event logs.
    pub endorsements: Vec<Endorsement>,
}

impl Bundle {
    /// The one encoding.
    pub fn encode(&self) -> Vec<u8> {
        let record = |kind: &str, value: &[u8]| Record(kind.to_owned(), ByteString(value.to_vec()));
        let wire = Wire {
            gpu: labelled(self.gpu.iter().map(|gpu| record(GPU, gpu))),
            quote: record(self.tee.media_type(), &self.quote),
            kind: COLLECTION.to_owned(),
            event_log: self.event_log.as_ref().map(|log| record(EVENT_LOG, log)),
            statement: record(STATEMENT, &self.statement),
            endorsements: labelled(
                self.endorsements.iter().map(|item| record(item.media_type(), item.bytes())),
            ),
        };
        serde_cbor::to_vec(&wire).expect("plain values always encode")
    }

    /// Parses the one encoding a bundle has. The contents of the records are not looked at.
    ///
    /// # Errors
    /// If the bytes are not exactly what [`Bundle::encode`] gives, or exceed a limit.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        if bytes.len() > MAX_BUNDLE {
            return Err(Malformed::new(WHAT, format!("{} bytes, at most {MAX_BUNDLE}", bytes.len())));
        }
        let wire: Wire = serde_cbor::from_slice(bytes)
            .map_err(|e| Malformed::new(WHAT, format!("not a CMW collection of evidence: {e}")))?;
        if wire.kind != COLLECTION {
            return Err(Malformed::new(WHAT, format!("collection type is not {COLLECTION}")));
        }
        let tee = Tee::ALL.into_iter().find(|tee| tee.media_type() == wire.quote.0);
        let bundle = Self {
            statement: wire.statement.of_kind(STATEMENT)?,
            tee: tee.ok_or_else(|| Malformed::new(WHAT, format!("a quote of type {:?}", wire.quote.0)))?,
            quote: wire.quote.1.0,
            gpu: records(wire.gpu, |record| record.of_kind(GPU))?,
            event_log: wire.event_log.map(|log| log.of_kind(EVENT_LOG)).transpose()?,
            endorsements: records(wire.endorsements, Endorsement::of_record)?,
        };
        if bundle.encode() != bytes {
            return Err(Malformed::new(WHAT, "not the deterministic encoding"));
        }
        Ok(bundle)
    }
}

/// Does this look like our collection, or one that claims to be? It may still not decode.
pub(crate) fn is_ours(cbor: &[u8]) -> bool {
    let label = COLLECTION.as_bytes();
    matches!(cbor.first(), Some(0xa0..=0xb7)) && cbor.windows(label.len()).any(|window| window == label)
}

fn labelled(records: impl Iterator<Item = Record>) -> BTreeMap<u32, Record> {
    (0..).zip(records).collect()
}

fn records<T>(
    collection: BTreeMap<u32, Record>,
    read: impl Fn(Record) -> Result<T, Malformed>,
) -> Result<Vec<T>, Malformed> {
    if collection.len() > MAX_RECORDS {
        return Err(Malformed::new(WHAT, format!("{} records, at most {MAX_RECORDS}", collection.len())));
    }
    collection.into_values().map(read).collect()
}

// Fields in the order of deterministic CBOR: by encoded length of the label, then by its bytes.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire {
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    gpu: BTreeMap<u32, Record>,
    quote: Record,
    #[serde(rename = "__cmwc_t")]
    kind: String,
    #[serde(rename = "event-log", default, skip_serializing_if = "Option::is_none")]
    event_log: Option<Record>,
    statement: Record,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    endorsements: BTreeMap<u32, Record>,
}

#[derive(Serialize, Deserialize)]
struct Record(String, ByteString);

impl Record {
    fn of_kind(self, kind: &str) -> Result<Vec<u8>, Malformed> {
        if self.0 == kind {
            Ok(self.1.0)
        } else {
            Err(Malformed::new(WHAT, format!("a record is not {kind}")))
        }
    }
}

/// A CBOR byte string.
pub(crate) struct ByteString(pub(crate) Vec<u8>);

/// A CBOR byte string of exactly `N` bytes.
pub(crate) struct Fixed<const N: usize>(pub(crate) [u8; N]);

impl Serialize for ByteString {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<const N: usize> Serialize for Fixed<N> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for ByteString {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bytes;
        impl Visitor<'_> for Bytes {
            type Value = ByteString;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a byte string")
            }
            fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<ByteString, E> {
                Ok(ByteString(bytes.to_vec()))
            }
        }
        deserializer.deserialize_bytes(Bytes)
    }
}

impl<'de, const N: usize> Deserialize<'de> for Fixed<N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let ByteString(bytes) = ByteString::deserialize(deserializer)?;
        let length = bytes.len();
        bytes
            .try_into()
            .map(Fixed)
            .map_err(|_| D::Error::invalid_length(length, &"a digest or key of fixed length"))
    }
}
