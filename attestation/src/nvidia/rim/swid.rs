//! What a RIM says: a SWID tag (ISO/IEC 19770-2) with the golden measurements as resources of its payload.

use std::collections::BTreeMap;

use super::xml::{Document, Element};
use crate::Malformed;

const SWID: &str = "http://standards.iso.org/iso/19770/-2/2015/schema.xsd";
const SHA384: &str = "http://www.w3.org/2001/04/xmlenc#sha384";
/// Most alternative values of one measurement.
const MAX_ALTERNATIVES: usize = 64;
/// The largest measurement, in bytes.
const MAX_VALUE: usize = 64;

/// The contents of a RIM. Believed only once its signature and chain hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Swid {
    /// `colloquialVersion`: of the driver or the VBIOS.
    pub(super) version: String,
    /// `product`, for example `GH100`.
    pub(super) product: String,
    /// Values that an active index may have; indices count from 0.
    pub(super) golden: BTreeMap<u8, Vec<Vec<u8>>>,
}

impl Swid {
    pub(super) fn of(document: &Document<'_>) -> Result<Self, Malformed> {
        let root = document.root();
        if !root.is(SWID, "SoftwareIdentity") {
            return Err(wrong("the root is not a SoftwareIdentity"));
        }
        let meta = one(document, "Meta")?;
        let text = |name: &'static str| {
            let value = meta.attribute(name).filter(|value| (1..=64).contains(&value.len()));
            value.map(str::to_owned).ok_or_else(|| wrong(format!("Meta has no {name} of 1 to 64 bytes")))
        };
        Ok(Self { version: text("colloquialVersion")?, product: text("product")?, golden: golden(document)? })
    }
}

fn wrong(reason: impl Into<String>) -> Malformed {
    Malformed::at("RIM", 0, "SWID", reason)
}

/// The one element of this name in the root, and in the whole document.
fn one<'d, 'a>(document: &'d Document<'a>, name: &str) -> Result<&'d Element<'a>, Malformed> {
    let mut found = document.elements.iter().filter(|element| element.is(SWID, name));
    match (found.next(), found.next()) {
        (Some(element), None) if element.parent == Some(0) => Ok(element),
        _ => Err(wrong(format!("not exactly one {name} in the root"))),
    }
}

fn golden(document: &Document<'_>) -> Result<BTreeMap<u8, Vec<Vec<u8>>>, Malformed> {
    let payload = one(document, "Payload")?;
    let resources = document.children(payload).ok_or_else(|| wrong("text in the payload"))?;
    let (mut golden, mut seen) = (BTreeMap::new(), [false; 256]);
    for resource in resources.into_iter().map(|at| &document.elements[at]) {
        // A kind that is not compared here would be a requirement passed over in silence.
        if !resource.is(SWID, "Resource") || resource.attribute("type") != Some("Measurement") {
            return Err(wrong("a resource that is not a measurement"));
        }
        let index = number(resource, "index")?;
        let index = u8::try_from(index).map_err(|_| wrong(format!("index {index}")))?;
        if std::mem::replace(&mut seen[usize::from(index)], true) {
            return Err(wrong(format!("index {index} stands there twice")));
        }
        let values = alternatives(resource)?;
        match resource.attribute("active") {
            Some("True") => drop(golden.insert(index, values)),
            Some("False") => {}
            other => return Err(wrong(format!("active={other:?} at index {index}"))),
        }
    }
    if golden.is_empty() {
        return Err(wrong("no active measurement"));
    }
    Ok(golden)
}

fn alternatives(resource: &Element<'_>) -> Result<Vec<Vec<u8>>, Malformed> {
    let (count, size) = (number(resource, "alternatives")?, number(resource, "size")?);
    let present = resource.attributes.iter().filter(|attribute| attribute.namespace == SHA384).count();
    if !(1..=MAX_ALTERNATIVES).contains(&count) || present != count || !(1..=MAX_VALUE).contains(&size) {
        let got = format!("{count} alternatives of {size} bytes, {present} present");
        return Err(wrong(got));
    }
    let value = |at: usize| {
        let text = resource.attribute_of(SHA384, &format!("Hash{at}"));
        let value = text.and_then(|text| hex::decode(text).ok()).filter(|value| value.len() == size);
        value.ok_or_else(|| wrong(format!("Hash{at} is not {size} bytes in hex")))
    };
    (0..count).map(value).collect()
}

/// A decimal number in its shortest form.
fn number(element: &Element<'_>, name: &str) -> Result<usize, Malformed> {
    let text = element.attribute(name).unwrap_or_default();
    let plain = (1..=4).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    let canonical = plain && (text.len() == 1 || !text.starts_with('0'));
    text.parse().ok().filter(|_| canonical).ok_or_else(|| wrong(format!("{name}={text:?} is not a number")))
}
