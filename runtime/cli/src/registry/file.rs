//! The registry's content as a file: what `cocoon registry show --toml` writes and `propose` reads, word for word.

use std::collections::BTreeMap;

use cocoon_contracts::registry::{
    Change, Coefficients, Content, Gateway, Image, Measurements, Model, Owners, PlatformId, Prices,
    SnpFloors, Status, TcbFloor, TdxRegisters, TurinFloor,
};
use cocoon_contracts::{Nanotons, VerifyingKey, parse_address};
use serde::{Deserialize, Serialize};

use crate::error::{Explain, Failure};

/// A whole change: owners and content. Nothing is optional that could be forgotten by mistake and then read as "none", but for
/// the lists.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RegistryFile {
    /// The network's share of every payment, in basis points.
    fee_bps: u16,
    /// Who gets it.
    treasury: String,
    /// Machines that nobody should accept: `ppid:HEX`, `chip:HEX`, `gpu:HEX`.
    #[serde(default)]
    barred: Vec<String>,
    owners: OwnersEntry,
    coefficients: CoefficientsEntry,
    /// How old the firmware of AMD's machines may be; a product that is left out is not accepted.
    #[serde(default)]
    snp: SnpFloorsEntry,
    #[serde(default, rename = "image")]
    images: Vec<ImageEntry>,
    #[serde(default, rename = "model")]
    models: Vec<ModelEntry>,
    #[serde(default, rename = "gateway")]
    gateways: Vec<GatewayEntry>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct OwnersEntry {
    /// How many must agree to propose.
    required: u8,
    /// Ed25519 public keys, hex.
    keys: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct CoefficientsEntry {
    min_permille: u32,
    max_permille: u32,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SnpFloorsEntry {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    milan: Option<FloorEntry>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    genoa: Option<FloorEntry>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    turin: Option<FloorEntry>,
}

/// The words of policies' `[snp.tcb.PRODUCT]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FloorEntry {
    /// Turin must name it, others have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    fmc: Option<u8>,
    boot_loader: u8,
    tee: u8,
    snp: u8,
    microcode: u8,
}

impl SnpFloorsEntry {
    fn of(floors: &SnpFloors) -> Self {
        Self {
            milan: floors.milan.map(|floor| FloorEntry::of(None, floor)),
            genoa: floors.genoa.map(|floor| FloorEntry::of(None, floor)),
            turin: floors.turin.map(|TurinFloor { fmc, tcb }| FloorEntry::of(Some(fmc), tcb)),
        }
    }

    fn read(self) -> Result<SnpFloors, String> {
        let plain = |entry: Option<FloorEntry>, product: &str| match entry {
            Some(FloorEntry { fmc: Some(_), .. }) => Err(format!("snp.{product}: it has no `fmc`")),
            other => Ok(other.map(FloorEntry::tcb)),
        };
        let turin = match self.turin {
            Some(entry) => {
                let fmc = entry.fmc.ok_or("snp.turin: `fmc` is missing: write 0 for any")?;
                Some(TurinFloor { fmc, tcb: entry.tcb() })
            }
            None => None,
        };
        Ok(SnpFloors { milan: plain(self.milan, "milan")?, genoa: plain(self.genoa, "genoa")?, turin })
    }
}

impl FloorEntry {
    fn of(fmc: Option<u8>, TcbFloor { boot_loader, tee, snp, microcode }: TcbFloor) -> Self {
        Self { fmc, boot_loader, tee, snp, microcode }
    }

    fn tcb(self) -> TcbFloor {
        let Self { fmc: _, boot_loader, tee, snp, microcode } = self;
        TcbFloor { boot_loader, tee, snp, microcode }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum StatusWord {
    Allowed,
    Barred,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ImageEntry {
    name: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    profile: String,
    status: StatusWord,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    configuration: Option<String>,
    /// One of these three.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tdx: Option<TdxEntry>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    snp: Option<SnpEntry>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    vtpm: Option<BTreeMap<String, String>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct TdxEntry {
    mrtd: String,
    rtmr0: String,
    rtmr1: String,
    rtmr2: String,
    rtmr3: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SnpEntry {
    launch: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ModelEntry {
    name: String,
    status: StatusWord,
    weights: String,
    prices: PricesEntry,
}

/// Nanotons per million tokens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PricesEntry {
    prompt: Nanotons,
    cached: Nanotons,
    completion: Nanotons,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct GatewayEntry {
    name: String,
    status: StatusWord,
    address: String,
}

impl RegistryFile {
    /// The words for a change.
    pub(super) fn of(change: &Change) -> Self {
        let Change { owners, content } = change;
        let (Coefficients { min_permille, max_permille }, keys) = (content.coefficients, owners.keys());
        Self {
            fee_bps: content.fee_bps,
            treasury: content.treasury.to_string(),
            barred: content.barred.iter().map(ToString::to_string).collect(),
            owners: OwnersEntry { required: owners.required(), keys: keys.iter().map(hex::encode).collect() },
            coefficients: CoefficientsEntry { min_permille, max_permille },
            snp: SnpFloorsEntry::of(&content.snp),
            images: content.images.iter().map(ImageEntry::of).collect(),
            models: content.models.iter().map(ModelEntry::of).collect(),
            gateways: content.gateways.iter().map(GatewayEntry::of).collect(),
        }
    }

    /// As TOML.
    pub(super) fn to_toml(&self) -> Result<String, Failure> {
        toml::to_string(self).explain(
            || "the registry's content cannot be said in TOML".into(),
            "a price beyond 2^63 nanotons has no TOML: use --json to look at it",
        )
    }

    /// Reads TOML. `from` names the file in errors.
    pub(super) fn parse(text: &str, from: &str) -> Result<Change, Failure> {
        let file: Self = toml::from_str(text).explain(
            || format!("{from} is not a registry's content"),
            "mend the line it names; `cocoon registry show --toml` writes the present content in this form",
        )?;
        let change = file.read().map_err(|why| {
            Failure::new(format!("{from}: {why}"), "mend this entry; the file's other entries were read")
        })?;
        // What the contract, or a reader of it, would refuse is refused before anybody signs.
        change.hash().explain(|| from.to_owned(), "mend what it names")?;
        Ok(change)
    }

    fn read(self) -> Result<Change, String> {
        let keys: Vec<VerifyingKey> =
            self.owners.keys.iter().map(|key| digest(key, "owners.keys")).collect::<Result<_, _>>()?;
        let owners = Owners::new(self.owners.required, keys).map_err(|error| format!("owners: {error}"))?;
        let CoefficientsEntry { min_permille, max_permille } = self.coefficients;
        let barred =
            self.barred.iter().map(|id| id.parse::<PlatformId>().map_err(|e| format!("`{id}`: {e}")));
        let content = Content {
            fee_bps: self.fee_bps,
            treasury: parse_address(&self.treasury).map_err(|error| format!("treasury: {error}"))?,
            coefficients: Coefficients { min_permille, max_permille },
            images: each(self.images, |image| (format!("image {}", image.name), image.read()))?,
            models: each(self.models, |model| (format!("model {}", model.name), model.read()))?,
            gateways: each(self.gateways, |it| (format!("gateway {}", it.name), it.read()))?,
            barred: barred.collect::<Result<_, _>>()?,
            snp: self.snp.read()?,
        };
        Ok(Change { owners, content })
    }
}

fn each<E, T>(entries: Vec<E>, read: impl Fn(E) -> (String, Result<T, String>)) -> Result<Vec<T>, String> {
    let read = |entry| {
        let (name, result) = read(entry);
        result.map_err(|why| format!("{name}: {why}"))
    };
    entries.into_iter().map(read).collect()
}

fn digest<const N: usize>(text: &str, field: &str) -> Result<[u8; N], String> {
    let mut bytes = [0; N];
    hex::decode_to_slice(text, &mut bytes)
        .map_err(|_| format!("{field}: {} hexadecimal digits were expected", 2 * N))?;
    Ok(bytes)
}

impl From<Status> for StatusWord {
    fn from(status: Status) -> Self {
        match status {
            Status::Allowed => Self::Allowed,
            Status::Barred => Self::Barred,
        }
    }
}

impl From<StatusWord> for Status {
    fn from(word: StatusWord) -> Self {
        match word {
            StatusWord::Allowed => Self::Allowed,
            StatusWord::Barred => Self::Barred,
        }
    }
}

impl ImageEntry {
    fn of(image: &Image) -> Self {
        let mut entry = Self {
            name: image.name.clone(),
            profile: image.profile.clone(),
            status: image.status.into(),
            configuration: image.configuration.map(hex::encode),
            tdx: None,
            snp: None,
            vtpm: None,
        };
        match &image.measurements {
            Measurements::Tdx(registers) => {
                let [rtmr0, rtmr1, rtmr2, rtmr3] = registers.rtmr.map(hex::encode);
                let mrtd = hex::encode(registers.mrtd);
                entry.tdx = Some(TdxEntry { mrtd, rtmr0, rtmr1, rtmr2, rtmr3 });
            }
            Measurements::Snp { launch } => entry.snp = Some(SnpEntry { launch: hex::encode(launch) }),
            Measurements::Vtpm { pcrs } => {
                let row = |(number, digest): (&u8, &[u8; 32])| (number.to_string(), hex::encode(digest));
                entry.vtpm = Some(pcrs.iter().map(row).collect());
            }
        }
        entry
    }

    fn read(self) -> Result<Image, String> {
        let measurements = match (self.tdx, self.snp, self.vtpm) {
            (Some(tdx), None, None) => Measurements::Tdx(Box::new(TdxRegisters {
                mrtd: digest(&tdx.mrtd, "tdx.mrtd")?,
                rtmr: [
                    digest(&tdx.rtmr0, "tdx.rtmr0")?,
                    digest(&tdx.rtmr1, "tdx.rtmr1")?,
                    digest(&tdx.rtmr2, "tdx.rtmr2")?,
                    digest(&tdx.rtmr3, "tdx.rtmr3")?,
                ],
            })),
            (None, Some(snp), None) => Measurements::Snp { launch: digest(&snp.launch, "snp.launch")? },
            (None, None, Some(pcrs)) => Measurements::Vtpm { pcrs: registers(pcrs)? },
            _ => return Err("it has exactly one of the tables tdx, snp and vtpm".to_owned()),
        };
        let configuration = self.configuration.map(|text| digest(&text, "configuration")).transpose()?;
        let (name, profile, status) = (self.name, self.profile, self.status.into());
        Ok(Image { name, profile, status, measurements, configuration })
    }
}

fn registers(pcrs: BTreeMap<String, String>) -> Result<BTreeMap<u8, [u8; 32]>, String> {
    let mut read = BTreeMap::new();
    for (number, value) in pcrs {
        let at: u8 =
            number.parse().map_err(|_| format!("vtpm.{number}: a register has a number below 24"))?;
        if read.insert(at, digest(&value, &format!("vtpm.{number}"))?).is_some() {
            return Err(format!("vtpm.{number}: this register is named twice"));
        }
    }
    Ok(read)
}

impl ModelEntry {
    fn of(model: &Model) -> Self {
        let Prices { prompt, cached, completion } = model.prices;
        Self {
            name: model.name.clone(),
            status: model.status.into(),
            weights: hex::encode(model.weights),
            prices: PricesEntry { prompt, cached, completion },
        }
    }

    fn read(self) -> Result<Model, String> {
        let PricesEntry { prompt, cached, completion } = self.prices;
        Ok(Model {
            weights: digest(&self.weights, "weights")?,
            name: self.name,
            status: self.status.into(),
            prices: Prices { prompt, cached, completion },
        })
    }
}

impl GatewayEntry {
    fn of(gateway: &Gateway) -> Self {
        Self {
            name: gateway.name.clone(),
            status: gateway.status.into(),
            address: gateway.address.to_string(),
        }
    }

    fn read(self) -> Result<Gateway, String> {
        let address = parse_address(&self.address).map_err(|error| error.to_string())?;
        Ok(Gateway { name: self.name, status: self.status.into(), address })
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples;
    use super::*;

    #[test]
    fn what_is_written_is_what_is_read() {
        for change in [samples::empty(), samples::full()] {
            let text = RegistryFile::of(&change).to_toml().expect("it can be said");
            assert_eq!(RegistryFile::parse(&text, "test").expect("it is read"), change, "{text}");
        }
    }

    #[test]
    fn a_word_that_nobody_knows_is_refused_by_name() {
        let text = RegistryFile::of(&samples::full()).to_toml().expect("it can be said");
        let failure = RegistryFile::parse(&format!("fee_bsp = 1\n{text}"), "it").expect_err("refused");
        assert!(failure.what.contains("fee_bsp"), "{failure}");
    }

    #[test]
    fn an_entry_that_is_wrong_is_named() {
        let text = RegistryFile::of(&samples::full()).to_toml().expect("it can be said");
        for (from, to, named) in [
            ("mrtd = \"", "mrtd = \"0", "image old: tdx.mrtd: 96 hexadecimal digits"),
            ("[image.snp]\n", "[image.snp2]\n", "snp2"),
            ("chip:", "chop:", "expected ppid:HEX"),
            ("required = 1", "required = 9", "owners: 9 of 2 signatures"),
            ("fee_bps = 500", "fee_bps = 2001", "over 2000"),
            ("fmc = 1\n", "", "snp.turin: `fmc` is missing"),
            ("[snp.genoa]\n", "[snp.genoa]\nfmc = 1\n", "snp.genoa: it has no `fmc`"),
            ("microcode = 84", "microcode = 256", "256"),
            ("[image.vtpm]\n", "[image.vtpm]\n77 = \"00\"\n", "64 hexadecimal digits"),
        ] {
            assert!(text.contains(from), "{text}");
            let failure =
                RegistryFile::parse(&text.replacen(from, to, 1), "content.toml").expect_err("refused");
            assert!(failure.what.contains(named), "{from}: {failure}");
        }
    }
}
