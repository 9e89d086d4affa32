//! What a registry says at one version: fee, bounds, guest images, models, gateways, barred machines.
//!
//! The contract reads the head alone. Everything behind it is read here, with a limit for each length.

use std::collections::BTreeMap;

use tycho_types::cell::{Cell, CellBuilder, CellFamily, CellSlice, HashBytes, Load, Store};
use tycho_types::dict::Dict;
use tycho_types::error::Error;

use super::SnpFloors;
use crate::{Address, Malformed, Nanotons, build_cell};

/// The layout of [`Content`]. A client refuses any other.
const CONTENT_FORMAT: u8 = 2;
/// The highest network fee that the contract lets anybody propose, in basis points.
pub const MAX_FEE_BPS: u16 = 2000;
/// The highest price coefficient that the contract lets anybody propose, in thousandths: a hundred times the price.
pub const MAX_COEFFICIENT_PERMILLE: u32 = 100_000;
/// Longest name of an image, a machine profile, a model or a gateway, in bytes of UTF-8.
pub const MAX_NAME_BYTES: usize = 64;
/// Most images, most models, and most gateways, in one registry.
pub const MAX_ENTRIES: usize = 256;
/// Most barred machines in one registry.
pub const MAX_BARRED: usize = 1024;
/// Longest id of a machine, in bytes.
pub const MAX_PLATFORM_ID_BYTES: usize = 64;
/// A TPM 2.0 has this many registers.
const MAX_PCRS: usize = 24;

/// Whether an entry counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// It counts.
    Allowed,
    /// Named, and not to be trusted any more.
    Barred,
}

/// The registers of a TDX guest image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TdxRegisters {
    /// What was loaded: firmware, or the guest binary in process mode.
    pub mrtd: [u8; 48],
    /// The four runtime registers.
    pub rtmr: [[u8; 48]; 4],
}

/// What a guest image shows on one platform. [`Status`] and the machine's profile stand beside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Measurements {
    /// On Intel TDX.
    Tdx(Box<TdxRegisters>),
    /// On AMD SEV-SNP: the launch digest.
    Snp {
        /// MEASUREMENT of the attestation report.
        launch: [u8; 48],
    },
    /// Behind Azure's paravisor: SHA-256 registers of its virtual TPM, by number below 24.
    Vtpm {
        /// Those that are pinned; at least one.
        pcrs: BTreeMap<u8, [u8; 32]>,
    },
}

/// A guest image that the network knows, on one platform and profile of machines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Its name, such as `cocoon-guest 0.1`.
    pub name: String,
    /// The machines that these measurements are for, such as `qemu-8.2-4cpu`; empty when they do not depend on it.
    pub profile: String,
    /// Whether it counts.
    pub status: Status,
    /// What it shows.
    pub measurements: Measurements,
    /// The digest of the configuration it must run with, if one is fixed.
    pub configuration: Option<[u8; 32]>,
}

/// What a million tokens cost, in nanotons, before a worker's coefficient.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prices {
    /// Of the prompt.
    pub prompt: Nanotons,
    /// Of the prompt's part that a worker had in its cache.
    pub cached: Nanotons,
    /// Of the completion.
    pub completion: Nanotons,
}

/// A model that the network knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Model {
    /// Its name, as in the API.
    pub name: String,
    /// Whether it counts.
    pub status: Status,
    /// SHA-256 of its weights file, or their verity root.
    pub weights: [u8; 32],
    /// What it costs.
    pub prices: Prices,
}

/// A gateway that the network knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gateway {
    /// Its name, or the address of its service.
    pub name: String,
    /// Whether it counts.
    pub status: Status,
    /// Its bond, or its wallet where it has none.
    pub address: Address,
}

/// The bounds of what a worker may multiply a model's prices with, in thousandths: 1000 is the price itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Coefficients {
    /// The lowest; at least 1.
    pub min_permille: u32,
    /// The highest; at most [`MAX_COEFFICIENT_PERMILLE`].
    pub max_permille: u32,
}

impl Coefficients {
    /// The price itself and nothing else.
    pub const FIXED: Self = Self { min_permille: 1000, max_permille: 1000 };

    /// Whether a worker may ask for this coefficient.
    pub fn allow(&self, permille: u32) -> bool {
        (self.min_permille..=self.max_permille).contains(&permille)
    }
}

/// Who names a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PlatformKind {
    /// Intel's provisioning id (PPID).
    Ppid,
    /// AMD's CHIP_ID.
    Chip,
    /// An NVIDIA device's identity.
    Gpu,
}

impl PlatformKind {
    const ALL: [(Self, u8, &'static str); 3] =
        [(Self::Ppid, 1, "ppid"), (Self::Chip, 2, "chip"), (Self::Gpu, 3, "gpu")];

    fn row(self) -> (Self, u8, &'static str) {
        Self::ALL.into_iter().find(|(kind, ..)| *kind == self).expect("every kind has a row")
    }

    fn from_tag(tag: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|(_, known, _)| *known == tag).map(|(kind, ..)| kind)
    }
}

/// A machine or device by name. `Display` is the spelling of policies: `ppid:HEX`, `chip:HEX` or `gpu:HEX`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PlatformId {
    /// Who names it.
    pub kind: PlatformKind,
    /// The name: 1 to [`MAX_PLATFORM_ID_BYTES`] bytes.
    pub id: Vec<u8>,
}

impl std::fmt::Display for PlatformId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.kind.row().2, hex::encode(&self.id))
    }
}

impl std::str::FromStr for PlatformId {
    type Err = Malformed;

    /// Reads what `Display` writes.
    fn from_str(text: &str) -> Result<Self, Malformed> {
        let odd = || Malformed::new("platform id", "expected ppid:HEX, chip:HEX or gpu:HEX, 1 to 64 bytes");
        let (kind, id) = text.split_once(':').ok_or_else(odd)?;
        let (kind, ..) = PlatformKind::ALL.into_iter().find(|(.., name)| *name == kind).ok_or_else(odd)?;
        if !(2..=2 * MAX_PLATFORM_ID_BYTES).contains(&id.len()) {
            return Err(odd());
        }
        Ok(Self { kind, id: hex::decode(id).map_err(|_| odd())? })
    }
}

/// What the network trusts at one version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    /// The network's share of every payment, in basis points. At most [`MAX_FEE_BPS`].
    pub fee_bps: u16,
    /// Who gets it.
    pub treasury: Address,
    /// Bounds of workers' price coefficients.
    pub coefficients: Coefficients,
    /// Guest images, at most [`MAX_ENTRIES`].
    pub images: Vec<Image>,
    /// Models, at most [`MAX_ENTRIES`].
    pub models: Vec<Model>,
    /// Gateways, at most [`MAX_ENTRIES`].
    pub gateways: Vec<Gateway>,
    /// Machines that nobody should accept, at most [`MAX_BARRED`].
    pub barred: Vec<PlatformId>,
    /// How old the firmware of AMD's machines may be.
    pub snp: SnpFloors,
}

impl Content {
    /// A fee and its receiver, models at their price, and nothing trusted yet.
    pub fn empty(fee_bps: u16, treasury: Address) -> Self {
        let (images, models, gateways, barred, snp) = Default::default();
        Self { fee_bps, treasury, coefficients: Coefficients::FIXED, images, models, gateways, barred, snp }
    }

    /// The cell that the contract keeps.
    ///
    /// # Errors
    /// A name, a list, the fee or a coefficient is outside its bounds.
    pub fn to_cell(&self) -> Result<Cell, Malformed> {
        self.check()?;
        let images = store_list(self.images.iter().map(store_image))?;
        let models = store_list(self.models.iter().map(store_model))?;
        let gateways = store_list(self.gateways.iter().map(store_gateway))?;
        let barred = store_list(self.barred.iter().map(store_platform))?;
        Ok(build_cell(|b| {
            b.store_u8(CONTENT_FORMAT)?;
            b.store_u16(self.fee_bps)?;
            let context = Cell::empty_context();
            self.treasury.store_into(b, context)?;
            b.store_u32(self.coefficients.min_permille)?;
            b.store_u32(self.coefficients.max_permille)?;
            images.store_into(b, context)?;
            models.store_into(b, context)?;
            gateways.store_into(b, context)?;
            barred.store_into(b, context)?;
            self.snp.store(b)
        }))
    }

    /// Reads what [`Content::to_cell`] wrote.
    ///
    /// # Errors
    /// Another format, or anything outside its bounds.
    pub fn parse(cell: &Cell) -> Result<Self, Malformed> {
        let content = Self::load(cell).map_err(malformed)?;
        content.check()?;
        Ok(content)
    }

    fn check(&self) -> Result<(), Malformed> {
        let refuse = |why: String| Err(malformed(why));
        if self.fee_bps > MAX_FEE_BPS {
            return refuse(format!("a fee of {} basis points is over {MAX_FEE_BPS}", self.fee_bps));
        }
        if self.treasury.workchain != 0 {
            return refuse(format!("the treasury {} is not in workchain 0", self.treasury));
        }
        let Coefficients { min_permille, max_permille } = self.coefficients;
        if min_permille == 0 || min_permille > max_permille || max_permille > MAX_COEFFICIENT_PERMILLE {
            let why = "is not an interval within 1..=";
            return refuse(format!(
                "coefficients {min_permille}..={max_permille} {why}{MAX_COEFFICIENT_PERMILLE}"
            ));
        }
        let lists = [self.images.len(), self.models.len(), self.gateways.len()];
        if lists.into_iter().any(|length| length > MAX_ENTRIES) || self.barred.len() > MAX_BARRED {
            return refuse(format!(
                "more than {MAX_ENTRIES} images, models or gateways, or {MAX_BARRED} barred machines"
            ));
        }
        self.check_entries()
    }

    fn check_entries(&self) -> Result<(), Malformed> {
        let images = self.images.iter().map(|i| &i.name);
        let models = self.models.iter().map(|m| &m.name);
        let gateways = self.gateways.iter().map(|g| &g.name);
        for name in images.chain(models).chain(gateways) {
            if name.is_empty() || name.len() > MAX_NAME_BYTES {
                let why = format!("a name of {} bytes (1 to {MAX_NAME_BYTES} are allowed)", name.len());
                return Err(malformed(why));
            }
        }
        for image in &self.images {
            if image.profile.len() > MAX_NAME_BYTES {
                let why = format!("a profile of {} bytes is over {MAX_NAME_BYTES}", image.profile.len());
                return Err(malformed(why));
            }
            if let Measurements::Vtpm { pcrs } = &image.measurements
                && (pcrs.is_empty() || pcrs.keys().any(|number| usize::from(*number) >= MAX_PCRS))
            {
                let why = format!("{} pins no register of a TPM, or one that there is not", image.name);
                return Err(malformed(why));
            }
        }
        let odd = self.barred.iter().find(|it| !(1..=MAX_PLATFORM_ID_BYTES).contains(&it.id.len()));
        odd.map_or(Ok(()), |it| {
            let why =
                format!("a machine's id of {} bytes (1 to {MAX_PLATFORM_ID_BYTES} are allowed)", it.id.len());
            Err(malformed(why))
        })
    }

    fn load(cell: &Cell) -> Result<Self, Error> {
        let mut slice = cell.as_slice()?;
        if slice.load_u8()? != CONTENT_FORMAT {
            return Err(Error::InvalidTag);
        }
        let fee_bps = slice.load_u16()?;
        let treasury = Address::load_from(&mut slice)?;
        let coefficients = Coefficients { min_permille: slice.load_u32()?, max_permille: slice.load_u32()? };
        let images = load_list(&mut slice, MAX_ENTRIES, load_image)?;
        let models = load_list(&mut slice, MAX_ENTRIES, load_model)?;
        let gateways = load_list(&mut slice, MAX_ENTRIES, load_gateway)?;
        let barred = load_list(&mut slice, MAX_BARRED, load_platform)?;
        let snp = SnpFloors::load(&mut slice)?;
        Ok(Self { fee_bps, treasury, coefficients, images, models, gateways, barred, snp })
    }
}

fn malformed(why: impl std::fmt::Display) -> Malformed {
    Malformed::new("registry content", why)
}

fn store_list(entries: impl Iterator<Item = Cell>) -> Result<Dict<u16, Cell>, Malformed> {
    let mut list = Dict::new();
    for (index, entry) in (0u16..).zip(entries) {
        list.set(index, entry).map_err(malformed)?;
    }
    Ok(list)
}

fn load_list<T>(
    slice: &mut CellSlice<'_>,
    most: usize,
    load: impl Fn(CellSlice<'_>) -> Result<T, Error>,
) -> Result<Vec<T>, Error> {
    let list = Dict::<u16, Cell>::load_from(slice)?;
    let mut entries = Vec::new();
    for entry in list.iter() {
        if entries.len() == most {
            return Err(Error::InvalidData);
        }
        entries.push(load(entry?.1.as_slice()?)?);
    }
    Ok(entries)
}

fn store_image(image: &Image) -> Cell {
    let (platform, measured) = store_measurements(&image.measurements);
    let profile = build_cell(|b| store_text(b, &image.profile));
    build_cell(|b| {
        store_name(b, &image.name, image.status)?;
        b.store_u8(platform)?;
        image.configuration.map(HashBytes).store_into(b, Cell::empty_context())?;
        b.store_reference(profile)?;
        b.store_reference(measured)
    })
}

fn load_image(mut slice: CellSlice<'_>) -> Result<Image, Error> {
    let (name, status) = load_name(&mut slice)?;
    let platform = slice.load_u8()?;
    let configuration = Option::<HashBytes>::load_from(&mut slice)?.map(|digest| digest.0);
    let profile = load_text(&mut slice.load_reference_as_slice()?)?;
    let measurements = load_measurements(platform, slice.load_reference_as_slice()?)?;
    Ok(Image { name, profile, status, measurements, configuration })
}

fn store_measurements(measurements: &Measurements) -> (u8, Cell) {
    match measurements {
        Measurements::Tdx(registers) => (1, store_tdx(registers)),
        Measurements::Snp { launch } => (2, build_cell(|b| b.store_raw(launch, 384))),
        Measurements::Vtpm { pcrs } => {
            let mut list = Dict::<u8, HashBytes>::new();
            for (number, digest) in pcrs {
                list.set(number, HashBytes(*digest)).expect("a register and its digest fit in a dictionary");
            }
            (3, build_cell(|b| list.store_into(b, Cell::empty_context())))
        }
    }
}

fn load_measurements(platform: u8, mut slice: CellSlice<'_>) -> Result<Measurements, Error> {
    match platform {
        1 => Ok(Measurements::Tdx(Box::new(load_tdx(slice)?))),
        2 => Ok(Measurements::Snp { launch: load_register(&mut slice)? }),
        3 => {
            let list = Dict::<u8, HashBytes>::load_from(&mut slice)?;
            let pcrs =
                list.iter().take(MAX_PCRS + 1).map(|entry| entry.map(|(number, digest)| (number, digest.0)));
            Ok(Measurements::Vtpm { pcrs: pcrs.collect::<Result<_, _>>()? })
        }
        _ => Err(Error::InvalidTag),
    }
}

fn store_tdx(TdxRegisters { mrtd, rtmr: [rtmr0, rtmr1, rtmr2, rtmr3] }: &TdxRegisters) -> Cell {
    let pair = |a: &[u8; 48], b: &[u8; 48], next: Option<Cell>| {
        build_cell(|c| {
            c.store_raw(a, 384)?;
            c.store_raw(b, 384)?;
            next.map_or(Ok(()), |next| c.store_reference(next))
        })
    };
    let last = build_cell(|c| c.store_raw(rtmr3, 384));
    pair(mrtd, rtmr0, Some(pair(rtmr1, rtmr2, Some(last))))
}

fn load_tdx(mut first: CellSlice<'_>) -> Result<TdxRegisters, Error> {
    let mut second = first.load_reference_as_slice()?;
    let mut third = second.load_reference_as_slice()?;
    let mrtd = load_register(&mut first)?;
    let rtmr0 = load_register(&mut first)?;
    let rtmr1 = load_register(&mut second)?;
    let rtmr2 = load_register(&mut second)?;
    let rtmr3 = load_register(&mut third)?;
    Ok(TdxRegisters { mrtd, rtmr: [rtmr0, rtmr1, rtmr2, rtmr3] })
}

fn store_model(model: &Model) -> Cell {
    build_cell(|b| {
        store_name(b, &model.name, model.status)?;
        b.store_u256(&HashBytes(model.weights))?;
        let Prices { prompt, cached, completion } = model.prices;
        b.store_u64(prompt)?;
        b.store_u64(cached)?;
        b.store_u64(completion)
    })
}

fn load_model(mut slice: CellSlice<'_>) -> Result<Model, Error> {
    let (name, status) = load_name(&mut slice)?;
    let weights = slice.load_u256()?.0;
    let prices =
        Prices { prompt: slice.load_u64()?, cached: slice.load_u64()?, completion: slice.load_u64()? };
    Ok(Model { name, status, weights, prices })
}

fn store_gateway(gateway: &Gateway) -> Cell {
    build_cell(|b| {
        store_name(b, &gateway.name, gateway.status)?;
        gateway.address.store_into(b, Cell::empty_context())
    })
}

fn load_gateway(mut slice: CellSlice<'_>) -> Result<Gateway, Error> {
    let (name, status) = load_name(&mut slice)?;
    Ok(Gateway { name, status, address: Address::load_from(&mut slice)? })
}

fn store_platform(platform: &PlatformId) -> Cell {
    build_cell(|b| {
        b.store_u8(platform.kind.row().1)?;
        store_bytes(b, &platform.id)
    })
}

fn load_platform(mut slice: CellSlice<'_>) -> Result<PlatformId, Error> {
    let kind = PlatformKind::from_tag(slice.load_u8()?).ok_or(Error::InvalidTag)?;
    Ok(PlatformId { kind, id: load_bytes(&mut slice)? })
}

fn store_name(b: &mut CellBuilder, name: &str, status: Status) -> Result<(), Error> {
    b.store_bit(status == Status::Allowed)?;
    store_text(b, name)
}

fn load_name(slice: &mut CellSlice<'_>) -> Result<(String, Status), Error> {
    let status = if slice.load_bit()? { Status::Allowed } else { Status::Barred };
    Ok((load_text(slice)?, status))
}

fn store_text(b: &mut CellBuilder, text: &str) -> Result<(), Error> {
    store_bytes(b, text.as_bytes())
}

fn load_text(slice: &mut CellSlice<'_>) -> Result<String, Error> {
    String::from_utf8(load_bytes(slice)?).map_err(|_| Error::InvalidData)
}

/// A length of one byte, and that many; at most 64.
fn store_bytes(b: &mut CellBuilder, bytes: &[u8]) -> Result<(), Error> {
    let length = u8::try_from(bytes.len()).map_err(|_| Error::InvalidData)?;
    b.store_u8(length)?;
    b.store_raw(bytes, u16::from(length) * 8)
}

fn load_bytes(slice: &mut CellSlice<'_>) -> Result<Vec<u8>, Error> {
    const { assert!(MAX_NAME_BYTES == MAX_PLATFORM_ID_BYTES) };
    let length = slice.load_u8()?;
    let mut bytes = [0; MAX_NAME_BYTES];
    let bytes = bytes.get_mut(..usize::from(length)).ok_or(Error::InvalidData)?;
    slice.load_raw(bytes, u16::from(length) * 8)?;
    Ok(bytes.to_vec())
}

fn load_register(slice: &mut CellSlice<'_>) -> Result<[u8; 48], Error> {
    let mut register = [0; 48];
    slice.load_raw(&mut register, 384)?;
    Ok(register)
}
