//! The guest policy and the platform's set-up: bit fields of AMD 56860 (SEV-SNP Firmware ABI).

/// POLICY: what the guest's owner lets the host do (AMD 56860, 4.3). The firmware keeps to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GuestPolicy(pub u64);

/// PLATFORM_INFO: how the platform is set up (PLATFORM_INFO in AMD 56860, 7.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlatformInfo(pub u64);

macro_rules! bits {
    ($type:ident { $($(#[$doc:meta])* $name:ident = $bit:literal),* $(,)? }) => {
        impl $type {
            $($(#[$doc])* pub fn $name(self) -> bool { self.0 >> $bit & 1 != 0 })*
        }
    };
}

bits!(GuestPolicy {
    /// SMT: the host may use simultaneous multi-threading.
    smt = 16,
    /// Reserved, must be one.
    must_be_one = 17,
    /// MIGRATE_MA: a migration agent may move the guest.
    migration_agent = 18,
    /// DEBUG: the host may read and write the guest's memory.
    debug = 19,
    /// SINGLE_SOCKET: the guest runs on one socket only.
    single_socket = 20,
    /// CXL_ALLOW: CXL devices may hold the guest's memory.
    cxl = 21,
    /// MEM_AES_256_XTS: memory must be encrypted with AES-256-XTS.
    aes_256_xts = 22,
    /// RAPL_DIS: power measurement must be off.
    rapl_off = 23,
    /// CIPHERTEXT_HIDING_DRAM: the host must not see the guest's ciphertext.
    ciphertext_hiding = 24,
    /// PAGE_SWAP_DISABLE: guest pages must not be moved out.
    page_swap_off = 25,
});

impl GuestPolicy {
    /// Bits that AMD reserves as zero: 26 and above.
    pub(crate) const RESERVED: u64 = !0 << 26;

    /// The lowest firmware ABI the guest runs on: major, minor.
    pub fn minimum_abi(self) -> (u8, u8) {
        let [minor, major, ..] = self.0.to_le_bytes();
        (major, minor)
    }
}

bits!(PlatformInfo {
    /// SMT_EN: simultaneous multi-threading is on.
    smt = 0,
    /// TSME_EN: all memory is encrypted, the host's too.
    tsme = 1,
    /// ECC_EN: memory corrects errors.
    ecc = 2,
    /// RAPL_DIS: power measurement is off.
    rapl_off = 3,
    /// CIPHERTEXT_HIDING_DRAM_EN: the host does not see guests' ciphertext.
    ciphertext_hiding = 4,
    /// ALIAS_CHECK_COMPLETE: since the last reset, memory was found to have no two addresses for one place.
    alias_check_complete = 5,
    /// TIO_EN: devices may be part of a guest.
    tio = 7,
});

impl PlatformInfo {
    /// Bits that AMD reserves: 8 and above. Bit 6 is reserved too, but genuine Turins set it.
    pub(crate) const RESERVED: u64 = !0 << 8;
}
