//! Which endorsements a report needs from AMD's key service (AMD 57230, chapter 4).

use super::product::{KeyKind, Product};
use super::report::Report;
use super::tcb::TcbVersion;
use crate::Malformed;

/// What to ask AMD's key service for. It comes from a report that is not verified yet: nothing here is believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AmdNeeds {
    /// The product; several to try for a report of version 2, which does not name the processor. Empty for an unknown one.
    pub products: Vec<Product>,
    /// Which key signed. A VLEK is the cloud's to give: the key service does not hand it out.
    pub key: KeyKind,
    /// The hardware id in hex as the key service wants it: 64 bytes, on Turin 8. `None` if the host masks it.
    pub chip_id: Option<String>,
    /// The TCB for which the key was derived.
    pub tcb: TcbVersion,
}

/// What a report needs.
///
/// # Errors
/// If it is malformed, or names no key that signed it.
pub fn amd_needs(report: &[u8]) -> Result<AmdNeeds, Malformed> {
    let report = Report::parse(report)?;
    let key = report
        .signing_key()
        .ok_or_else(|| Malformed::at("SNP report", 0x48, "SIGNING_KEY", "no key that is known"))?;
    let candidates = Product::ALL.into_iter().filter(|product| match report.cpuid {
        Some(_) => report.product() == Some(*product),
        None => product.layout() == report.layout(),
    });
    let products: Vec<Product> = candidates.collect();
    let chip_id = products
        .first()
        .filter(|_| report.chip_id != [0; 64])
        .map(|product| hex::encode(&report.chip_id[..product.chip_id_length()]));
    Ok(AmdNeeds { products, key, chip_id, tcb: report.reported_tcb })
}

impl AmdNeeds {
    /// Path and query of the VCEK for one product, below the key service's address; `None` for a VLEK or a masked chip.
    pub fn vcek_path(&self, product: Product) -> Option<String> {
        let chip = self.chip_id.as_ref().filter(|_| self.key == KeyKind::Vcek)?;
        let TcbVersion { fmc, boot_loader, tee, snp, microcode } = self.tcb;
        let fmc = fmc.map(|fmc| format!("fmcSPL={fmc:02}&")).unwrap_or_default();
        let name = product.name();
        Some(format!(
            "/vcek/v1/{name}/{chip}?{fmc}blSPL={boot_loader:02}&teeSPL={tee:02}&snpSPL={snp:02}&ucodeSPL={microcode:02}"
        ))
    }

    /// Path of the revocation list for one product.
    pub fn crl_path(&self, product: Product) -> String {
        format!("/{}/v1/{}/crl", self.key.name().to_lowercase(), product.name())
    }
}
