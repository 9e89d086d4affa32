//! Certificate chains in PEM, in the one form Intel writes them.
//!
//! Strict on purpose: text beside the certificates, other line lengths or loose base64 bits would be bytes that nobody
//! signed and nobody checks.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::Malformed;

const BEGIN: &str = "-----BEGIN CERTIFICATE-----\n";
const END: &str = "-----END CERTIFICATE-----";
const LINE: usize = 64;

/// The largest chain, in bytes of text.
pub(crate) const MAX_CHAIN: usize = 16 * 1024;
/// Most certificates in a chain.
const MAX_CERTIFICATES: usize = 4;

/// The certificates (DER) of a chain whose text ends in one of `endings`.
pub(crate) fn chain(text: &[u8], endings: &[&str]) -> Result<Vec<Vec<u8>>, String> {
    if text.len() > MAX_CHAIN {
        return Err(format!("chain of {} bytes, at most {MAX_CHAIN}", text.len()));
    }
    let text = std::str::from_utf8(text).map_err(|_| "chain is not text".to_owned())?;
    let (body, ending) = text.rsplit_once(END).ok_or("chain holds no certificate")?;
    if !endings.contains(&ending) {
        return Err("text after the last certificate".to_owned());
    }
    let parts: Vec<&str> = body.split(&format!("{END}\n")).collect();
    if parts.len() > MAX_CERTIFICATES {
        return Err(format!("{} certificates, at most {MAX_CERTIFICATES}", parts.len()));
    }
    parts.into_iter().map(certificate).collect()
}

fn certificate(part: &str) -> Result<Vec<u8>, String> {
    let encoded = part.strip_prefix(BEGIN).ok_or("text between certificates")?;
    let mut compact = Vec::with_capacity(encoded.len());
    let mut lines = encoded.as_bytes().chunks(LINE + 1).peekable();
    while let Some(line) = lines.next() {
        let (end, base64) = line.split_last().ok_or("certificate holds nothing")?;
        let full = base64.len() == LINE || (lines.peek().is_none() && !base64.is_empty());
        if *end != b'\n' || !full || base64.contains(&b'\n') {
            return Err("certificate is not in canonical PEM".into());
        }
        compact.extend_from_slice(base64);
    }
    // This engine takes one encoding only: padded, and without loose bits.
    STANDARD.decode(compact).map_err(|e| format!("certificate is not base64: {e}"))
}

/// Most certificates and CRLs in one PEM file.
const MAX_BLOCKS: usize = 64;

/// All certificates and CRLs (DER) of a PEM file that the caller brings: text between them is passed over, lines may end in
/// CR LF.
pub(crate) fn blocks(text: &[u8]) -> Result<Vec<Vec<u8>>, Malformed> {
    const WHAT: &str = "PEM file";
    let text = std::str::from_utf8(text)
        .map_err(|error| Malformed::at(WHAT, error.valid_up_to(), "text", "not UTF-8"))?;
    let (mut blocks, mut inside): (Vec<Vec<u8>>, Option<(&str, String)>) = (Vec::new(), None);
    for line in text.lines().map(str::trim) {
        let label = |prefix| line.strip_prefix(prefix).and_then(|rest: &str| rest.strip_suffix("-----"));
        if let Some(begun) = label("-----BEGIN ") {
            if inside.is_some() || blocks.len() == MAX_BLOCKS {
                return Err(Malformed::new(
                    WHAT,
                    format!("a block inside a block, or more than {MAX_BLOCKS}"),
                ));
            }
            inside = Some((begun, String::new()));
        } else if let Some(ended) = label("-----END ") {
            let (begun, base64) =
                inside.take().ok_or_else(|| Malformed::new(WHAT, "a block ends that never began"))?;
            if begun != ended || !["CERTIFICATE", "X509 CRL"].contains(&begun) {
                return Err(Malformed::new(WHAT, format!("a block {begun:?} that ends as {ended:?}")));
            }
            blocks.push(
                STANDARD
                    .decode(&base64)
                    .map_err(|error| Malformed::new(WHAT, format!("not base64: {error}")))?,
            );
        } else if let Some((_, base64)) = &mut inside {
            base64.push_str(line);
        }
    }
    if inside.is_some() || blocks.is_empty() {
        return Err(Malformed::new(WHAT, "it ends inside a block, or holds none"));
    }
    Ok(blocks)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrap(base64: &str) -> String {
        let mut out = String::with_capacity(base64.len() + base64.len() / LINE + 1);
        for (at, character) in base64.chars().enumerate() {
            if at > 0 && at % LINE == 0 {
                out.push('\n');
            }
            out.push(character);
        }
        out.push('\n');
        out
    }

    fn pem(der: &[u8]) -> String {
        format!("{BEGIN}{}{END}", wrap(&STANDARD.encode(der)))
    }

    #[test]
    fn reads_what_it_writes() {
        for length in [1, 47, 48, 49, 600] {
            let der = vec![0xa5; length];
            let text = format!("{}\n{}\n", pem(&der), pem(&[1, 2]));
            assert_eq!(chain(text.as_bytes(), &["\n"]), Ok(vec![der, vec![1, 2]]));
        }
    }

    #[test]
    fn refuses_every_changed_byte_or_gives_another_certificate() {
        let der = vec![7; 100];
        let text = format!("{}\n", pem(&der)).into_bytes();
        for at in 0..text.len() {
            for bit in 0..8 {
                let mut changed = text.clone();
                changed[at] ^= 1 << bit;
                let same =
                    chain(&changed, &["\n", "\n\0"]).is_ok_and(|certificates| certificates == [der.clone()]);
                assert!(!same, "byte {at} bit {bit}");
            }
        }
    }

    #[test]
    fn refuses_text_around_certificates() {
        let good = pem(&[1; 30]);
        for text in [
            String::new(),
            format!("x{good}\n"),
            format!("{good}\n\n{good}\n"),
            format!("{good}\nx"),
            format!("{good}\r\n"),
            good.replace("\n-----END", "\n\n-----END"),
        ] {
            assert!(chain(text.as_bytes(), &["\n"]).is_err(), "{text:?}");
        }
    }
}
