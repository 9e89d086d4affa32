//! An NVIDIA look-alike that really signs: device root to firmware's key, reports of GPUs and switches, RIMs, and an OCSP
//! responder. A [`Plan`] says what there is; everything in it may be changed before it is signed.

#![allow(dead_code, reason = "each test file uses its own part")]
#![allow(unreachable_pub, reason = "a module of test helpers, shared by several test crates")]

pub mod der;
pub mod ocsp;
pub mod pki;
pub mod rim;

use std::sync::LazyLock;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use cocoon_attestation::{
    Endorsements, Evidence, Exceptions, Genuine, GpuRecord, Refusal, TrustAnchors, UnixTime, Verifier,
};
use ocsp::OcspPlan;
use pki::{CertPlan, Key};
use rim::RimPlan;

pub const NOW: UnixTime = UnixTime(1_795_000_000);
pub const NONCE: [u8; 32] = [0x4e; 32];
pub const DRIVER: &str = "580.95.05";
pub const VBIOS: &str = "96.00.9F.00.01";
pub const FWID: [u8; 48] = [0xf1; 48];
/// A switch's id, in its own byte order.
pub const SWITCH: [u8; 8] = [1, 2, 3, 4, 5, 6, 7, 8];
/// Devices of which keys are kept.
const SEATS: usize = 12;

/// Keys: what is signed with them is up to the plan.
pub struct Keys {
    root: Key,
    family: Key,
    provisioner: Key,
    /// Boot ROM and firmware of each device.
    devices: Vec<(Key, Key)>,
    rim_root: Key,
    rim_authority: Key,
    rim_signer: Key,
    responder: Key,
}

pub static KEYS: LazyLock<Keys> = LazyLock::new(|| Keys {
    root: Key::generate(),
    family: Key::generate(),
    provisioner: Key::generate(),
    devices: (0..SEATS).map(|_| (Key::generate(), Key::generate())).collect(),
    rim_root: Key::generate(),
    rim_authority: Key::generate(),
    rim_signer: Key::generate(),
    responder: Key::generate(),
});

/// One device and its report.
pub struct DevicePlan {
    /// Whose keys it has.
    pub seat: usize,
    /// Whose key signs the report.
    pub signed_by: usize,
    /// The word beside the report.
    pub arch: String,
    pub family: CertPlan,
    pub provisioner: CertPlan,
    pub boot_rom: CertPlan,
    pub firmware: CertPlan,
    /// What stands beside the report: by default the five, leaf first.
    pub chain: fn(Vec<Vec<u8>>) -> Vec<Vec<u8>>,
    pub nonce: [u8; 32],
    /// Index, from 1, and value.
    pub blocks: Vec<(u8, Vec<u8>)>,
    pub opaque: Vec<(u16, Vec<u8>)>,
    /// Before it is signed.
    pub before: fn(&mut Vec<u8>),
    /// After it was signed.
    pub after: fn(&mut Vec<u8>),
    /// Fields of the JSON beside arch, certificate, evidence and nonce.
    pub claims: Vec<(&'static str, String)>,
    pub claimed_nonce: Option<[u8; 32]>,
}

pub fn measurement(index: u8) -> Vec<u8> {
    vec![index; 48]
}

/// SEQUENCE { version, key, FWID }, as Hopper writes it.
pub fn tcb_info(fwid: &[u8]) -> Vec<u8> {
    let fwid = der::sequence(&[der::oid(der::SHA384), der::octets(fwid)]);
    let value = der::sequence(&[der::integer(&[1]), der::public_key(&[4; 97]), fwid]);
    der::extension(&[0x67, 0x81, 0x05, 0x05, 0x04, 0x01], false, &value)
}

/// TCG's DiceTcbInfo with its list of FWIDs, of which the first counts, as Blackwell writes it.
pub fn tcb_info_blackwell(fwid: &[u8]) -> Vec<u8> {
    let entry = |digest: &[u8]| der::sequence(&[der::oid(der::SHA384), der::octets(digest)]);
    let list = der::tlv(0xa6, &[entry(fwid), entry(&[0; 48])].concat());
    let value =
        der::sequence(&[der::tlv(0x80, b"NVIDIA"), der::tlv(0x83, &[1]), list, der::tlv(0x87, &[0; 5])]);
    der::extension(&[0x67, 0x81, 0x05, 0x05, 0x04, 0x01, 0x01], true, &value)
}

impl DevicePlan {
    /// A Hopper GPU in single passthrough, with all that drivers of today say.
    pub fn gpu(seat: usize) -> Self {
        let serial = 0x20 + u8::try_from(seat).expect("few seats");
        let mut firmware = CertPlan::leaf(
            &format!("GH100 A01 GSP FMC LF {seat}"),
            &format!("GH100 A01 GSP BROM {seat}"),
            0x11,
        );
        firmware.extensions.push(tcb_info(&FWID));
        Self {
            seat,
            signed_by: seat,
            arch: "HOPPER".into(),
            family: CertPlan::authority("GH100 Identity", "Device root", 0x02),
            provisioner: CertPlan::authority("GH100 Provisioner", "GH100 Identity", 0x03),
            boot_rom: CertPlan::authority(&format!("GH100 A01 GSP BROM {seat}"), "GH100 Provisioner", serial),
            firmware,
            chain: |chain| chain,
            nonce: NONCE,
            blocks: (1..=64).map(|index| (index, measurement(index))).collect(),
            opaque: vec![
                (6, vec![0x00, 0x9f, 0x00, 0x96, 0x01, 0, 0, 0]),
                (15, b"882\0\0".to_vec()),
                (17, b"1010\0".to_vec()),
                (18, b"0200\0".to_vec()),
                (3, format!("{DRIVER}\0").into_bytes()),
                (11, vec![0xaa]),
                (20, FWID.to_vec()),
                (21, vec![0x55]),
                (34, vec![1, 0]),
                (36, vec![1, 0]),
            ],
            before: |_| {},
            after: |_| {},
            claims: vec![],
            claimed_nonce: Some(NONCE),
        }
    }

    /// A GPU under protected PCIe that sees one switch at two links.
    pub fn gpu_behind_a_switch(seat: usize) -> Self {
        let mut device = Self::gpu(seat);
        device.set(21, &[0xaa]);
        device.set(36, &[2, 0]);
        let seen: Vec<u8> = SWITCH.iter().rev().copied().collect();
        device.set(22, &[&seen[..], &seen[..]].concat());
        device
    }

    /// An NVSwitch that sees two GPUs.
    pub fn switch(seat: usize) -> Self {
        let mut device = Self::gpu(seat);
        device.arch = "LS10".into();
        device.firmware.subject = format!("LS_10 A01 FSP FMC LF {seat}");
        device.boot_rom.subject = format!("LS_10 A01 FSP BROM {seat}");
        device.firmware.issuer.clone_from(&device.boot_rom.subject);
        device.blocks.truncate(31);
        let gpus: Vec<u8> = [[9; 8], [10; 8]].iter().cycle().take(8).flatten().copied().collect();
        device.opaque = vec![
            (6, b"96.10.55.00.01".to_vec()),
            (22, SWITCH.to_vec()),
            (26, [&gpus[..], &[0xff; 64]].concat()),
            (25, vec![1, 0]),
        ];
        device
    }

    /// Replaces a field of the opaque data, or adds it.
    pub fn set(&mut self, kind: u16, value: &[u8]) {
        self.remove(kind);
        self.opaque.push((kind, value.to_vec()));
    }

    pub fn remove(&mut self, kind: u16) {
        self.opaque.retain(|(other, _)| *other != kind);
    }

    /// The report, signed by firmware's key.
    pub fn report(&self) -> Vec<u8> {
        let block = |(index, value): &(u8, Vec<u8>)| {
            let size = u16::try_from(value.len()).expect("short");
            let head = [&[*index, 1], &(size + 3).to_le_bytes()[..], &[1], &size.to_le_bytes()].concat();
            [head, value.clone()].concat()
        };
        let record: Vec<u8> = self.blocks.iter().flat_map(block).collect();
        let field = |(kind, value): &(u16, Vec<u8>)| {
            let size = u16::try_from(value.len()).expect("short");
            [&kind.to_le_bytes()[..], &size.to_le_bytes(), value].concat()
        };
        let opaque: Vec<u8> = self.opaque.iter().flat_map(field).collect();
        let count = u8::try_from(self.blocks.len()).expect("few blocks");
        let mut report = [
            &[0x11, 0xe0, 0x01, 0xff],
            &self.nonce[..],
            &[0],
            &[0x11, 0x60, 0, 0, count],
            &u32::try_from(record.len()).expect("short").to_le_bytes()[..3],
            &record,
            &[0x5a; 32],
            &u16::try_from(opaque.len()).expect("short").to_le_bytes(),
            &opaque,
        ]
        .concat();
        (self.before)(&mut report);
        let signature = KEYS.devices[self.signed_by].1.sign_fixed(&report);
        report.extend(signature);
        (self.after)(&mut report);
        report
    }

    /// Leaf first.
    pub fn certificates(&self) -> Vec<Vec<u8>> {
        let (boot_rom, firmware) = &KEYS.devices[self.seat];
        (self.chain)(vec![
            self.firmware.sign(firmware, boot_rom),
            self.boot_rom.sign(boot_rom, &KEYS.provisioner),
            self.provisioner.sign(&KEYS.provisioner, &KEYS.family),
            self.family.sign(&KEYS.family, &KEYS.root),
            device_root(),
        ])
    }

    fn json(&self) -> serde_json::Value {
        let mut object = serde_json::json!({
            "arch": self.arch,
            "certificate": STANDARD.encode(pki::pem(&self.certificates())),
            "evidence": STANDARD.encode(self.report()),
        });
        if let Some(nonce) = self.claimed_nonce {
            object["nonce"] = hex::encode(nonce).into();
        }
        for (name, value) in &self.claims {
            object[*name] = value.clone().into();
        }
        object
    }

    /// As a bundle carries it.
    pub fn record(&self) -> Vec<u8> {
        let certificates = pki::pem(&self.certificates()).into_bytes();
        GpuRecord { architecture: self.arch.clone(), report: self.report(), certificates }
            .encode()
            .expect("within the limits")
    }
}

pub fn device_root() -> Vec<u8> {
    static ROOT: LazyLock<Vec<u8>> =
        LazyLock::new(|| CertPlan::authority("Device root", "Device root", 1).sign(&KEYS.root, &KEYS.root));
    ROOT.clone()
}

pub fn rim_root() -> Vec<u8> {
    static ROOT: LazyLock<Vec<u8>> =
        LazyLock::new(|| CertPlan::authority("RIM root", "RIM root", 1).sign(&KEYS.rim_root, &KEYS.rim_root));
    ROOT.clone()
}

/// All that is shown to a verifier.
pub struct Plan {
    pub devices: Vec<DevicePlan>,
    pub driver_rim: Option<RimPlan>,
    pub vbios_rim: Option<RimPlan>,
    /// For boot ROM, provisioner and family of each device; an empty list: no responses.
    pub ocsp: Vec<OcspPlan>,
    /// About the RIMs' signers.
    pub rim_ocsp: Option<OcspPlan>,
    pub now: UnixTime,
    /// The verifier's own challenge.
    pub challenge: Option<[u8; 32]>,
    pub json: fn(String) -> String,
}

impl Plan {
    /// One GPU with both RIMs and all OCSP responses: every check passes.
    pub fn honest() -> Self {
        let odd = |index: u8| index % 2 == 1;
        let golden = |keep: &dyn Fn(u8) -> bool| {
            (0..64).map(|index| (index, keep(index), vec![vec![0xee; 48], measurement(index + 1)])).collect()
        };
        Self {
            devices: vec![DevicePlan::gpu(0)],
            driver_rim: Some(RimPlan::new(DRIVER, golden(&odd))),
            vbios_rim: Some(RimPlan::new(VBIOS, golden(&|index| !odd(index)))),
            ocsp: vec![OcspPlan::good(); 3],
            rim_ocsp: None,
            now: NOW,
            challenge: Some(NONCE),
            json: |text| text,
        }
    }

    /// Two GPUs behind one switch, with nothing beside.
    pub fn machine() -> Self {
        let devices = vec![
            DevicePlan::gpu_behind_a_switch(0),
            DevicePlan::gpu_behind_a_switch(1),
            DevicePlan::switch(2),
        ];
        Self { devices, driver_rim: None, vbios_rim: None, ocsp: vec![], ..Self::honest() }
    }

    pub fn evidence(&self) -> Vec<u8> {
        let list: Vec<serde_json::Value> = self.devices.iter().map(DevicePlan::json).collect();
        (self.json)(serde_json::to_string(&list).expect("JSON")).into_bytes()
    }

    pub fn files(&self) -> Vec<Vec<u8>> {
        let mut files: Vec<Vec<u8>> =
            [&self.driver_rim, &self.vbios_rim].into_iter().flatten().map(sign).collect();
        for device in &self.devices {
            let asked = [
                (&device.boot_rom, &KEYS.provisioner),
                (&device.provisioner, &KEYS.family),
                (&device.family, &KEYS.root),
            ];
            let answers = self.ocsp.iter().zip(asked);
            files.extend(answers.map(|(ocsp, (about, issuer))| ocsp.answer(about, issuer, &KEYS.responder)));
        }
        if let (Some(ocsp), Some(rim)) = (&self.rim_ocsp, &self.vbios_rim) {
            files.push(ocsp.answer(&rim.signer, &KEYS.rim_authority, &KEYS.responder));
        }
        files
    }

    pub fn verify(&self) -> Result<Genuine, Refusal> {
        self.verify_bytes(&self.evidence(), self.files())
    }

    pub fn verify_bytes(&self, evidence: &[u8], files: Vec<Vec<u8>>) -> Result<Genuine, Refusal> {
        let (anchors, none) = (anchors(), Exceptions::none());
        let mut verifier = Verifier::new(&anchors, &none, self.now);
        if let Some(nonce) = self.challenge {
            verifier = verifier.with_nonce(nonce);
        }
        let endorsements = Endorsements::from_files(files).expect("files of known forms");
        verifier.verify(&Evidence::detect(evidence)?, &endorsements)
    }
}

pub fn sign(rim: &RimPlan) -> Vec<u8> {
    let stranger = || CertPlan::authority("RIM root", "RIM root", 9).sign(&KEYS.responder, &KEYS.responder);
    let (root, key) =
        if rim.wrong_root { (stranger(), &KEYS.responder) } else { (rim_root(), &KEYS.rim_root) };
    rim.sign(&KEYS.rim_signer, &KEYS.rim_authority, (&root, key))
}

/// The vendors' roots, and the look-alikes'.
pub fn anchors() -> TrustAnchors {
    let roots = TrustAnchors::hardware().with_simulated_root(&device_root()).expect("a root");
    roots.with_simulated_root(&rim_root()).expect("a root")
}
