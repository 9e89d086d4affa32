//! GPUs and switches, and their RIMs.

use super::certificates::Pool;
use super::{Inspection, Section, field};
use crate::nvidia::{Device, Evidence, shown as words};
use crate::x509::Certificate;

/// Shows every device and its certificates.
pub(super) fn devices(evidence: &Evidence, shown: &mut Inspection, pool: &mut Pool) {
    for (at, device) in evidence.devices().iter().enumerate() {
        for der in device.certificates() {
            pool.add(der, format!("device {at}"));
        }
        match section(at, device) {
            Ok(section) => shown.devices.push(section),
            Err(error) => shown.cannot_read(&format!("device {at}"), &error),
        }
    }
}

fn section(at: usize, device: &Device) -> Result<Section, crate::Malformed> {
    let report = words::report(device.report())?;
    let said = |text: Option<String>| text.unwrap_or_else(|| "not said".into());
    let mode = match report.protected_pcie {
        None => "not said".to_owned(),
        Some(Ok(on)) => (if on { "on" } else { "off" }).to_owned(),
        Some(Err(other)) => format!("unknown: {other}"),
    };
    let mut fields: Vec<_> = serial(device)
        .into_iter()
        .map(|serial| field("Serial", serial, "of its boot ROM's certificate"))
        .collect();
    fields.extend([
        field("Driver", said(report.driver), "version of the driver"),
        field("VBIOS", said(report.vbios), "version of the firmware"),
        field("Nonce", hex::encode(report.nonce), "the challenge that it answered"),
        field("Measurements", report.measurements.len().to_string(), "how many the report holds"),
        field("Protected PCIe", mode, "several GPUs behind switches"),
    ]);
    fields.extend(report.chip.map(|chip| field("Chip", chip, "as the report names it")));
    if let Some(feature) = report.feature {
        fields.push(field("Feature flag", feature.to_string(), "how it is passed to its guest"));
    }
    if let Some(fwid) = report.fwid {
        fields.push(field("FWID", hex::encode(fwid), "the firmware that holds its key"));
    }
    Ok(Section { title: format!("Device {at}"), fields })
}

/// The serial number of the certificate above the leaf: it names the device, and stays when firmware changes.
fn serial(device: &Device) -> Option<String> {
    let chain: Vec<_> = device.certificates().iter().filter_map(|der| Certificate::parse(der).ok()).collect();
    let leaf = chain.iter().find(|one| chain.iter().all(|other| other.issuer != one.subject))?;
    let boot_rom = chain.iter().find(|other| other.subject == leaf.issuer)?;
    Some(hex::encode(boot_rom.serial))
}

/// Shows a RIM and the certificates beside its signature.
pub(super) fn rim(xml: &[u8], shown: &mut Inspection, pool: &mut Pool) {
    match words::rim(xml) {
        Ok(rim) => {
            rim.certificates.iter().for_each(|der| pool.add(der, "RIM"));
            shown.documents.push(Section {
                title: format!("RIM of a {}", rim.kind),
                fields: vec![
                    field("Product", rim.product, "the chip"),
                    field("Version", rim.version, "what it is about"),
                    field("Measurements", rim.measurements.to_string(), "how many it gives values for"),
                ],
            });
        }
        Err(error) => shown.cannot_read("RIM", &error),
    }
}
