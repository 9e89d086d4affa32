//! Which endorsements a report needs from AMD's key service (AMD 57230, chapter 4), and whether some answer to that.

use super::product::{KeyKind, Product};
use super::report::Report;
use super::tcb::TcbVersion;
use super::vek::Vek;
use crate::needs::{Document, Need};
use crate::x509::{Certificate, Crl};
use crate::{Endorsements, Malformed, UnixTime};

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

impl AmdNeeds {
    /// What a VCEK's certificate says of itself. No signature is looked at.
    ///
    /// # Errors
    /// If it is none, or another chip's or TCB's.
    pub fn vcek(&self, der: &[u8]) -> Result<Document, Malformed> {
        let vek = Vek::read(Certificate::parse(der)?)?;
        if !self.met_by(&vek) {
            return Err(Malformed::new("VCEK", "asked for another: it is of another chip or TCB"));
        }
        let (from, until) = vek.certificate.validity;
        Ok(Document { from, until: Some(until), evaluation_number: None })
    }

    fn met_by(&self, vek: &Vek<'_>) -> bool {
        let chip = match (vek.kind, &self.chip_id) {
            (KeyKind::Vcek, Some(id)) => *id == hex::encode(vek.hardware_id),
            (KeyKind::Vcek, None) => false,
            (KeyKind::Vlek, _) => true,
        };
        vek.kind == self.key && vek.tcb == self.tcb && self.products.contains(&vek.product) && chip
    }
}

/// What `endorsements` lack for this report: its key's certificate, and a revocation list of its product.
pub(crate) fn missing(report: &[u8], endorsements: &Endorsements, at: UnixTime) -> Vec<Need> {
    let Ok(needs) = amd_needs(report) else { return Vec::new() };
    let veks = endorsements.certificates().filter_map(|der| Vek::read(Certificate::parse(der).ok()?).ok());
    let vek = veks.into_iter().find(|vek| needs.met_by(vek));
    let product = match (&vek, &needs.products[..]) {
        (Some(vek), _) => Some(vek.product),
        (None, [one]) => Some(*one),
        // Known once the certificate is there.
        (None, _) => None,
    };
    let key = needs.key;
    let list = product.filter(|product| !has_list(*product, key, endorsements, at));
    let certificate = vek.is_none().then_some(Need::Vek(needs));
    certificate.into_iter().chain(list.map(|product| Need::AmdCrl { product, key })).collect()
}

fn has_list(product: Product, key: KeyKind, endorsements: &Endorsements, at: UnixTime) -> bool {
    let mut lists = endorsements.crls().filter_map(|der| Crl::parse(der).ok());
    lists.any(|list| {
        let issuer = list.issuer_common_name();
        let of_product = issuer == format!("ARK-{}", product.name())
            || Product::of_intermediate(&issuer) == Some((product, key));
        of_product && list.in_date(at)
    })
}
