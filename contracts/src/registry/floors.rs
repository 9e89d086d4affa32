//! How old the firmware of AMD SEV-SNP machines may be. A property of machines and not of images: one set for the network.

use tycho_types::cell::{CellBuilder, CellSlice};
use tycho_types::error::Error;

/// The lowest version of each part of an AMD platform's trusted computing base (TCB_VERSION of AMD's SEV-SNP firmware ABI
/// specification, document 56860, section 2.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TcbFloor {
    /// Boot loader of the security processor.
    pub boot_loader: u8,
    /// Operating system of the security processor.
    pub tee: u8,
    /// SNP firmware.
    pub snp: u8,
    /// Microcode.
    pub microcode: u8,
}

/// The floor of EPYC 9005, whose TCB has one part more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TurinFloor {
    /// FMC.
    pub fmc: u8,
    /// The parts that every product has.
    pub tcb: TcbFloor,
}

/// The floor of each product. A product without one is not accepted: with none at all, no SEV-SNP machine is, whatever
/// images are allowed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SnpFloors {
    /// EPYC 7003. Who accepts it must also make the exception `snp:milan`, which no registry makes for him.
    pub milan: Option<TcbFloor>,
    /// EPYC 9004 and 8004.
    pub genoa: Option<TcbFloor>,
    /// EPYC 9005.
    pub turin: Option<TurinFloor>,
}

impl SnpFloors {
    /// Whether no product has a floor.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Writes the products in order: a bit, and after a one the parts, a byte each; Turin's FMC before them.
    pub(super) fn store(&self, b: &mut CellBuilder) -> Result<(), Error> {
        for floor in [self.milan, self.genoa] {
            b.store_bit(floor.is_some())?;
            floor.map_or(Ok(()), |floor| floor.store(b))?;
        }
        b.store_bit(self.turin.is_some())?;
        self.turin.map_or(Ok(()), |floor| {
            b.store_u8(floor.fmc)?;
            floor.tcb.store(b)
        })
    }

    /// Reads what [`SnpFloors::store`] wrote.
    pub(super) fn load(slice: &mut CellSlice<'_>) -> Result<Self, Error> {
        let milan = slice.load_bit()?.then(|| TcbFloor::load(slice)).transpose()?;
        let genoa = slice.load_bit()?.then(|| TcbFloor::load(slice)).transpose()?;
        let turin = slice.load_bit()?.then(|| {
            let fmc = slice.load_u8()?;
            Ok::<_, Error>(TurinFloor { fmc, tcb: TcbFloor::load(slice)? })
        });
        Ok(Self { milan, genoa, turin: turin.transpose()? })
    }
}

impl TcbFloor {
    fn store(self, b: &mut CellBuilder) -> Result<(), Error> {
        [self.boot_loader, self.tee, self.snp, self.microcode]
            .into_iter()
            .try_for_each(|part| b.store_u8(part))
    }

    fn load(slice: &mut CellSlice<'_>) -> Result<Self, Error> {
        let (boot_loader, tee) = (slice.load_u8()?, slice.load_u8()?);
        Ok(Self { boot_loader, tee, snp: slice.load_u8()?, microcode: slice.load_u8()? })
    }
}
