//! TCB info and QE identity: what Intel publishes as signed JSON (Intel PCS API v4, "Get TDX TCB Info", "Get SGX TCB Info",
//! "Enclave Identity V2"), read into what the rules need.
//!
//! Fields that Intel adds are passed over; a field that is read here stands there once and has exactly its form.

use std::cmp::Reverse;
use std::ops::RangeInclusive;

use super::status::TcbStatus;
use crate::json::Reader;
use crate::{Malformed, UnixTime};

/// Most TCB levels, module identities and advisories of one entry. Intel's longest list has 20.
const MAX_ENTRIES: usize = 256;
/// Longest advisory name, in bytes.
const MAX_ADVISORY: usize = 64;

type Read<T> = Result<T, Malformed>;

/// When a signed thing holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Dates {
    pub(crate) from: UnixTime,
    pub(crate) until: UnixTime,
}

impl Dates {
    pub(crate) fn contain(&self, now: UnixTime) -> bool {
        self.from <= now && now <= self.until
    }
}

/// The TCB of a platform family: versions 2 (SGX) and 3 (SGX and TDX).
#[derive(Debug)]
pub(super) struct TcbInfo {
    /// `SGX` or `TDX`; version 2 has none, and is SGX's.
    pub(super) id: Option<String>,
    pub(super) version: u32,
    pub(super) dates: Dates,
    pub(super) fmspc: [u8; 6],
    pub(super) pce_id: [u8; 2],
    /// How CPUSVN is composed; 0 is the only way there is.
    pub(super) tcb_type: u32,
    pub(super) evaluation_number: u32,
    /// The highest first: see [`TcbInfo::parse`].
    pub(super) levels: Vec<TcbLevel>,
    /// Of modules whose version is 0.
    pub(super) module: Option<TdxModule>,
    pub(super) module_identities: Vec<ModuleIdentity>,
}

/// One line of the table that a platform is held against.
#[derive(Debug)]
pub(super) struct TcbLevel {
    /// By the components of CPUSVN.
    pub(super) sgx: [u8; 16],
    pub(super) pce_svn: u16,
    /// By TEE_TCB_SVN; SGX has none.
    pub(super) tdx: Option<[u8; 16]>,
    pub(super) verdict: Verdict,
}

/// What a level says of those who meet it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) status: TcbStatus,
    pub(super) advisories: Vec<String>,
}

/// Who signed the TDX module, and its attributes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TdxModule {
    pub(super) mrsigner: [u8; 48],
    pub(super) attributes: [u8; 8],
    pub(super) attributes_mask: [u8; 8],
}

/// A TDX module by its version: `TDX_01`, `TDX_03`.
#[derive(Debug)]
pub(super) struct ModuleIdentity {
    pub(super) id: String,
    pub(super) module: TdxModule,
    /// Highest ISVSVN first.
    pub(super) levels: Vec<SvnLevel>,
}

/// A level by ISVSVN alone: of a module, or of a quoting enclave.
#[derive(Debug)]
pub(super) struct SvnLevel {
    pub(super) isv_svn: u16,
    pub(super) verdict: Verdict,
}

/// What a quoting enclave must be.
#[derive(Debug)]
pub(super) struct QeIdentity {
    /// `QE` or `TD_QE`.
    pub(super) id: String,
    pub(super) version: u32,
    pub(super) dates: Dates,
    pub(super) evaluation_number: u32,
    /// With its mask, as they stand in the report: little endian.
    pub(super) misc_select: ([u8; 4], [u8; 4]),
    /// With their mask.
    pub(super) attributes: ([u8; 16], [u8; 16]),
    pub(super) mrsigner: [u8; 32],
    pub(super) isv_prod_id: u16,
    /// Highest ISVSVN first.
    pub(super) levels: Vec<SvnLevel>,
}

impl TcbInfo {
    const WHAT: &str = "TCB info";

    /// Reads the signed text. Levels are put in the order in which Intel's own verifier looks at them: by CPUSVN components,
    /// then PCESVN, then TDX components, the highest first.
    pub(super) fn parse(text: &str) -> Read<Self> {
        let mut f = TcbInfoFields::default();
        let mut reader = Reader::new(text, Self::WHAT);
        reader.object("TCB info", |r, name| f.member(r, name))?;
        reader.end()?;
        let missing = |field| Malformed { what: Self::WHAT, offset: None, field, reason: "missing".into() };
        let mut info = Self {
            id: f.id,
            version: f.version.ok_or_else(|| missing("version"))?,
            dates: Dates {
                from: f.issue_date.ok_or_else(|| missing("issueDate"))?,
                until: f.next_update.ok_or_else(|| missing("nextUpdate"))?,
            },
            fmspc: f.fmspc.ok_or_else(|| missing("fmspc"))?,
            pce_id: f.pce_id.ok_or_else(|| missing("pceId"))?,
            tcb_type: f.tcb_type.ok_or_else(|| missing("tcbType"))?,
            evaluation_number: f.evaluation_number.ok_or_else(|| missing("tcbEvaluationDataNumber"))?,
            levels: f.levels.ok_or_else(|| missing("tcbLevels"))?,
            module: f.module,
            module_identities: f.module_identities.unwrap_or_default(),
        };
        info.levels.sort_by_key(|level| Reverse((level.sgx, level.pce_svn, level.tdx)));
        Ok(info)
    }
}

#[derive(Default)]
struct TcbInfoFields {
    id: Option<String>,
    version: Option<u32>,
    issue_date: Option<UnixTime>,
    next_update: Option<UnixTime>,
    fmspc: Option<[u8; 6]>,
    pce_id: Option<[u8; 2]>,
    tcb_type: Option<u32>,
    evaluation_number: Option<u32>,
    levels: Option<Vec<TcbLevel>>,
    module: Option<TdxModule>,
    module_identities: Option<Vec<ModuleIdentity>>,
}

impl TcbInfoFields {
    fn member(&mut self, r: &mut Reader<'_>, name: &str) -> Read<()> {
        match name {
            "id" => r.once(&mut self.id, "id", owned),
            "version" => r.once(&mut self.version, "version", Reader::number),
            "issueDate" => r.once(&mut self.issue_date, "issueDate", date),
            "nextUpdate" => r.once(&mut self.next_update, "nextUpdate", date),
            "fmspc" => r.once(&mut self.fmspc, "fmspc", Reader::hex),
            "pceId" => r.once(&mut self.pce_id, "pceId", Reader::hex),
            "tcbType" => r.once(&mut self.tcb_type, "tcbType", Reader::number),
            "tcbEvaluationDataNumber" => {
                r.once(&mut self.evaluation_number, "tcbEvaluationDataNumber", Reader::number)
            }
            "tcbLevels" => r.once(&mut self.levels, "tcbLevels", |r, field| list(r, field, tcb_level)),
            "tdxModule" => r.once(&mut self.module, "tdxModule", tdx_module),
            "tdxModuleIdentities" => {
                r.once(&mut self.module_identities, "tdxModuleIdentities", |r, field| {
                    list(r, field, module_identity)
                })
            }
            _ => r.skip("another field"),
        }
    }
}

impl QeIdentity {
    const WHAT: &str = "QE identity";

    /// Reads the signed text.
    pub(super) fn parse(text: &str) -> Read<Self> {
        let (mut id, mut version, mut evaluation_number) = (None, None, None);
        let (mut from, mut until) = (None, None);
        let (mut misc_select, mut misc_select_mask) = (None, None);
        let (mut attributes, mut attributes_mask) = (None, None);
        let (mut mrsigner, mut isv_prod_id, mut levels) = (None, None, None);
        let mut reader = Reader::new(text, Self::WHAT);
        reader.object("QE identity", |r, name| match name {
            "id" => r.once(&mut id, "id", owned),
            "version" => r.once(&mut version, "version", Reader::number),
            "issueDate" => r.once(&mut from, "issueDate", date),
            "nextUpdate" => r.once(&mut until, "nextUpdate", date),
            "tcbEvaluationDataNumber" => {
                r.once(&mut evaluation_number, "tcbEvaluationDataNumber", Reader::number)
            }
            "miscselect" => r.once(&mut misc_select, "miscselect", Reader::hex),
            "miscselectMask" => r.once(&mut misc_select_mask, "miscselectMask", Reader::hex),
            "attributes" => r.once(&mut attributes, "attributes", Reader::hex),
            "attributesMask" => r.once(&mut attributes_mask, "attributesMask", Reader::hex),
            "mrsigner" => r.once(&mut mrsigner, "mrsigner", Reader::hex),
            "isvprodid" => r.once(&mut isv_prod_id, "isvprodid", Reader::small),
            "tcbLevels" => r.once(&mut levels, "tcbLevels", svn_levels),
            _ => r.skip("another field"),
        })?;
        reader.end()?;
        let missing = |field| Malformed { what: Self::WHAT, offset: None, field, reason: "missing".into() };
        Ok(Self {
            id: id.ok_or_else(|| missing("id"))?,
            version: version.ok_or_else(|| missing("version"))?,
            dates: Dates {
                from: from.ok_or_else(|| missing("issueDate"))?,
                until: until.ok_or_else(|| missing("nextUpdate"))?,
            },
            evaluation_number: evaluation_number.ok_or_else(|| missing("tcbEvaluationDataNumber"))?,
            misc_select: (
                misc_select.ok_or_else(|| missing("miscselect"))?,
                misc_select_mask.ok_or_else(|| missing("miscselectMask"))?,
            ),
            attributes: (
                attributes.ok_or_else(|| missing("attributes"))?,
                attributes_mask.ok_or_else(|| missing("attributesMask"))?,
            ),
            mrsigner: mrsigner.ok_or_else(|| missing("mrsigner"))?,
            isv_prod_id: isv_prod_id.ok_or_else(|| missing("isvprodid"))?,
            levels: levels.ok_or_else(|| missing("tcbLevels"))?,
        })
    }
}

fn owned(r: &mut Reader<'_>, field: &'static str) -> Read<String> {
    r.string(field).map(|text| text.into_owned())
}

fn date(r: &mut Reader<'_>, field: &'static str) -> Read<UnixTime> {
    let text = r.string(field)?;
    UnixTime::from_rfc3339(&text).ok_or_else(|| r.error(field, "not a date like 2026-03-16T22:06:09Z"))
}

fn list<T>(
    r: &mut Reader<'_>,
    field: &'static str,
    read: impl Fn(&mut Reader<'_>) -> Read<T>,
) -> Read<Vec<T>> {
    let mut found = Vec::new();
    r.array(field, |r| {
        if found.len() == MAX_ENTRIES {
            return Err(r.error(field, format!("more than {MAX_ENTRIES} entries")));
        }
        found.push(read(r)?);
        Ok(())
    })?;
    Ok(found)
}

fn status(r: &mut Reader<'_>, field: &'static str) -> Read<TcbStatus> {
    let text = r.string(field)?;
    TcbStatus::parse(&text).ok_or_else(|| r.error(field, "no TCB status that Intel defines"))
}

fn advisories(r: &mut Reader<'_>, field: &'static str) -> Read<Vec<String>> {
    list(r, field, |r| {
        let name = r.string(field)?;
        let plain = name.bytes().all(|byte| byte.is_ascii_graphic());
        if !plain || name.len() > MAX_ADVISORY {
            return Err(r.error(field, "not an advisory's name"));
        }
        Ok(name.into_owned())
    })
}

/// Reads one level: `tcb` by the caller, and what is common to all.
fn level<T>(
    r: &mut Reader<'_>,
    mut tcb: impl FnMut(&mut Reader<'_>, &'static str) -> Read<T>,
) -> Read<(T, Verdict)> {
    let (mut svns, mut found, mut advised, mut dated) = (None, None, None, None);
    r.object("TCB level", |r, name| match name {
        "tcb" => r.once(&mut svns, "tcb", &mut tcb),
        "tcbStatus" => r.once(&mut found, "tcbStatus", status),
        "tcbDate" => r.once(&mut dated, "tcbDate", date),
        "advisoryIDs" => r.once(&mut advised, "advisoryIDs", advisories),
        _ => r.skip("another field"),
    })?;
    let missing = |field| r.error(field, "missing in a TCB level");
    dated.ok_or_else(|| missing("tcbDate"))?;
    let verdict = Verdict {
        status: found.ok_or_else(|| missing("tcbStatus"))?,
        advisories: advised.unwrap_or_default(),
    };
    Ok((svns.ok_or_else(|| missing("tcb"))?, verdict))
}

/// What a level of a platform demands.
struct Svns {
    sgx: [u8; 16],
    pce: u16,
    tdx: Option<[u8; 16]>,
}

fn tcb_level(r: &mut Reader<'_>) -> Read<TcbLevel> {
    let (svns, verdict) = level(r, svns)?;
    Ok(TcbLevel { sgx: svns.sgx, pce_svn: svns.pce, tdx: svns.tdx, verdict })
}

/// Version 3 has arrays of components, version 2 the names `sgxtcbcomp01svn` to `sgxtcbcomp16svn`.
fn svns(r: &mut Reader<'_>, field: &'static str) -> Read<Svns> {
    let (mut sgx, mut tdx, mut pce, mut single) = (None, None, None, [None; 16]);
    r.object(field, |r, name| match name {
        "sgxtcbcomponents" => r.once(&mut sgx, "sgxtcbcomponents", components),
        "tdxtcbcomponents" => r.once(&mut tdx, "tdxtcbcomponents", components),
        "pcesvn" => r.once(&mut pce, "pcesvn", Reader::small),
        _ => match component_number(name) {
            Some(number) => r.once(&mut single[number], "sgxtcbcompNNsvn", Reader::small),
            None => r.skip("another field"),
        },
    })?;
    let mut all = [0; 16];
    let whole = single.iter().zip(&mut all).all(|(svn, slot)| svn.map(|svn| *slot = svn).is_some());
    let sgx = match sgx {
        Some(sgx) if single == [None; 16] => sgx,
        None if whole => all,
        _ => return Err(r.error("sgxtcbcomponents", "not 16 components in one form")),
    };
    Ok(Svns { sgx, pce: pce.ok_or_else(|| r.error("pcesvn", "missing in a TCB level"))?, tdx })
}

/// From 0, of a name of version 2.
fn component_number(name: &str) -> Option<usize> {
    const NUMBERS: RangeInclusive<usize> = 1..=16;
    let digits = name.strip_prefix("sgxtcbcomp")?.strip_suffix("svn").filter(|digits| digits.len() == 2)?;
    digits.parse().ok().filter(|number| NUMBERS.contains(number)).map(|number: usize| number - 1)
}

/// Sixteen objects, of which `svn` counts; `category` and `type` are for people.
fn components(r: &mut Reader<'_>, field: &'static str) -> Read<[u8; 16]> {
    let (mut all, mut count) = ([0; 16], 0);
    r.array(field, |r| {
        let mut svn = None;
        r.object(field, |r, name| match name {
            "svn" => r.once(&mut svn, "svn", Reader::small),
            _ => r.skip("another field"),
        })?;
        let slot = all.get_mut(count).ok_or_else(|| r.error(field, "more than 16 components"))?;
        *slot = svn.ok_or_else(|| r.error("svn", "missing"))?;
        count += 1;
        Ok(())
    })?;
    if count < 16 {
        return Err(r.error(field, format!("{count} components, must be 16")));
    }
    Ok(all)
}

fn tdx_module(r: &mut Reader<'_>, field: &'static str) -> Read<TdxModule> {
    let mut fields = ModuleFields::default();
    r.object(field, |r, name| fields.member(r, name))?;
    fields.finish(r)
}

fn module_identity(r: &mut Reader<'_>) -> Read<ModuleIdentity> {
    let (mut id, mut levels, mut fields) = (None, None, ModuleFields::default());
    r.object("tdxModuleIdentities", |r, name| match name {
        "id" => r.once(&mut id, "id", owned),
        "tcbLevels" => r.once(&mut levels, "tcbLevels", svn_levels),
        _ => fields.member(r, name),
    })?;
    let missing = |field| r.error(field, "missing in a TDX module identity");
    Ok(ModuleIdentity {
        id: id.ok_or_else(|| missing("id"))?,
        levels: levels.ok_or_else(|| missing("tcbLevels"))?,
        module: fields.finish(r)?,
    })
}

#[derive(Default)]
struct ModuleFields {
    mrsigner: Option<[u8; 48]>,
    attributes: Option<[u8; 8]>,
    attributes_mask: Option<[u8; 8]>,
}

impl ModuleFields {
    fn member(&mut self, r: &mut Reader<'_>, name: &str) -> Read<()> {
        match name {
            "mrsigner" => r.once(&mut self.mrsigner, "mrsigner", Reader::hex),
            "attributes" => r.once(&mut self.attributes, "attributes", Reader::hex),
            "attributesMask" => r.once(&mut self.attributes_mask, "attributesMask", Reader::hex),
            _ => r.skip("another field"),
        }
    }

    fn finish(self, r: &Reader<'_>) -> Read<TdxModule> {
        let missing = |field| r.error(field, "missing in a TDX module");
        Ok(TdxModule {
            mrsigner: self.mrsigner.ok_or_else(|| missing("mrsigner"))?,
            attributes: self.attributes.ok_or_else(|| missing("attributes"))?,
            attributes_mask: self.attributes_mask.ok_or_else(|| missing("attributesMask"))?,
        })
    }
}

/// Levels by ISVSVN; Intel publishes them sorted, the highest first, and the first that is met counts.
fn svn_levels(r: &mut Reader<'_>, field: &'static str) -> Read<Vec<SvnLevel>> {
    let levels = list(r, field, |r| {
        let (isv_svn, verdict) = level(r, |r, field| {
            let mut isv_svn = None;
            r.object(field, |r, name| match name {
                "isvsvn" => r.once(&mut isv_svn, "isvsvn", Reader::small),
                _ => r.skip("another field"),
            })?;
            isv_svn.ok_or_else(|| r.error("isvsvn", "missing"))
        })?;
        Ok(SvnLevel { isv_svn, verdict })
    })?;
    if levels.is_sorted_by(|a, b| a.isv_svn > b.isv_svn) {
        Ok(levels)
    } else {
        Err(r.error(field, "not sorted by ISVSVN, the highest first"))
    }
}
