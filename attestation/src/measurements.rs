//! What was measured into the TEE's registers.

use serde::{Deserialize, Serialize};

use crate::{Malformed, crypto};

/// The registers that say what runs in a TD, 48 bytes (SHA-384) each. In text they are hex.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Text", into = "Text")]
pub struct Measurements {
    /// The initial image.
    pub mrtd: [u8; 48],
    /// Run-time registers: 0 firmware, 1 command line, 2 configuration, 3 model weights.
    pub rtmr: [[u8; 48]; 4],
    /// Set by the host at launch; zero unless the image says otherwise.
    pub mrconfigid: [u8; 48],
    /// Set by the host at launch; zero unless the image says otherwise.
    pub mrowner: [u8; 48],
    /// Set by the host at launch; zero unless the image says otherwise.
    pub mrownerconfig: [u8; 48],
}

impl Measurements {
    /// Names and values of all registers, in the order of the checks.
    pub fn named(&self) -> [(&'static str, &[u8; 48]); 8] {
        [
            ("mrtd", &self.mrtd),
            ("rtmr0", &self.rtmr[0]),
            ("rtmr1", &self.rtmr[1]),
            ("rtmr2", &self.rtmr[2]),
            ("rtmr3", &self.rtmr[3]),
            ("mrconfigid", &self.mrconfigid),
            ("mrowner", &self.mrowner),
            ("mrownerconfig", &self.mrownerconfig),
        ]
    }
}

/// What a register holds after `measured` was extended into it: SHA-384(register ‖ measured).
pub fn extend(register: &[u8; 48], measured: &[u8; 48]) -> [u8; 48] {
    crypto::sha384(&[register, measured])
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    mrtd: String,
    rtmr0: String,
    rtmr1: String,
    rtmr2: String,
    rtmr3: String,
    #[serde(default = "zero", skip_serializing_if = "is_zero")]
    mrconfigid: String,
    #[serde(default = "zero", skip_serializing_if = "is_zero")]
    mrowner: String,
    #[serde(default = "zero", skip_serializing_if = "is_zero")]
    mrownerconfig: String,
}

fn zero() -> String {
    "0".repeat(96)
}

fn is_zero(text: &str) -> bool {
    text.bytes().all(|b| b == b'0')
}

fn register(text: &str) -> Result<[u8; 48], Malformed> {
    let mut out = [0; 48];
    hex::decode_to_slice(text, &mut out)
        .map_err(|e| Malformed::new("measurement", format!("{text:?} is not 96 hex digits: {e}")))?;
    Ok(out)
}

impl TryFrom<Text> for Measurements {
    type Error = Malformed;

    fn try_from(t: Text) -> Result<Self, Malformed> {
        Ok(Self {
            mrtd: register(&t.mrtd)?,
            rtmr: [register(&t.rtmr0)?, register(&t.rtmr1)?, register(&t.rtmr2)?, register(&t.rtmr3)?],
            mrconfigid: register(&t.mrconfigid)?,
            mrowner: register(&t.mrowner)?,
            mrownerconfig: register(&t.mrownerconfig)?,
        })
    }
}

impl From<Measurements> for Text {
    fn from(m: Measurements) -> Self {
        let [r0, r1, r2, r3] = m.rtmr.map(hex::encode);
        Self {
            mrtd: hex::encode(m.mrtd),
            rtmr0: r0,
            rtmr1: r1,
            rtmr2: r2,
            rtmr3: r3,
            mrconfigid: hex::encode(m.mrconfigid),
            mrowner: hex::encode(m.mrowner),
            mrownerconfig: hex::encode(m.mrownerconfig),
        }
    }
}
