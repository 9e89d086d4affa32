//! What AMD certifies about an endorsement key: the extensions of VCEK and VLEK certificates (AMD 57230, chapter 3).
//!
//! | extension 1.3.6.1.4.1.3704.1.… | content | meaning |
//! | --- | --- | --- |
//! | 1 | INTEGER | version of this structure, 0 or 1 |
//! | 2 | IA5String | product, with or without a stepping |
//! | 3.1, 3.2, 3.3, 3.8 | INTEGER | boot loader, TEE, SNP, microcode |
//! | 3.9 | INTEGER | FMC, on Turin |
//! | 3.4 to 3.7 | INTEGER | reserved |
//! | 4 | the bytes themselves | hardware id, in a VCEK; older key servers wrap them in an OCTET STRING |
//! | 5 | IA5String | the cloud, in a VLEK |

use super::product::{KeyKind, Product};
use super::tcb::TcbVersion;
use crate::Malformed;
use crate::der::{Reader, tag};
use crate::x509::{Certificate, PublicKey};

const WHAT: &str = "VCEK or VLEK";
/// 1.3.6.1.4.1.3704.1
const AMD: [u8; 8] = [0x2b, 0x06, 0x01, 0x04, 0x01, 0x9c, 0x78, 0x01];

/// A certificate of an endorsement key, taken apart. Nothing in it is believed yet.
#[derive(Debug, Clone)]
pub(crate) struct Vek<'a> {
    pub(crate) certificate: Certificate<'a>,
    pub(crate) kind: KeyKind,
    pub(crate) product: Product,
    pub(crate) tcb: TcbVersion,
    /// In a VCEK: 64 bytes, on Turin 8. Empty in a VLEK.
    pub(crate) hardware_id: &'a [u8],
    /// In a VLEK: whose it is. Empty in a VCEK.
    pub(crate) cloud: &'a str,
}

/// Does it have AMD's extensions? Then it is meant as the certificate of an endorsement key.
pub(crate) fn is_vek(certificate: &Certificate<'_>) -> bool {
    certificate.extensions().iter().any(|extension| extension.oid.starts_with(&AMD))
}

impl<'a> Vek<'a> {
    /// Reads the extensions.
    ///
    /// # Errors
    /// If one is missing, of another form, or does not belong.
    pub(crate) fn read(certificate: Certificate<'a>) -> Result<Self, Malformed> {
        let of = Extensions(&certificate);
        if !matches!(certificate.key, PublicKey::P384(_)) {
            return Err(Malformed::new(WHAT, "its key is not of P-384"));
        }
        let version = of.number(&[1], "structVersion")?;
        if version > 1 {
            return Err(Malformed::new(WHAT, format!("structVersion {version} is not known")));
        }
        let name = of.text(&[2], "productName")?;
        let product = Product::of_extension(name)
            .ok_or_else(|| Malformed::new(WHAT, format!("product {:?} is not known", name.escape_debug())))?;
        let fmc = (product == Product::Turin).then(|| of.number(&[3, 9], "fmcSPL")).transpose()?;
        let tcb = TcbVersion {
            fmc,
            boot_loader: of.number(&[3, 1], "blSPL")?,
            tee: of.number(&[3, 2], "teeSPL")?,
            snp: of.number(&[3, 3], "snpSPL")?,
            microcode: of.number(&[3, 8], "ucodeSPL")?,
        };
        let (kind, hardware_id, cloud) = match (of.value(&[4]), of.value(&[5])) {
            (Some(id), None) => (KeyKind::Vcek, hardware_id(id, product)?, ""),
            (None, Some(_)) => (KeyKind::Vlek, &[][..], of.text(&[5], "cspID")?),
            _ => return Err(Malformed::new(WHAT, "it must have either a hardware id or a cloud's id")),
        };
        Ok(Self { kind, product, tcb, hardware_id, cloud, certificate })
    }
}

fn hardware_id(value: &[u8], product: Product) -> Result<&[u8], Malformed> {
    let length = product.chip_id_length();
    if value.len() == length {
        return Ok(value);
    }
    let mut reader = Reader::new(value, WHAT);
    let id = reader.octets("hwID")?;
    reader.end("hwID")?;
    if id.len() != length {
        return Err(Malformed::new(WHAT, format!("a hardware id of {} bytes, must be {length}", id.len())));
    }
    Ok(id)
}

struct Extensions<'c, 'a>(&'c Certificate<'a>);

impl<'a> Extensions<'_, 'a> {
    fn value(&self, arcs: &[u8]) -> Option<&'a [u8]> {
        let mut all = self.0.extensions().iter();
        all.find(|extension| extension.oid.strip_prefix(&AMD) == Some(arcs)).map(|extension| extension.value)
    }

    fn reader(&self, arcs: &[u8], field: &str) -> Result<Reader<'a>, Malformed> {
        let value = self
            .value(arcs)
            .ok_or_else(|| Malformed::new(WHAT, format!("the extension {field} is missing")))?;
        Ok(Reader::new(value, WHAT))
    }

    /// An INTEGER from 0 to 255.
    fn number(&self, arcs: &[u8], field: &'static str) -> Result<u8, Malformed> {
        let mut reader = self.reader(arcs, field)?;
        let number = reader.number(field)?;
        reader.end(field)?;
        u8::try_from(number).map_err(|_| Malformed::new(WHAT, format!("{field} {number} is above 255")))
    }

    fn text(&self, arcs: &[u8], field: &'static str) -> Result<&'a str, Malformed> {
        let mut reader = self.reader(arcs, field)?;
        let text = reader.expect(tag::IA5_STRING, field)?.content;
        reader.end(field)?;
        let ascii = std::str::from_utf8(text).ok().filter(|text| text.is_ascii() && !text.is_empty());
        ascii.ok_or_else(|| Malformed::new(WHAT, format!("{field} is not ASCII text")))
    }
}
