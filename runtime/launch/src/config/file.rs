//! The file as it is written, and the way from there to [`HostConfig`].

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use serde::Deserialize;

use super::{
    ConfigError, FIRST_CID, GuestConfig, HostConfig, MAX_GATEWAYS, MAX_GUESTS, Size, TeeChoice, Tools,
    is_local,
};
use crate::plan::{Cid, GuestName, Iommu, Memory, PciAddress, QuoteService, Vcpus};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    tee: Tee,
    image: PathBuf,
    state: PathBuf,
    listen: SocketAddr,
    gateways: Vec<String>,
    advertise: Option<String>,
    quote_service: Option<String>,
    #[serde(default)]
    iommu: IommuWord,
    model: Model,
    #[serde(default)]
    price: Price,
    #[serde(default)]
    tools: ToolFiles,
    #[serde(rename = "guest")]
    guests: Vec<Guest>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Tee {
    Auto,
    Tdx,
    Snp,
    Emulation,
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum IommuWord {
    #[default]
    Iommufd,
    Legacy,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Model {
    name: String,
    file: PathBuf,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Price {
    coefficient: Option<f64>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct ToolFiles {
    qemu: Option<PathBuf>,
    swtpm: Option<PathBuf>,
    gpu_admin: Option<PathBuf>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Guest {
    name: GuestName,
    profile: Option<String>,
    vcpus: Option<Vcpus>,
    memory: Option<Memory>,
    #[serde(default)]
    gpus: Vec<PciAddress>,
    cid: Option<Cid>,
    listen: Option<SocketAddr>,
    #[serde(default)]
    forward: u16,
}

fn wrong(field: impl Into<String>, why: impl Into<String>) -> ConfigError {
    ConfigError::Value { field: field.into(), why: why.into() }
}

impl File {
    pub(super) fn check(self) -> Result<HostConfig, ConfigError> {
        self.check_paths()?;
        self.check_words()?;
        if !(1..=MAX_GUESTS).contains(&self.guests.len()) {
            return Err(wrong("guest", format!("there are {}; write 1 to {MAX_GUESTS}", self.guests.len())));
        }
        let tee = match self.tee {
            Tee::Auto => TeeChoice::Auto,
            Tee::Tdx => TeeChoice::Tdx,
            Tee::Snp => TeeChoice::Snp,
            Tee::Emulation => TeeChoice::Emulation,
        };
        let guests = guests(self.guests, self.listen)?;
        check_side_by_side(tee, &guests)?;
        let tools = self.tools;
        Ok(HostConfig {
            tee,
            image: self.image,
            state: self.state,
            gateways: self.gateways,
            advertise: self.advertise,
            quote_service: self.quote_service.map_or(Ok(QuoteService::USUAL), |text| quote_service(&text))?,
            iommu: match self.iommu {
                IommuWord::Iommufd => Iommu::Iommufd,
                IommuWord::Legacy => Iommu::Legacy,
            },
            model_name: self.model.name,
            model_file: self.model.file,
            coefficient: self.price.coefficient.map(|number| number.to_string()),
            tools: Tools { qemu: tools.qemu, swtpm: tools.swtpm, gpu_admin: tools.gpu_admin },
            guests,
        })
    }

    /// A path that is not absolute would mean another file when a service reads it.
    fn check_paths(&self) -> Result<(), ConfigError> {
        let tools = &self.tools;
        let optional = [
            ("tools.qemu", &tools.qemu),
            ("tools.swtpm", &tools.swtpm),
            ("tools.gpu_admin", &tools.gpu_admin),
        ];
        let named = optional.into_iter().filter_map(|(field, path)| Some((field, path.as_deref()?)));
        let always = [
            ("image", self.image.as_path()),
            ("state", self.state.as_path()),
            ("model.file", self.model.file.as_path()),
        ];
        for (field, path) in always.into_iter().chain(named) {
            absolute(field, path)?;
        }
        Ok(())
    }

    fn check_words(&self) -> Result<(), ConfigError> {
        if !(1..=128).contains(&self.model.name.len()) || self.model.name.chars().any(char::is_control) {
            return Err(wrong("model.name", "it must have 1 to 128 bytes without control characters"));
        }
        if !(1..=MAX_GATEWAYS).contains(&self.gateways.len()) {
            let count = self.gateways.len();
            return Err(wrong("gateways", format!("there are {count}; name 1 to {MAX_GATEWAYS}")));
        }
        let urls = self.gateways.iter().map(|url| ("gateways", url));
        for (field, url) in urls.chain(self.advertise.iter().map(|url| ("advertise", url))) {
            let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
            let plain = |rest: &str| !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_graphic());
            if !rest.is_some_and(plain) || url.len() > 256 {
                return Err(wrong(
                    field,
                    format!("{url:?} is no URL; write it as https://host or http://host:port"),
                ));
            }
        }
        if self.advertise.is_some() && self.guests.len() > 1 {
            return Err(wrong("advertise", "with several guests each has its own address; leave it out"));
        }
        Ok(())
    }
}

fn absolute(field: &str, path: &Path) -> Result<(), ConfigError> {
    let text = path.to_str().filter(|text| !text.chars().any(char::is_control));
    if !path.is_absolute() || text.is_none() {
        return Err(wrong(field, format!("{} is no absolute path; write it from / on", path.display())));
    }
    Ok(())
}

fn quote_service(text: &str) -> Result<QuoteService, ConfigError> {
    let refused = || {
        let why = format!("{text:?} is neither vsock:CID:PORT nor unix:/PATH; the usual one is vsock:2:4050");
        wrong("quote_service", why)
    };
    if let Some(path) = text.strip_prefix("unix:") {
        absolute("quote_service", Path::new(path))?;
        return Ok(QuoteService::Unix(path.into()));
    }
    let (cid, port) =
        text.strip_prefix("vsock:").and_then(|rest| rest.split_once(':')).ok_or_else(refused)?;
    let (cid, port) = (cid.parse().map_err(|_| refused())?, port.parse().map_err(|_| refused())?);
    Ok(QuoteService::Vsock { cid, port })
}

fn guests(guests: Vec<Guest>, listen: SocketAddr) -> Result<Vec<GuestConfig>, ConfigError> {
    let each = guests.into_iter().zip(0u16..).map(|(guest, index)| {
        let field = |name: &str| format!("guest.{}.{name}", guest.name);
        let size = match (guest.profile, guest.vcpus, guest.memory) {
            (Some(profile), None, None) => Size::Profile(profile),
            (None, Some(vcpus), Some(memory)) => Size::Own { vcpus, memory },
            _ => return Err(wrong(field("profile"), "write either profile, or vcpus and memory")),
        };
        let port = match listen.port() {
            0 => Some(0),
            first => first.checked_add(index),
        };
        let beyond =
            || wrong(field("listen"), "the ports after `listen` have run out; name one for this guest");
        let following = || port.map(|port| SocketAddr::new(listen.ip(), port)).ok_or_else(beyond);
        let cid = guest.cid.map_or_else(|| Cid::try_from(FIRST_CID + u32::from(index)), Ok);
        Ok(GuestConfig {
            listen: guest.listen.map_or_else(following, Ok)?,
            cid: cid.map_err(|error| wrong(field("cid"), error.to_string()))?,
            name: guest.name,
            size,
            gpus: guest.gpus,
            forward: guest.forward,
        })
    });
    each.collect()
}

/// What two guests of one host cannot share, and what an emulated one cannot have.
fn check_side_by_side(tee: TeeChoice, guests: &[GuestConfig]) -> Result<(), ConfigError> {
    let mut owners: BTreeMap<String, &GuestName> = BTreeMap::new();
    for guest in guests {
        let field = |name: &str| format!("guest.{}.{name}", guest.name);
        let mut own = vec![("name", guest.name.to_string()), ("cid", format!("CID {}", guest.cid))];
        if guest.listen.port() != 0 {
            own.push(("listen", guest.listen.to_string()));
        }
        if guest.forward != 0 {
            own.push(("forward", format!("the loopback port {}", guest.forward)));
        }
        own.extend(guest.gpus.iter().map(|gpu| ("gpus", format!("the GPU {gpu}"))));
        for (name, what) in own {
            if let Some(other) = owners.insert(what.clone(), &guest.name) {
                return Err(wrong(
                    field(name),
                    format!("{what} is guest {other}'s already; give each its own"),
                ));
            }
        }
        if tee == TeeChoice::Emulation && !guest.gpus.is_empty() {
            return Err(wrong(
                field("gpus"),
                "an emulated guest has no GPU; leave it out, or name another `tee`",
            ));
        }
        if tee == TeeChoice::Emulation && !is_local(guest.listen.ip()) {
            return Err(wrong(
                field("listen"),
                format!(
                    "{} can be reached from elsewhere, and emulation protects nobody; listen on 127.0.0.1",
                    guest.listen
                ),
            ));
        }
    }
    Ok(())
}
