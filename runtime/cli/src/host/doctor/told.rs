//! What the host's configuration tells the doctor. Only what is asked here is read; `cocoon host up` reads, and refuses,
//! all of it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use cocoon_launch::doctor::{QuoteService, Tee};
use cocoon_launch::gpu::PciAddress;
use ring::digest::{SHA256, digest};
use serde::Deserialize;

use crate::error::{Explain, Failure};

/// No firmware is larger, and no folder of an image holds more of them.
const MOST_FIRMWARE: u64 = 64 << 20;
const MOST_FILES: usize = 16;

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Told {
    tee: Option<String>,
    image: Option<PathBuf>,
    pub(super) state: Option<PathBuf>,
    pub(super) listen: Option<SocketAddr>,
    quote_service: Option<String>,
    pub(super) tools: Tools,
    pub(super) guest: Vec<Guest>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Tools {
    pub(super) qemu: Option<PathBuf>,
    pub(super) swtpm: Option<PathBuf>,
    firmware: Option<PathBuf>,
    pub(super) gpu_admin: Option<PathBuf>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Guest {
    memory: Option<String>,
    gpus: Vec<PciAddress>,
    listen: Option<SocketAddr>,
}

/// What of an image's manifest says which firmware was measured for which TEE.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Manifest {
    measurements: Vec<Measurement>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Measurement {
    platform: String,
    firmware: String,
}

impl Told {
    pub(super) fn load(path: &Path) -> Result<Self, Failure> {
        let text = std::fs::read_to_string(path)
            .explain(|| format!("cannot read {}", path.display()), "check the name")?;
        Self::parse(&text).explain(|| path.display().to_string(), "mend the line it names")
    }

    fn parse(text: &str) -> Result<Self, toml::de::Error> {
        toml::from_str(text)
    }

    /// The TEE, unless it is left to the machine.
    pub(super) fn tee(&self) -> Result<Option<Tee>, Failure> {
        match self.tee.as_deref() {
            None | Some("auto") => Ok(None),
            Some(word) => word.parse().map(Some).map_err(|words: String| wrong("tee", word, &words)),
        }
    }

    /// `vsock:2:4050` or `unix:/path`.
    pub(super) fn quote_service(&self) -> Result<Option<QuoteService>, Failure> {
        let Some(word) = self.quote_service.as_deref() else { return Ok(None) };
        let vsock = || word.strip_prefix("vsock:")?.rsplit_once(':')?.1.parse().ok().map(QuoteService::Vsock);
        let unix = || word.strip_prefix("unix:").map(|path| QuoteService::Unix(path.into()));
        match unix().or_else(vsock) {
            Some(service) => Ok(Some(service)),
            None => Err(wrong("quote_service", word, "vsock:2:4050 or unix:/path")),
        }
    }

    pub(super) fn gpus(&self) -> Vec<PciAddress> {
        self.guest.iter().flat_map(|guest| guest.gpus.iter().copied()).collect()
    }

    /// Memory of all guests that name theirs, in bytes.
    pub(super) fn memory(&self) -> Result<Option<u64>, Failure> {
        let named = self.guest.iter().filter_map(|guest| guest.memory.as_deref());
        let parts = named
            .map(|word| bytes(word).ok_or_else(|| wrong("memory", word, "a number and MiB, GiB or TiB")))
            .collect::<Result<Vec<u64>, _>>()?;
        Ok((!parts.is_empty()).then(|| parts.into_iter().fold(0, u64::saturating_add)))
    }

    /// Where gateways come to: the first guest at `listen`, each further one at the next port, if it names none.
    pub(super) fn ports(&self, listen: SocketAddr) -> impl Iterator<Item = SocketAddr> {
        let mut next = Some(listen);
        let named: Vec<Option<SocketAddr>> = match self.guest.is_empty() {
            true => vec![None],
            false => self.guest.iter().map(|guest| guest.listen).collect(),
        };
        named.into_iter().filter_map(move |own| {
            let address = own.or(next)?;
            next = address.port().checked_add(1).map(|port| SocketAddr::new(address.ip(), port));
            Some(address)
        })
    }

    /// SHA-256 of the firmware that the image was measured with for a TEE; empty without an image.
    pub(super) fn measured(&self, tee: Tee) -> Result<Vec<String>, Failure> {
        let Some(image) = &self.image else { return Ok(Vec::new()) };
        let path = image.join("manifest.json");
        let remedy = "build the image with `cocoon image build`, or correct `image` in the configuration";
        let text =
            std::fs::read_to_string(&path).explain(|| format!("cannot read {}", path.display()), remedy)?;
        let manifest: Manifest =
            serde_json::from_str(&text).explain(|| path.display().to_string(), remedy)?;
        let platform = match tee {
            Tee::Tdx => "tdx",
            Tee::Snp => "snp",
            Tee::Emulation => "emulation",
        };
        let of_this = manifest.measurements.into_iter().filter(|m| m.platform == platform);
        Ok(of_this.map(|m| m.firmware).collect())
    }

    /// The firmware that is named, else the one in the image that was measured.
    pub(super) fn firmware(&self, known: &[String]) -> Option<PathBuf> {
        if self.tools.firmware.is_some() {
            return self.tools.firmware.clone();
        }
        let files = std::fs::read_dir(self.image.as_ref()?.join("firmware")).ok()?.take(MOST_FILES);
        let mut files: Vec<PathBuf> = files.filter_map(|entry| Some(entry.ok()?.path())).collect();
        files.sort();
        files.into_iter().find(|path| {
            let short = std::fs::metadata(path).is_ok_and(|m| m.is_file() && m.len() <= MOST_FIRMWARE);
            let hash =
                short.then(|| std::fs::read(path).ok().map(|file| hex::encode(digest(&SHA256, &file))));
            hash.flatten().is_some_and(|hash| known.contains(&hash))
        })
    }
}

fn wrong(field: &str, found: &str, expected: &str) -> Failure {
    Failure::usage(format!("`{field}` in the configuration is {found:?}"), format!("write {expected}"))
}

/// `96 GiB` in bytes.
fn bytes(word: &str) -> Option<u64> {
    let (number, unit) = word.split_at(word.find(|c: char| !c.is_ascii_digit())?);
    let shift = match unit.trim() {
        "MiB" => 20,
        "GiB" => 30,
        "TiB" => 40,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(1 << shift)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_doctor_reads_its_part_of_the_hosts_configuration() {
        let told = Told::parse(
            "tee = \"tdx\"\nlisten = \"0.0.0.0:8083\"\ngateways = []\nquote_service = \"vsock:2:4051\"\n\
             [model]\nname = \"m\"\n[[guest]]\nname = \"a\"\ngpus = [\"0000:17:00.0\"]\nmemory = \"96 GiB\"\n\
             [[guest]]\nname = \"b\"\nmemory = \"512MiB\"\n",
        )
        .expect("it is a configuration");
        assert_eq!(told.tee().expect("known"), Some(Tee::Tdx));
        assert_eq!(told.gpus(), ["17:00.0".parse().expect("an address")]);
        assert_eq!(told.memory().expect("sizes"), Some((96 << 30) + (512 << 20)));
        assert_eq!(told.quote_service().expect("known"), Some(QuoteService::Vsock(4051)));
        let ports: Vec<u16> = told.ports(told.listen.expect("it is told")).map(|a| a.port()).collect();
        assert_eq!(ports, [8083, 8084]);
    }

    #[test]
    fn words_that_are_not_understood_are_refused_with_those_that_are() {
        let told = Told::parse("tee = \"sgx\"\nquote_service = \"tcp:1\"\n[[guest]]\nmemory = \"much\"\n")
            .expect("it is TOML");
        assert!(told.tee().expect_err("no such TEE").remedy.contains("tdx, snp or emulation"));
        assert!(told.quote_service().expect_err("no such service").remedy.contains("vsock:2:4050"));
        assert!(told.memory().expect_err("no size").remedy.contains("GiB"));
    }

    #[test]
    fn the_firmware_is_the_one_of_the_image_that_was_measured() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let firmware = folder.path().join("firmware");
        std::fs::create_dir(&firmware).expect("a folder");
        for name in ["a.fd", "b.fd"] {
            std::fs::write(firmware.join(name), name).expect("it can be written");
        }
        let hash = hex::encode(digest(&SHA256, b"b.fd"));
        let manifest = serde_json::json!({ "measurements": [
            { "platform": "snp", "firmware": "00", "qemu": "11.1.3" },
            { "platform": "tdx", "firmware": hash, "mrtd": "" },
        ]});
        std::fs::write(folder.path().join("manifest.json"), manifest.to_string()).expect("it can be written");
        let told = Told { image: Some(folder.path().to_owned()), ..Told::default() };
        let known = told.measured(Tee::Tdx).expect("a manifest");
        assert_eq!(told.firmware(&known), Some(firmware.join("b.fd")));
        assert_eq!(told.firmware(&told.measured(Tee::Snp).expect("a manifest")), None);
    }
}
