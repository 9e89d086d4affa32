//! The PCK certificate: what Intel certified about the platform (Intel SGX PCK Certificate and CRL Profile Specification,
//! "PCK Certificate", table of SGX extensions, OID 1.2.840.113741.1.13.1).

use crate::der::{Reader, tag};
use crate::x509::Certificate;
use crate::{Malformed, der::Element};

const WHAT: &str = "PCK certificate";

/// 1.2.840.113741.1.13.1.
pub(super) const SGX_EXTENSION: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf8, 0x4d, 0x01, 0x0d, 0x01];

/// What a PCK certificate says of its platform.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PckFacts {
    /// Provisioning id: names this very machine.
    pub(super) ppid: [u8; 16],
    /// SGX TCB components 01 to 16.
    pub(super) components: [u8; 16],
    /// Security version of the provisioning certification enclave.
    pub(super) pce_svn: u16,
    /// CPUSVN as the processor reports it.
    pub(super) cpu_svn: [u8; 16],
    pub(super) pce_id: [u8; 2],
    /// Family, model, stepping, platform, custom SKU.
    pub(super) fmspc: [u8; 6],
    pub(super) sgx_type: SgxType,
    /// Of platforms of several packages.
    pub(super) instance_id: Option<[u8; 16]>,
    pub(super) configuration: Configuration,
}

/// How SGX protects its memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SgxType {
    Standard,
    Scalable,
    ScalableWithIntegrity,
}

/// Of platforms of several packages; a field that is not there is not known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Configuration {
    /// Packages may be added.
    pub(super) dynamic_platform: Option<bool>,
    /// Intel's registration service holds the platform's root keys.
    pub(super) cached_keys: Option<bool>,
    /// Threads share cores.
    pub(super) smt: Option<bool>,
}

/// Which of Intel's authorities issued a PCK certificate, and so whose CRL can revoke it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PckCa {
    /// For platforms of one package.
    Processor,
    /// For platforms of several packages that were registered.
    Platform,
}

impl PckCa {
    /// `processor` or `platform`: the value of `ca` in Intel's PCS API ("Get PCK Cert CRL").
    pub fn name(self) -> &'static str {
        match self {
            Self::Processor => "processor",
            Self::Platform => "platform",
        }
    }

    /// By the authority's common name ("PCK Certificate", Issuer).
    pub(super) fn of_name(common_name: &str) -> Option<Self> {
        match common_name {
            name if name.ends_with(" SGX PCK Processor CA") => Some(Self::Processor),
            name if name.ends_with(" SGX PCK Platform CA") => Some(Self::Platform),
            _ => None,
        }
    }
}

type Read<T> = Result<T, Malformed>;

impl PckFacts {
    /// Reads the SGX extension. Numbers that Intel adds are passed over.
    pub(super) fn parse(certificate: &Certificate<'_>) -> Read<Self> {
        let value = certificate.extension(SGX_EXTENSION).ok_or_else(|| missing("SGX extension"))?;
        let mut f = Fields::default();
        members(&mut whole(value)?, &[], |number, value| match number {
            1 => once(&mut f.ppid, "PPID", || octets(value, "PPID")),
            2 => once(&mut f.tcb, "TCB", || Tcb::parse(value)),
            3 => once(&mut f.pce_id, "PCEID", || octets(value, "PCEID")),
            4 => once(&mut f.fmspc, "FMSPC", || octets(value, "FMSPC")),
            5 => once(&mut f.sgx_type, "SGX type", || sgx_type(value)),
            6 => once(&mut f.instance_id, "platform instance id", || octets(value, "platform instance id")),
            7 => once(&mut f.configuration, "configuration", || configuration(value)),
            _ => Ok(()),
        })?;
        let tcb = f.tcb.ok_or_else(|| missing("TCB"))?;
        Ok(Self {
            ppid: f.ppid.ok_or_else(|| missing("PPID"))?,
            components: tcb.components,
            pce_svn: tcb.pce_svn,
            cpu_svn: tcb.cpu_svn,
            pce_id: f.pce_id.ok_or_else(|| missing("PCEID"))?,
            fmspc: f.fmspc.ok_or_else(|| missing("FMSPC"))?,
            sgx_type: f.sgx_type.ok_or_else(|| missing("SGX type"))?,
            instance_id: f.instance_id,
            configuration: f.configuration.unwrap_or_default(),
        })
    }
}

impl std::fmt::Display for PckFacts {
    /// For people: what has no rule here, and an auditor may want to know.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self.sgx_type {
            SgxType::Standard => "standard SGX",
            SgxType::Scalable => "scalable SGX",
            SgxType::ScalableWithIntegrity => "scalable SGX with integrity",
        })?;
        write!(f, ", CPUSVN {}", hex::encode(self.cpu_svn))?;
        if let Some(instance) = self.instance_id {
            write!(f, ", platform instance {}", hex::encode(instance))?;
        }
        let Configuration { dynamic_platform, cached_keys, smt } = self.configuration;
        for (known, yes) in [
            (dynamic_platform, "packages may be added"),
            (cached_keys, "keys held by Intel's registration service"),
            (smt, "threads share cores"),
        ] {
            if known == Some(true) {
                write!(f, ", {yes}")?;
            }
        }
        Ok(())
    }
}

#[derive(Default)]
struct Fields {
    ppid: Option<[u8; 16]>,
    tcb: Option<Tcb>,
    pce_id: Option<[u8; 2]>,
    fmspc: Option<[u8; 6]>,
    sgx_type: Option<SgxType>,
    instance_id: Option<[u8; 16]>,
    configuration: Option<Configuration>,
}

struct Tcb {
    components: [u8; 16],
    pce_svn: u16,
    cpu_svn: [u8; 16],
}

impl Tcb {
    fn parse(value: Element<'_>) -> Read<Self> {
        let (mut components, mut pce_svn, mut cpu_svn) = ([None; 16], None, None);
        members(&mut sequence(value, "TCB")?, &[2], |number, value| match number {
            1..=16 => once(&mut components[usize::from(number) - 1], "TCB component", || {
                small(value, "TCB component")
            }),
            17 => once(&mut pce_svn, "PCESVN", || small(value, "PCESVN")),
            18 => once(&mut cpu_svn, "CPUSVN", || octets(value, "CPUSVN")),
            _ => Ok(()),
        })?;
        let mut all = [0; 16];
        for (slot, component) in all.iter_mut().zip(components) {
            *slot = component.ok_or_else(|| missing("TCB component"))?;
        }
        Ok(Self {
            components: all,
            pce_svn: pce_svn.ok_or_else(|| missing("PCESVN"))?,
            cpu_svn: cpu_svn.ok_or_else(|| missing("CPUSVN"))?,
        })
    }
}

fn configuration(value: Element<'_>) -> Read<Configuration> {
    let mut found = Configuration::default();
    members(&mut sequence(value, "configuration")?, &[7], |number, value| {
        let slot = match number {
            1 => &mut found.dynamic_platform,
            2 => &mut found.cached_keys,
            3 => &mut found.smt,
            _ => return Ok(()),
        };
        once(slot, "configuration", || Reader::new(value.raw, WHAT).boolean("configuration"))
    })?;
    Ok(found)
}

fn missing(field: &'static str) -> Malformed {
    Malformed { what: WHAT, offset: None, field, reason: "missing".into() }
}

fn whole(value: &[u8]) -> Read<Reader<'_>> {
    let mut outer = Reader::new(value, WHAT);
    let inner = outer.sequence("SGX extension")?;
    outer.end("SGX extension")?;
    Ok(inner)
}

fn sequence<'a>(value: Element<'a>, field: &'static str) -> Read<Reader<'a>> {
    Reader::new(value.raw, WHAT).sequence(field)
}

/// Pairs of object identifier and value. `member` is given the last number of those that stand directly under `path`.
fn members(
    list: &mut Reader<'_>,
    path: &[u8],
    mut member: impl FnMut(u8, Element<'_>) -> Read<()>,
) -> Read<()> {
    while !list.is_empty() {
        let mut pair = list.sequence("SGX extension's member")?;
        let oid = pair.oid("SGX extension's member")?;
        let value = pair.any("SGX extension's value")?;
        pair.end("SGX extension's value")?;
        if let Some([number]) = oid.strip_prefix(SGX_EXTENSION).and_then(|rest| rest.strip_prefix(path)) {
            member(*number, value)?;
        }
    }
    Ok(())
}

fn once<T>(slot: &mut Option<T>, field: &'static str, read: impl FnOnce() -> Read<T>) -> Read<()> {
    if slot.is_some() {
        return Err(Malformed { what: WHAT, offset: None, field, reason: "stands there twice".into() });
    }
    *slot = Some(read()?);
    Ok(())
}

fn octets<const N: usize>(value: Element<'_>, field: &'static str) -> Read<[u8; N]> {
    let bytes = Reader::new(value.raw, WHAT).octets(field)?;
    bytes.try_into().map_err(|_| wrong(field, format!("{} bytes, must be {N}", bytes.len())))
}

fn small<T: TryFrom<u64>>(value: Element<'_>, field: &'static str) -> Read<T> {
    let number = Reader::new(value.raw, WHAT).number(field)?;
    T::try_from(number).map_err(|_| wrong(field, format!("{number} is too large")))
}

fn sgx_type(value: Element<'_>) -> Read<SgxType> {
    match Reader::new(value.raw, WHAT).expect(tag::ENUMERATED, "SGX type")?.content {
        [0] => Ok(SgxType::Standard),
        [1] => Ok(SgxType::Scalable),
        [2] => Ok(SgxType::ScalableWithIntegrity),
        _ => Err(wrong("SGX type", "none of standard, scalable, scalable with integrity".into())),
    }
}

fn wrong(field: &'static str, reason: String) -> Malformed {
    Malformed { what: WHAT, offset: None, field, reason }
}
