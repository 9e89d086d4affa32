//! Reference integrity manifests: the measurements that NVIDIA says a driver or a VBIOS has.
//!
//! A RIM does not name the board it is for, only chip and version: which of NVIDIA's RIM ids it was published under cannot
//! be told from its bytes. Kind and version are compared here, and the measurements say the rest.

mod c14n;
mod signature;
mod swid;
mod xml;

use std::borrow::Cow;
use std::collections::BTreeMap;

use self::signature::Signature;
use self::swid::Swid;
use self::xml::Document;
use super::architecture::Architecture;
use super::chain::{Chain, KnownLinks};
use super::ocsp::Responses;
use super::shown::RimWords;
use crate::anchors::NVIDIA_RIM_ROOT;
use crate::x509::Certificate;
use crate::{Malformed, RefusalKind, TrustAnchors, UnixTime};

/// Which part of a device a RIM is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Driver,
    Vbios,
}

/// What RIMs are judged with.
pub(super) struct Judge<'a> {
    pub(super) anchors: &'a TrustAnchors,
    pub(super) now: UnixTime,
    pub(super) responses: &'a Responses<'a>,
}

/// All RIMs that were handed over; each is verified once, however many devices need it.
pub(super) struct Library<'a> {
    rims: Vec<Rim<'a>>,
    /// The first that cannot be read.
    pub(super) unreadable: Option<Malformed>,
}

struct Rim<'a> {
    document: Document<'a>,
    swid: Swid,
    signature: Signature,
    verdict: Option<Result<Vouched, Fault>>,
}

/// What a RIM's chain says of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Vouched {
    pub(super) simulated: bool,
    pub(super) good_until: UnixTime,
}

/// Values that an active index may have; indices count from 0.
pub(super) type Golden = BTreeMap<u8, Vec<Vec<u8>>>;

/// A RIM that was found for a version, and holds.
pub(super) struct Found<'l> {
    pub(super) vouched: Vouched,
    pub(super) golden: &'l Golden,
}

/// Why a RIM is not believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) kind: RefusalKind,
    pub(super) got: String,
}

impl Kind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Driver => "driver",
            Self::Vbios => "VBIOS",
        }
    }

    /// A VBIOS version is five pairs of hex digits; a driver version is two or three numbers.
    fn of(version: &str) -> Self {
        let pair = |part: &str| part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_hexdigit());
        let parts: Vec<&str> = version.split('.').collect();
        if parts.len() == 5 && parts.into_iter().all(pair) { Self::Vbios } else { Self::Driver }
    }
}

/// The text of every RIM, from which a [`Library`] is read.
pub(super) fn texts<'a>(rims: impl Iterator<Item = &'a [u8]>) -> Vec<Result<Cow<'a, str>, Malformed>> {
    rims.map(xml::line_ends).collect()
}

/// What a RIM says of itself, without believing it.
pub(super) fn words(xml: &[u8]) -> Result<RimWords, Malformed> {
    let text = xml::line_ends(xml)?;
    let Rim { swid, signature, .. } = Rim::read(&text)?;
    Ok(RimWords {
        kind: Kind::of(&swid.version).name(),
        product: swid.product,
        version: swid.version,
        measurements: swid.golden.len(),
        certificates: signature.certificates,
    })
}

impl<'a> Library<'a> {
    pub(super) fn read(texts: &'a [Result<Cow<'a, str>, Malformed>]) -> Self {
        let mut library = Self { rims: Vec::new(), unreadable: None };
        for text in texts {
            match text.as_deref().map_err(Malformed::clone).and_then(Rim::read) {
                Ok(rim) => library.rims.push(rim),
                Err(error) => library.unreadable = library.unreadable.or(Some(error)),
            }
        }
        library
    }

    /// The RIM of this kind and version for this architecture: of several (boards of other kinds share versions), one
    /// whose values `equal` the report's, if there is one. `Ok(None)`: none of the kind was handed over at all.
    pub(super) fn find(
        &mut self,
        kind: Kind,
        version: &str,
        architecture: Architecture,
        judge: &Judge<'_>,
        known: &mut KnownLinks,
        equal: impl Fn(&Golden) -> bool,
    ) -> Result<Option<Found<'_>>, Fault> {
        let of_kind = |rim: &&Rim<'_>| Kind::of(&rim.swid.version) == kind;
        let given: Vec<String> = self.rims.iter().filter(of_kind).map(Rim::about).collect();
        let (mut first_fault, mut good) = (None, Vec::new());
        for (at, rim) in self.rims.iter_mut().enumerate().filter(|(_, rim)| rim.fits(version, architecture)) {
            match rim.judged(judge, known) {
                Ok(vouched) => good.push((at, vouched)),
                Err(fault) => first_fault = first_fault.or(Some(fault)),
            }
        }
        let equals = good.iter().find(|(at, _)| equal(&self.rims[*at].swid.golden));
        match (equals.or(good.first()), first_fault) {
            (Some((at, vouched)), _) => {
                Ok(Some(Found { vouched: *vouched, golden: &self.rims[*at].swid.golden }))
            }
            (None, Some(fault)) => Err(fault),
            (None, None) if given.is_empty() => Ok(None),
            (None, None) => Err(Fault {
                kind: RefusalKind::Rejected,
                got: format!("RIMs for {}, none for {version}", given.join(", ")),
            }),
        }
    }
}

impl Library<'_> {
    /// Chains, from the signer up, of the RIMs of this version. Nothing is verified.
    pub(super) fn signers_of(&self, version: &str, architecture: Architecture) -> Vec<Chain<'_>> {
        self.rims.iter().filter(|rim| rim.fits(version, architecture)).filter_map(Rim::chain).collect()
    }

    /// The version of the one RIM there is.
    pub(super) fn version_of_only(&self) -> Option<&str> {
        match &self.rims[..] {
            [rim] => Some(&rim.swid.version),
            _ => None,
        }
    }
}

impl<'a> Rim<'a> {
    fn fits(&self, version: &str, architecture: Architecture) -> bool {
        self.swid.version.eq_ignore_ascii_case(version)
            && Architecture::of_chip(&self.swid.product).is_none_or(|chip| chip == architecture)
    }

    /// From the signer as far up as its certificates go; `None` if one cannot be read.
    fn chain(&self) -> Option<Chain<'_>> {
        let parsed = self.signature.certificates.iter().map(|der| Certificate::parse(der));
        let pool: Vec<_> = parsed.collect::<Result<_, _>>().ok()?;
        Some(Chain::follow(pool.first()?, &pool))
    }

    fn read(text: &'a str) -> Result<Self, Malformed> {
        let document = Document::parse(text)?;
        let (swid, signature) = (Swid::of(&document)?, Signature::of(&document)?);
        Ok(Self { document, swid, signature, verdict: None })
    }

    fn about(&self) -> String {
        format!("{} {}", self.swid.product, self.swid.version).escape_debug().to_string()
    }

    fn judged(&mut self, judge: &Judge<'_>, known: &mut KnownLinks) -> Result<Vouched, Fault> {
        if self.verdict.is_none() {
            self.verdict = Some(self.verify(judge, known));
        }
        self.verdict.clone().expect("it was just made")
    }

    /// Signature, chain to the RIM root, dates, and revocation where a response says something.
    fn verify(&self, judge: &Judge<'_>, known: &mut KnownLinks) -> Result<Vouched, Fault> {
        let fault = |kind, got: String| Fault { kind, got: format!("{}: {got}", self.about()) };
        let malformed = |error: Malformed| fault(RefusalKind::Malformed, error.to_string());
        let pool: Vec<Certificate<'_>> = self
            .signature
            .certificates
            .iter()
            .map(|der| Certificate::parse(der))
            .collect::<Result<_, _>>()
            .map_err(malformed)?;
        let signer = pool.first().expect("a signature is read with at least one certificate");
        if !self.signature.holds(&self.document, signer) {
            return Err(fault(RefusalKind::Signature, "its XML signature does not hold".into()));
        }
        let chain = Chain::follow(signer, &pool);
        let anchor = judge.anchors.find(NVIDIA_RIM_ROOT, chain.root().raw);
        let anchor = anchor.filter(|_| chain.certificates().len() == pool.len()).ok_or_else(|| {
            let root = chain.root().common_name();
            fault(
                RefusalKind::Signature,
                format!("its chain does not end in NVIDIA's RIM root, but in {root:?}"),
            )
        })?;
        chain.holds(known).map_err(|broken| fault(RefusalKind::Signature, format!("its chain: {broken}")))?;
        if let Some((at, certificate)) = chain.out_of_date(judge.now) {
            let (from, until) = certificate.validity;
            return Err(fault(
                RefusalKind::Unavailable,
                format!("its certificate {} is valid from {from} to {until}", at + 1),
            ));
        }
        let revoked = judge.responses.first_fault(&chain, judge.now);
        if let Some((kind, got)) = revoked {
            return Err(fault(kind, got));
        }
        Ok(Vouched { simulated: anchor.simulated, good_until: chain.good_until() })
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// Every RIM that NVIDIA published and was gathered, whatever device it is for. The reference values of a whole RIM's
    /// verdict are its name: the one whose signature does not hold says so.
    #[test]
    fn gathered_rims_hold_unless_their_name_says_otherwise() {
        let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/vectors");
        let folder = std::env::var_os("COCOON_VECTORS").map_or(beside, Into::into).join("nvidia");
        let Ok(files) = std::fs::read_dir(&folder) else {
            eprintln!("vectors not found at {}, nothing was checked", folder.display());
            return;
        };
        let anchors = TrustAnchors::hardware();
        let responses = Responses::read([].into_iter());
        let judge = Judge { anchors: &anchors, now: UnixTime(1_700_000_000), responses: &responses };
        let mut held = 0;
        for file in files.map(|file| file.expect("a file")) {
            let name = file.file_name().to_string_lossy().into_owned();
            if !name.contains("rim_") {
                continue;
            }
            let bytes = std::fs::read(file.path()).expect("it is readable");
            let text = xml::line_ends(&bytes).expect("UTF-8");
            let verdict = Rim::read(&text).expect("a RIM").verify(&judge, &mut KnownLinks::default());
            match verdict {
                Ok(_) => held += 1,
                Err(fault) => {
                    let forged = fault.got.contains("XML signature does not hold");
                    assert!(forged && name.contains("mismatch"), "{name}: {fault:?}");
                }
            }
        }
        assert!(held >= 20, "{held} RIMs hold");
    }

    #[test]
    fn versions_of_drivers_and_vbios_are_told_apart() {
        for (version, kind) in [
            ("96.00.9F.00.01", Kind::Vbios),
            ("97.10.64.00.1e", Kind::Vbios),
            ("550.90.07", Kind::Driver),
            ("590.12", Kind::Driver),
            ("96.00.9F.00", Kind::Driver),
        ] {
            assert_eq!(Kind::of(version), kind, "{version}");
        }
    }
}
