//! OCSP responses (RFC 6960), as far as they are needed to learn that a device was revoked.
//!
//! A device's certificates run to the year 9999, so nothing else tells. `certificateHold` counts as revoked: a device on
//! hold is one that NVIDIA does not vouch for.

use super::chain::Chain;
use crate::crypto::{sha1, sha256, sha384};
use crate::der::{Reader, tag};
use crate::x509::{Certificate, DIGITAL_SIGNATURE, extensions, oid, time};
use crate::{Malformed, RefusalKind, UnixTime};

const WHAT: &str = "OCSP response";
/// The largest response, in bytes.
const MAX_RESPONSE: usize = 64 * 1024;
/// Most certificates that one response speaks of.
const MAX_SINGLES: usize = 64;
/// Most certificates beside a response.
const MAX_CERTIFICATES: usize = 8;

/// id-pkix-ocsp-basic, 1.3.6.1.5.5.7.48.1.1.
const BASIC: &[u8] = &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x30, 0x01, 0x01];
/// id-kp-OCSPSigning, 1.3.6.1.5.5.7.3.9.
const OCSP_SIGNING: &[u8] = &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x09];

/// All responses that were handed over.
#[derive(Debug)]
pub(super) struct Responses<'a> {
    responses: Vec<Response<'a>>,
    /// The first that cannot be read.
    pub(super) unreadable: Option<Malformed>,
}

/// A response taken apart. Nothing in it is believed yet.
#[derive(Debug)]
struct Response<'a> {
    responder: Responder<'a>,
    singles: Vec<Single<'a>>,
    certificates: Vec<Certificate<'a>>,
    signed: &'a [u8],
    algorithm: &'a [u8],
    signature: &'a [u8],
}

#[derive(Debug)]
enum Responder<'a> {
    Name(&'a [u8]),
    /// SHA-1 of its key.
    Key(&'a [u8]),
}

/// What is said of one certificate.
#[derive(Debug)]
struct Single<'a> {
    hash: &'a [u8],
    issuer_name: &'a [u8],
    issuer_key: &'a [u8],
    serial: &'a [u8],
    status: Status,
    this_update: UnixTime,
    next_update: Option<UnixTime>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Status {
    Good,
    /// When, and the reason's number (RFC 5280, 5.3.1).
    Revoked(UnixTime, u64),
    Unknown,
}

/// What the responses say of a certificate: good until then, or why not.
pub(super) type Answer = Result<UnixTime, (RefusalKind, String)>;

impl<'a> Responses<'a> {
    pub(super) fn read(responses: impl Iterator<Item = &'a [u8]>) -> Self {
        let mut all = Self { responses: Vec::new(), unreadable: None };
        for der in responses {
            match Response::parse(der) {
                Ok(response) => all.responses.push(response),
                Err(error) => all.unreadable = all.unreadable.or(Some(error)),
            }
        }
        all
    }

    /// None were handed over.
    pub(super) fn none(&self) -> bool {
        self.responses.is_empty() && self.unreadable.is_none()
    }

    /// What is said of this certificate: a revocation counts whatever else is said. `None`: nothing.
    pub(super) fn about(
        &self,
        certificate: &Certificate<'_>,
        issuer: &Certificate<'_>,
        now: UnixTime,
    ) -> Option<Answer> {
        let (mut good, mut fault, mut revoked): (Option<UnixTime>, _, _) = (None, None, None);
        for response in &self.responses {
            for single in response.singles.iter().filter(|single| single.names(certificate, issuer)) {
                match response.says(single, issuer, now) {
                    Ok(until) => good = good.max(Some(until)),
                    Err(why @ (RefusalKind::Rejected, _)) => revoked = revoked.or(Some(why)),
                    Err(why) => fault = fault.or(Some(why)),
                }
            }
        }
        match (revoked, good) {
            (Some(why), _) => Some(Err(why)),
            (None, Some(until)) => Some(Ok(until)),
            (None, None) => fault.map(Err),
        }
    }

    /// The first certificate of a chain that a response speaks against.
    pub(super) fn first_fault(&self, chain: &Chain<'_>, now: UnixTime) -> Option<(RefusalKind, String)> {
        chain.certificates().windows(2).find_map(|pair| self.about(&pair[0], &pair[1], now)?.err())
    }
}

impl<'a> Response<'a> {
    /// RFC 6960, 4.2.1.
    fn parse(der: &'a [u8]) -> Result<Self, Malformed> {
        if der.len() > MAX_RESPONSE {
            let reason = format!("{} bytes, at most {MAX_RESPONSE}", der.len());
            return Err(Malformed::at(WHAT, 0, "length", reason));
        }
        let mut file = Reader::new(der, WHAT);
        let mut outer = file.sequence("OCSPResponse")?;
        file.end("OCSPResponse")?;
        let status = outer.expect(tag::ENUMERATED, "responseStatus")?.content;
        if status != [0] {
            let reason = format!("the responder gave no answer: status {}", hex::encode(status));
            return Err(Malformed::at(WHAT, 0, "responseStatus", reason));
        }
        let mut bytes =
            outer.expect(tag::context(0), "responseBytes")?.reader(WHAT).sequence("responseBytes")?;
        outer.end("OCSPResponse")?;
        if bytes.oid("responseType")? != BASIC {
            return Err(Malformed::at(WHAT, 0, "responseType", "not a basic response"));
        }
        let basic = bytes.octets("response")?;
        bytes.end("responseBytes")?;
        Self::basic(basic)
    }

    fn basic(der: &'a [u8]) -> Result<Self, Malformed> {
        let mut file = Reader::new(der, WHAT);
        let mut basic = file.sequence("BasicOCSPResponse")?;
        file.end("BasicOCSPResponse")?;
        let data = basic.expect(tag::SEQUENCE, "tbsResponseData")?;
        let algorithm = basic.expect(tag::SEQUENCE, "signatureAlgorithm")?.raw;
        let signature = basic.bits("signature")?;
        let mut certificates = Vec::new();
        if let Some(list) = basic.optional(tag::context(0), "certs")? {
            let mut list = list.reader(WHAT).sequence("certs")?;
            while !list.is_empty() {
                certificates.push(Certificate::parse(list.expect(tag::SEQUENCE, "certificate")?.raw)?);
                limit(certificates.len(), MAX_CERTIFICATES)?;
            }
        }
        basic.end("BasicOCSPResponse")?;
        let (responder, singles) = response_data(data.reader(WHAT))?;
        Ok(Self { responder, singles, certificates, signed: data.raw, algorithm, signature })
    }

    /// The status, if an authorized responder (RFC 6960, 4.2.2.2) says so for this time.
    fn says(&self, single: &Single<'_>, issuer: &Certificate<'_>, now: UnixTime) -> Answer {
        let authorized = |signer: &Certificate<'_>| {
            self.responder.is(signer) && signer.holds(self.algorithm, self.signed, self.signature)
        };
        let delegated = self
            .certificates
            .iter()
            .any(|signer| may_answer(signer, now) && authorized(signer) && issuer.issue(signer).is_ok());
        if !delegated && !authorized(issuer) {
            let why = "no responder of the certificate's own issuer signed it";
            return Err((RefusalKind::Signature, why.into()));
        }
        let until = single.next_update.filter(|until| single.this_update <= now && now <= *until);
        match (single.status, until) {
            (Status::Revoked(at, 6), _) => Err((RefusalKind::Rejected, format!("on hold since {at}"))),
            (Status::Revoked(at, reason), _) => {
                Err((RefusalKind::Rejected, format!("revoked at {at} for reason {reason}")))
            }
            (_, None) => {
                let next = single.next_update.map_or("no end".to_owned(), |next| next.to_string());
                Err((
                    RefusalKind::Unavailable,
                    format!("its answer is for {} to {next}, not for {now}", single.this_update),
                ))
            }
            (Status::Unknown, _) => {
                Err((RefusalKind::Rejected, "the responder does not know the certificate".into()))
            }
            (Status::Good, Some(until)) => Ok(until),
        }
    }
}

/// A delegated responder: made for this purpose, and in date. (Responders' own certificates are not asked about.)
fn may_answer(signer: &Certificate<'_>, now: UnixTime) -> bool {
    let made_for_it = || {
        let mut purposes =
            Reader::new(signer.extension(oid::EXTENDED_KEY_USAGE)?, WHAT).sequence("EKU").ok()?;
        while !purposes.is_empty() {
            if purposes.oid("purpose").ok()? == OCSP_SIGNING {
                return Some(());
            }
        }
        None
    };
    signer.in_date(now) && signer.key_usage_allows(DIGITAL_SIGNATURE) && made_for_it().is_some()
}

impl Responder<'_> {
    fn is(&self, signer: &Certificate<'_>) -> bool {
        match self {
            Self::Name(name) => *name == signer.subject,
            Self::Key(hash) => *hash == sha1(&[signer.key.bytes()]),
        }
    }
}

impl Single<'_> {
    /// Is it about this certificate? The hashes name the issuer; its signature proves it.
    fn names(&self, certificate: &Certificate<'_>, issuer: &Certificate<'_>) -> bool {
        const SHA1: &[u8] = &[0x2b, 0x0e, 0x03, 0x02, 0x1a];
        const SHA256: &[u8] = &[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01];
        const SHA384: &[u8] = &[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x02];
        let same = |hashed: &[u8], bytes: &[u8]| match self.hash {
            SHA1 => hashed == sha1(&[bytes]),
            SHA256 => hashed == sha256(&[bytes]),
            SHA384 => hashed == sha384(&[bytes]),
            _ => false,
        };
        self.serial == certificate.serial
            && same(self.issuer_name, issuer.subject)
            && same(self.issuer_key, issuer.key.bytes())
    }
}

/// From when until when a response speaks of the certificate that the request names (RFC 6960, 4.1.1: CertID). No signature
/// is looked at.
pub(super) fn answers(request: &[u8], response: &[u8]) -> Result<(UnixTime, UnixTime), Malformed> {
    let asked = cert_id(request)?;
    let response = Response::parse(response)?;
    let mut about = response
        .singles
        .iter()
        .filter(|single| (single.hash, single.issuer_name, single.issuer_key, single.serial) == asked);
    let single = about.next().ok_or_else(|| Malformed::new(WHAT, "it speaks of another certificate"))?;
    let until = single.next_update.ok_or_else(|| Malformed::new(WHAT, "it has no nextUpdate"))?;
    Ok((single.this_update, until))
}

type CertId<'a> = (&'a [u8], &'a [u8], &'a [u8], &'a [u8]);

/// Hash algorithm, issuer's name and key, serial number of the first certificate in a request.
fn cert_id(request: &[u8]) -> Result<CertId<'_>, Malformed> {
    let mut reader = Reader::new(request, "OCSP request");
    for field in ["OCSPRequest", "tbsRequest", "requestList", "Request", "reqCert"] {
        reader = reader.sequence(field)?;
    }
    let hash = reader.sequence("hashAlgorithm")?.oid("hashAlgorithm")?;
    let (name, key) = (reader.octets("issuerNameHash")?, reader.octets("issuerKeyHash")?);
    Ok((hash, name, key, reader.unsigned("serialNumber")?))
}

fn limit(count: usize, most: usize) -> Result<(), Malformed> {
    if count <= most { Ok(()) } else { Err(Malformed::new(WHAT, format!("more than {most} entries"))) }
}

fn response_data<'a>(mut data: Reader<'a>) -> Result<(Responder<'a>, Vec<Single<'a>>), Malformed> {
    if let Some(version) = data.optional(tag::context(0), "version")?
        && version.reader(WHAT).number("version")? != 0
    {
        return Err(Malformed::at(WHAT, 0, "version", "not version 1"));
    }
    let responder = match data.optional(tag::context(1), "byName")? {
        Some(name) => Responder::Name(name.content),
        None => Responder::Key(data.expect(tag::context(2), "byKey")?.reader(WHAT).octets("byKey")?),
    };
    time(&mut data, "producedAt")?;
    let mut list = data.sequence("responses")?;
    let mut singles = Vec::new();
    while !list.is_empty() {
        singles.push(single(list.sequence("singleResponse")?)?);
        limit(singles.len(), MAX_SINGLES)?;
    }
    no_critical(data.optional(tag::context(1), "responseExtensions")?)?;
    data.end("tbsResponseData")?;
    Ok((responder, singles))
}

fn single<'a>(mut single: Reader<'a>) -> Result<Single<'a>, Malformed> {
    let mut id = single.sequence("certID")?;
    let hash = id.sequence("hashAlgorithm")?.oid("hashAlgorithm")?;
    let (issuer_name, issuer_key) = (id.octets("issuerNameHash")?, id.octets("issuerKeyHash")?);
    let serial = id.unsigned("serialNumber")?;
    id.end("certID")?;
    let status = single.any("certStatus")?;
    let status = match (status.tag, status.content) {
        (0x80, []) => Status::Good,
        (0x82, []) => Status::Unknown,
        (0xa1, _) => {
            let mut info = status.reader(WHAT);
            let at = time(&mut info, "revocationTime")?;
            let reason = match info.optional(tag::context(0), "revocationReason")? {
                Some(reason) => match reason.reader(WHAT).expect(tag::ENUMERATED, "reason")?.content {
                    [reason] => u64::from(*reason),
                    _ => return Err(Malformed::at(WHAT, 0, "revocationReason", "not one byte")),
                },
                None => 0,
            };
            info.end("revokedInfo")?;
            Status::Revoked(at, reason)
        }
        (tag, _) => return Err(Malformed::at(WHAT, 0, "certStatus", format!("tag {tag:#04x}"))),
    };
    let this_update = time(&mut single, "thisUpdate")?;
    let next_update = match single.optional(tag::context(0), "nextUpdate")? {
        Some(next) => Some(time(&mut next.reader(WHAT), "nextUpdate")?),
        None => None,
    };
    no_critical(single.optional(tag::context(1), "singleExtensions")?)?;
    single.end("singleResponse")?;
    Ok(Single { hash, issuer_name, issuer_key, serial, status, this_update, next_update })
}

/// A critical extension would change what the response means (RFC 6960, 4.4).
fn no_critical(list: Option<crate::der::Element<'_>>) -> Result<(), Malformed> {
    let Some(list) = list else { return Ok(()) };
    if extensions(list.reader(WHAT))?.iter().any(|extension| extension.critical) {
        return Err(Malformed::at(WHAT, 0, "extensions", "a critical extension that is not known"));
    }
    Ok(())
}
