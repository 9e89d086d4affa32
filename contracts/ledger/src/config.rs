//! The network's configuration, from a table of our own.
//!
//! Only the parameters that transactions read ([`READ`]). Figures of mainnet in August 2026 (block 84 773 657); a test
//! compares each with that configuration where it is at hand: equal byte for byte, or one of [`DEVIATIONS`], each with
//! its reason.

use std::num::NonZeroU32;

use tycho_executor::ParsedConfig;
use tycho_types::cell::{CellBuilder, HashBytes};
use tycho_types::dict::Dict;
use tycho_types::error::Error;
use tycho_types::models::{
    BlockchainConfig, BurningConfig, GasLimitsPrices, GlobalCapabilities, GlobalVersion, MsgForwardPrices,
    SizeLimitsConfig, StoragePrices, WorkchainDescription, WorkchainFormat, WorkchainFormatBasic,
};

/// The price list that a network runs under.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Schedule {
    /// Mainnet in August 2026: gas at 66.67 nanotons.
    Mainnet2026,
    /// Mainnet before the fees were cut sixfold, as most tools still have it: gas at 400 nanotons.
    Mainnet2025,
}

impl Schedule {
    /// The name by which it is asked for.
    pub fn name(self) -> &'static str {
        match self {
            Self::Mainnet2026 => "mainnet-2026",
            Self::Mainnet2025 => "mainnet-2025",
        }
    }

    /// The schedule of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Mainnet2026, Self::Mainnet2025].into_iter().find(|schedule| schedule.name() == name)
    }
}

/// When the cheaper storage began (30 April 2026). Clocks of [`Schedule::Mainnet2026`] should be past it.
pub const STORAGE_2026_SINCE: u32 = 1_777_500_000;

/// Global version and capabilities that the network announces. (The VM here stops at version 12.)
const GLOBAL_VERSION: u32 = 15;
const CAPABILITIES: u64 = 1006;
/// The configuration parameter with the history of storage prices.
const STORAGE_PARAMETER: u32 = 18;

/// The parameter that says what is burned: what is sent to the masterchain's address of ones, and half of its fees.
const BURNING_PARAMETER: u32 = 5;
const BURNING: BurningConfig = BurningConfig {
    blackhole_addr: Some(HashBytes([0xff; 32])),
    fee_burn_num: 1,
    fee_burn_denom: NonZeroU32::new(2).expect("two is not zero"),
};

/// Mainnet's parameter 43. The executor's own figures differ in one: it allows libraries of 1000 cells.
const SIZE_LIMITS: SizeLimitsConfig =
    SizeLimitsConfig { max_library_cells: 200, ..ParsedConfig::DEFAULT_SIZE_LIMITS_CONFIG };

const STORAGE_FIRST: StoragePrices = StoragePrices {
    utime_since: 0,
    bit_price_ps: 1,
    cell_price_ps: 500,
    mc_bit_price_ps: 1000,
    mc_cell_price_ps: 500_000,
};

const STORAGE_2026: StoragePrices =
    StoragePrices { utime_since: STORAGE_2026_SINCE, bit_price_ps: 0, cell_price_ps: 135, ..STORAGE_FIRST };

const GAS_MASTERCHAIN: GasLimitsPrices = GasLimitsPrices {
    gas_price: 655_360_000,
    gas_limit: 1_000_000,
    special_gas_limit: 70_000_000,
    gas_credit: 10_000,
    block_gas_limit: 2_500_000,
    freeze_due_limit: 100_000_000,
    delete_due_limit: 1_000_000_000,
    flat_gas_limit: 100,
    flat_gas_price: 1_000_000,
};

const GAS_2026: GasLimitsPrices = GasLimitsPrices {
    gas_price: 4_369_067,
    gas_limit: 1_000_000,
    special_gas_limit: 1_000_000,
    block_gas_limit: 10_000_000,
    flat_gas_price: 6_667,
    ..GAS_MASTERCHAIN
};

const GAS_2025: GasLimitsPrices =
    GasLimitsPrices { gas_price: 26_214_400, flat_gas_price: 40_000, ..GAS_2026 };

const FORWARD_MASTERCHAIN: MsgForwardPrices = MsgForwardPrices {
    lump_price: 10_000_000,
    bit_price: 655_360_000,
    cell_price: 65_536_000_000,
    ihr_price_factor: 98_304,
    first_frac: 21_845,
    next_frac: 21_845,
};

const FORWARD_2026: MsgForwardPrices = MsgForwardPrices {
    lump_price: 66_667,
    bit_price: 4_369_067,
    cell_price: 436_906_667,
    ..FORWARD_MASTERCHAIN
};

const FORWARD_2025: MsgForwardPrices = MsgForwardPrices {
    lump_price: 400_000,
    bit_price: 26_214_400,
    cell_price: 2_621_440_000,
    ..FORWARD_MASTERCHAIN
};

/// The parameters that tycho-executor 0.3 reads (`ParsedConfig::parse`). The VM hands contracts the whole configuration;
/// ours ask for none of it but through instructions that read these.
pub const READ: &[u32] = &[5, 8, 12, 18, 19, 20, 21, 24, 25, 31, 43];

/// What differs from mainnet's configuration on purpose: the parameter, and why.
pub const DEVIATIONS: &[(u32, &str)] = &[
    (
        12,
        "rewritten from workchain_v2#a7, which tycho-executor cannot read, to workchain#a6; no zerostate to name",
    ),
    (31, "special accounts are masterchain contracts, and there are none: the configuration's address alone"),
    (
        43,
        "left out, because tycho-executor misreads its layout; the same figures are given to it apart (`SIZE_LIMITS`)",
    ),
];

/// The configuration of a network: its global id and its price list.
pub fn configuration(network: i32, schedule: Schedule) -> Result<BlockchainConfig, Error> {
    let mut config = BlockchainConfig::new_empty(HashBytes([0x55; 32]));
    config.set_global_version(&GlobalVersion {
        version: GLOBAL_VERSION,
        capabilities: GlobalCapabilities::new(CAPABILITIES),
    })?;
    let mut workchains = Dict::<i32, WorkchainDescription>::new();
    workchains.set(0, basechain())?;
    config.set_workchains(&workchains)?;
    config.set_global_id(network)?;
    config.set_gas_prices(true, &GAS_MASTERCHAIN)?;
    config.set_msg_forward_prices(true, &FORWARD_MASTERCHAIN)?;
    match schedule {
        Schedule::Mainnet2026 => {
            set_storage_prices(&mut config, &[STORAGE_FIRST, STORAGE_2026])?;
            config.set_gas_prices(false, &GAS_2026)?;
            config.set_msg_forward_prices(false, &FORWARD_2026)?;
        }
        Schedule::Mainnet2025 => {
            set_storage_prices(&mut config, &[STORAGE_FIRST])?;
            config.set_gas_prices(false, &GAS_2025)?;
            config.set_msg_forward_prices(false, &FORWARD_2025)?;
        }
    }
    config.set_raw(BURNING_PARAMETER, CellBuilder::build_from(BURNING)?)?;
    let address = config.address;
    config.set_fundamental_addresses(&[address])?;
    Ok(config)
}

/// The configuration as the executor wants it. Its storage prices are those in force at `now`.
pub(crate) fn parsed(network: i32, schedule: Schedule, now: u32) -> Result<ParsedConfig, Error> {
    let parsed = ParsedConfig::parse(configuration(network, schedule)?, now)?;
    Ok(ParsedConfig { size_limits: SIZE_LIMITS, ..parsed })
}

/// Keyed by their beginning, as mainnet has them. (tycho-types' own setter numbers them.)
fn set_storage_prices(config: &mut BlockchainConfig, prices: &[StoragePrices]) -> Result<(), Error> {
    let mut history = Dict::<u32, StoragePrices>::new();
    for price in prices {
        history.set(price.utime_since, *price)?;
    }
    let root = history.into_root().ok_or(Error::InvalidData)?;
    config.set_raw(STORAGE_PARAMETER, root)?;
    Ok(())
}

fn basechain() -> WorkchainDescription {
    WorkchainDescription {
        enabled_since: 0,
        actual_min_split: 0,
        min_split: 0,
        max_split: 4,
        active: true,
        accept_msgs: true,
        zerostate_root_hash: HashBytes::ZERO,
        zerostate_file_hash: HashBytes::ZERO,
        version: 0,
        format: WorkchainFormat::Basic(WorkchainFormatBasic { vm_version: -1, vm_mode: 0 }),
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use tycho_types::boc::Boc;
    use tycho_types::models::BlockchainConfigParams;

    use super::*;

    /// The configuration of mainnet, where it is at hand: $COCOON_TON, or ../shared/ton beside the workspace.
    fn mainnet() -> Option<BlockchainConfigParams> {
        let folder = std::env::var_os("COCOON_TON").map_or_else(
            || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/ton"),
            PathBuf::from,
        );
        let bytes = std::fs::read(folder.join("config-mainnet-84773657.boc")).ok()?;
        Some(BlockchainConfigParams::from_raw(Boc::decode(bytes).expect("the file is a bag of cells")))
    }

    /// The parameters among `0..=100` that a configuration has.
    fn parameters(config: &BlockchainConfigParams) -> Vec<u32> {
        (0..=100).filter(|parameter| config.contains_raw(*parameter).unwrap()).collect()
    }

    #[test]
    fn the_table_has_mainnets_figures() {
        let Some(theirs) = mainnet() else {
            eprintln!(
                "SKIPPED: no mainnet configuration (COCOON_TON, or ../shared/ton): OUR FIGURES WERE COMPARED WITH NOTHING"
            );
            return;
        };
        let ours = configuration(-239, Schedule::Mainnet2026).unwrap();
        let differs = |parameter: u32| DEVIATIONS.iter().any(|(number, _)| *number == parameter);
        let mut equal = Vec::new();
        for parameter in parameters(&ours.params).into_iter().chain(READ.iter().copied()) {
            let mine = ours.get_raw_cell(parameter).unwrap().map(|cell| *cell.repr_hash());
            let real = theirs.get_raw_cell(parameter).unwrap().map(|cell| *cell.repr_hash());
            assert_eq!(
                mine == real,
                !differs(parameter),
                "parameter {parameter}: {mine:?}, mainnet has {real:?}"
            );
            equal.extend((mine == real).then_some(parameter));
        }
        equal.sort_unstable();
        equal.dedup();
        assert_eq!(equal, [0, 5, 8, 18, 19, 20, 21, 24, 25], "these are mainnet's to the bit");
    }

    /// Trap 2 of the settlement notes: what we leave out is what is built in.
    #[test]
    fn the_size_limits_that_the_executor_gets_are_mainnets() {
        let Some(theirs) = mainnet() else {
            eprintln!(
                "SKIPPED: no mainnet configuration (COCOON_TON, or ../shared/ton): SIZE LIMITS WERE NOT COMPARED"
            );
            return;
        };
        let cell = theirs.get_raw_cell(43).unwrap().expect("mainnet has it");
        let mut real = cell.as_slice().unwrap();
        assert_eq!(real.load_u8().unwrap(), 2, "size_limits_config_v2");
        let ours = parsed(-239, Schedule::Mainnet2026, STORAGE_2026_SINCE).unwrap().size_limits;
        assert_eq!(real.load_u32().unwrap(), ours.max_msg_bits);
        assert_eq!(real.load_u32().unwrap(), ours.max_msg_cells);
        assert_eq!(real.load_u32().unwrap(), ours.max_library_cells);
        assert_eq!(real.load_u16().unwrap(), ours.max_vm_data_depth);
        assert_eq!(real.load_u32().unwrap(), ours.max_ext_msg_size);
        assert_eq!(real.load_u16().unwrap(), ours.max_ext_msg_depth);
        assert_eq!(real.load_u32().unwrap(), ours.max_acc_state_cells);
        assert_eq!(real.load_u32().unwrap(), 2048, "the misread one: cells of a masterchain account");
        assert_eq!(real.load_u32().unwrap(), ours.max_acc_public_libraries);
        assert_eq!(real.load_u32().unwrap(), ours.defer_out_queue_size_limit);
    }

    #[test]
    fn the_executor_reads_it() {
        for schedule in [Schedule::Mainnet2026, Schedule::Mainnet2025] {
            let config = parsed(-217, schedule, STORAGE_2026_SINCE + 1).unwrap();
            assert_eq!(config.global_id, -217);
            assert_eq!(config.size_limits, SIZE_LIMITS);
            assert_eq!(Schedule::from_name(schedule.name()), Some(schedule));
        }
        assert_eq!(Schedule::from_name("free"), None);
    }
}
