//! Everything that comes from flags and files but endorsements, read and parsed: what fails here is a mistake in usage,
//! not a verdict.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use cocoon_attestation::{
    Evidence, Exceptions, InvalidPolicy, KnownBlock, Policy, Release, TrustAnchors, UnixTime,
};
use cocoon_image::manifest::Manifest;
use serde::{Deserialize, Serialize};

use super::{Arguments, Context};
use crate::error::Failure;

/// Largest file that is read, in bytes.
const MAX_FILE: u64 = 4 * 1024 * 1024;

/// A masterchain block as the user knows it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct BeaconFile {
    pub(crate) seqno: u32,
    /// 64 hex digits.
    pub(crate) root_hash: String,
    /// Unix seconds.
    pub(crate) time: u64,
}

/// What a verification is made with.
pub(super) struct Inputs {
    /// The name it goes by for people.
    pub(super) name: String,
    /// The file's bytes, as it was handed over.
    pub(super) file: Vec<u8>,
    /// The evidence; decoded, if the file was hex.
    pub(super) evidence: Vec<u8>,
    pub(super) anchors: TrustAnchors,
    pub(super) exceptions: Exceptions,
    pub(super) policy: Option<Policy>,
    pub(super) report_data: Option<[u8; 64]>,
    pub(super) context: Context,
}

impl Inputs {
    pub(super) fn read(arguments: &Arguments) -> Result<Self, Failure> {
        let policy = read_policies(&arguments.policy, &arguments.release)?;
        let exceptions = exceptions(&arguments.allow, policy.as_ref())?;
        let mut anchors = TrustAnchors::hardware();
        for path in &arguments.simulated_root {
            anchors = anchors.with_simulated_root(&read_file(path)?).map_err(|error| {
                Failure::usage(format!("{}: {error}", path.display()), "give the root certificate as DER")
            })?;
        }
        let now = arguments.at.unwrap_or_else(present);
        let beacon = arguments.beacon.as_deref().map(read_beacon).transpose()?;
        let (name, file) = read_evidence(&arguments.evidence)?;
        Ok(Self {
            name,
            evidence: of_hex(&file).unwrap_or_else(|| file.clone()),
            file,
            anchors,
            exceptions,
            policy,
            report_data: arguments.report_data,
            context: Context { now, beacon, nonce: arguments.nonce },
        })
    }

    /// A challenge that nothing is compared with would look as if it had been.
    pub(super) fn check_nonce_is_of_use(&self, evidence: &Evidence) -> Result<(), Failure> {
        let remedy = match evidence {
            Evidence::Nvidia(_) | Evidence::AzureVtpm(_) => return Ok(()),
            Evidence::RaTls(_, inner) => return self.check_nonce_is_of_use(inner),
            Evidence::Bundle(_) if self.policy.is_some() => return Ok(()),
            Evidence::Bundle(_) => "give --policy too: a bundle's challenge is appraised with it",
            _ => "what a raw quote or report carries is its report data: use --report-data",
        };
        match self.context.nonce {
            Some(_) => Err(Failure::usage("--nonce says nothing about this evidence", remedy)),
            None => Ok(()),
        }
    }
}

/// What was named on the command line, and what the policies make.
fn exceptions(allow: &[String], policy: Option<&Policy>) -> Result<Exceptions, Failure> {
    let of_policy = match policy {
        Some(policy) => policy.exceptions().map_err(|error| Failure::usage(error.to_string(), ""))?.names(),
        None => Vec::new(),
    };
    let further = of_policy.iter().filter(|name| !allow.contains(name));
    Exceptions::parse(allow.iter().chain(further).map(String::as_str))
        .map_err(|error| Failure::usage(error.to_string(), "see `cocoon verify --help` for the names"))
}

/// Policies and releases joined; none without a policy. Where there are several, refusals name each by its file.
///
/// # Errors
/// A mistake in usage for a file that cannot be read, or is none.
pub(crate) fn read_policies(policies: &[PathBuf], releases: &[PathBuf]) -> Result<Option<Policy>, Failure> {
    let several = policies.len() + releases.len() > 1;
    let mut joined: Option<Policy> = None;
    for path in policies {
        let mut policy = Policy::from_toml(&read_text(path)?).map_err(|error| unusable(path, &error))?;
        if several {
            policy = policy.named(path.display().to_string());
        }
        joined = Some(match joined {
            None => policy,
            Some(first) => first.with(policy),
        });
    }
    let Some(mut policy) = joined else { return Ok(None) };
    for path in releases {
        policy = policy.with_release(read_release(path)?);
    }
    Ok(Some(policy))
}

/// A release in TOML, or an image's manifest (JSON), whose machines become a release's images. Those of SEV-SNP are left out
/// of it: they need a configuration, which `cocoon image measure --policy` adds.
fn read_release(path: &Path) -> Result<Release, Failure> {
    let text = read_text(path)?;
    if !text.starts_with('{') {
        return Release::from_toml(&text).map_err(|error| unusable(path, &error));
    }
    let manifest = Manifest::from_json(text.as_bytes()).map_err(|error| {
        Failure::usage(format!("{}: {error}", path.display()), "take the manifest as it was published")
    })?;
    Ok(cocoon_image::policy::release(&manifest, None).0)
}

fn unusable(path: &Path, error: &InvalidPolicy) -> Failure {
    Failure::usage(format!("{}: {error}", path.display()), "mend the line it names")
}

/// Reads a file up to [`MAX_FILE`] bytes, whatever it says of its own length.
pub(crate) fn read_file(path: &Path) -> Result<Vec<u8>, Failure> {
    use std::os::unix::fs::FileTypeExt;
    let unreadable = |error: std::io::Error| {
        Failure::usage(format!("cannot read {}: {error}", path.display()), "check the name")
    };
    let kind = std::fs::metadata(path).map_err(unreadable)?.file_type();
    if kind.is_dir() || kind.is_fifo() || kind.is_socket() {
        return Err(Failure::usage(
            format!("{} is not a file", path.display()),
            "name a file; evidence may be - for standard input",
        ));
    }
    let file = std::fs::File::open(path).map_err(unreadable)?;
    read_bounded(file, &path.display().to_string())
}

fn read_bounded(source: impl Read, name: &str) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    source
        .take(MAX_FILE + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| Failure::usage(format!("cannot read {name}: {error}"), "check the name"))?;
    if bytes.len() as u64 > MAX_FILE {
        let what = format!("{name} is longer than {MAX_FILE} bytes");
        return Err(Failure::usage(what, "this is not evidence, an endorsement or a policy"));
    }
    Ok(bytes)
}

fn read_evidence(path: &Path) -> Result<(String, Vec<u8>), Failure> {
    if path == Path::new("-") {
        let name = "standard input";
        return Ok((name.to_owned(), read_bounded(std::io::stdin().lock(), name)?));
    }
    Ok((path.display().to_string(), read_file(path)?))
}

fn read_text(path: &Path) -> Result<String, Failure> {
    String::from_utf8(read_file(path)?)
        .map_err(|_| Failure::usage(format!("{} is not UTF-8", path.display()), "name a TOML file"))
}

/// What a file of nothing but hex digits and white space holds.
fn of_hex(file: &[u8]) -> Option<Vec<u8>> {
    let plain = |byte: &u8| byte.is_ascii_hexdigit() || byte.is_ascii_whitespace();
    if !file.iter().all(plain) {
        return None;
    }
    let digits: Vec<u8> = file.iter().copied().filter(u8::is_ascii_hexdigit).collect();
    hex::decode(digits).ok().filter(|bytes| !bytes.is_empty())
}

fn read_beacon(path: &Path) -> Result<KnownBlock, Failure> {
    let wrong = |why: String| {
        Failure::usage(
            format!("{} is not a beacon: {why}", path.display()),
            r#"write {"seqno": 1, "root_hash": "64 hex digits", "time": 1700000000}"#,
        )
    };
    let file: BeaconFile =
        serde_json::from_slice(&read_file(path)?).map_err(|error| wrong(error.to_string()))?;
    let root_hash = parse_hex32(&file.root_hash).map_err(wrong)?;
    Ok(KnownBlock { seqno: file.seqno, root_hash, time: UnixTime(file.time) })
}

fn present() -> UnixTime {
    UnixTime(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs()))
}

/// Unix seconds, or RFC 3339 in UTC.
pub(super) fn parse_time(text: &str) -> Result<UnixTime, String> {
    let seconds = text.parse().ok().map(UnixTime);
    seconds
        .or_else(|| UnixTime::from_rfc3339(text))
        .ok_or_else(|| "write Unix seconds, or 2026-03-16T22:06:09Z".to_owned())
}

fn parse_hex<const N: usize>(text: &str) -> Result<[u8; N], String> {
    let mut bytes = [0; N];
    hex::decode_to_slice(text, &mut bytes)
        .map_err(|error| format!("{} hex digits are needed: {error}", 2 * N))?;
    Ok(bytes)
}

/// 32 bytes.
pub(super) fn parse_hex32(text: &str) -> Result<[u8; 32], String> {
    parse_hex(text)
}

/// 64 bytes.
pub(super) fn parse_hex64(text: &str) -> Result<[u8; 64], String> {
    parse_hex(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_is_decoded_and_nothing_else_is() {
        assert_eq!(of_hex(b" 04 00\n02\t"), Some(vec![4, 0, 2]));
        for other in [&b""[..], b" \n", b"040", b"04g0", b"{}", &[4, 0, 2, 0]] {
            assert_eq!(of_hex(other), None, "{other:?}");
        }
    }
}
