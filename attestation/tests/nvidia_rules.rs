//! Every rule about NVIDIA's devices: the honest platform passes all of them, and each row breaks exactly one thing.

#[path = "kit/nvidia/mod.rs"]
mod nvidia;

use RefusalKind::{Malformed, Rejected, Signature, Unavailable};
use cocoon_attestation::nvidia::Mode;
use cocoon_attestation::{RefusalKind, Status, UnixTime};
use nvidia::ocsp::{OcspPlan, Says, Signer};
use nvidia::rim::RimPlan;
use nvidia::{DevicePlan, NOW, Plan, measurement, tcb_info, tcb_info_blackwell};

type Edit = fn(&mut Plan);

fn device(plan: &mut Plan) -> &mut DevicePlan {
    &mut plan.devices[0]
}

fn driver(plan: &mut Plan) -> &mut RimPlan {
    plan.driver_rim.as_mut().expect("the honest plan has one")
}

fn vbios(plan: &mut Plan) -> &mut RimPlan {
    plan.vbios_rim.as_mut().expect("the honest plan has one")
}

/// What, how, the check that refuses it, and its kind.
const BAD: &[(&str, Edit, &str, RefusalKind)] = &[
    // The report.
    ("no signature was asked for", |p| device(p).before = |r| r[2] = 0, "gpu.format", Malformed),
    ("not all measurements were asked for", |p| device(p).before = |r| r[3] = 1, "gpu.format", Malformed),
    ("another response code", |p| device(p).before = |r| r[38] = 0x7f, "gpu.format", Malformed),
    ("another SPDM version", |p| device(p).before = |r| r[37] = 0x12, "gpu.format", Malformed),
    ("one block fewer than counted", |p| device(p).before = |r| r[41] += 1, "gpu.format", Malformed),
    ("one block more than counted", |p| device(p).before = |r| r[41] -= 1, "gpu.format", Malformed),
    ("a record that runs out", |p| device(p).before = |r| r[44] = 0xff, "gpu.format", Malformed),
    ("an index twice", |p| device(p).blocks[1].0 = 1, "gpu.format", Malformed),
    ("index 0", |p| device(p).blocks[0].0 = 0, "gpu.format", Malformed),
    ("a specification that is not DMTF's", |p| device(p).before = |r| r[46] = 2, "gpu.format", Malformed),
    ("a value shorter than its measurement", |p| device(p).before = |r| r[50] -= 1, "gpu.format", Malformed),
    ("an opaque field twice", |p| device(p).opaque.push((3, b"1\0".to_vec())), "gpu.format", Malformed),
    ("opaque data of a newer version", |p| device(p).set(34, &[2, 0]), "gpu.format", Unavailable),
    (
        "a byte after the signature that is not zero",
        |p| device(p).after = |r| r.push(1),
        "gpu.format",
        Malformed,
    ),
    ("two bytes after the signature", |p| device(p).after = |r| r.extend([0, 0]), "gpu.format", Malformed),
    ("a signature cut short", |p| device(p).after = |r| r.truncate(r.len() - 1), "gpu.format", Malformed),
    ("a measurement changed after signing", |p| device(p).after = |r| r[60] ^= 1, "gpu.signature", Signature),
    ("another device's key", |p| device(p).signed_by = 1, "gpu.signature", Signature),
    // The chain.
    ("a forged leaf", |p| device(p).firmware.forged = true, "gpu.chain", Signature),
    ("a forged boot ROM", |p| device(p).boot_rom.forged = true, "gpu.chain", Signature),
    ("a forged provisioner", |p| device(p).provisioner.forged = true, "gpu.chain", Signature),
    ("a forged family", |p| device(p).family.forged = true, "gpu.chain", Signature),
    ("a boot ROM that is no authority", |p| device(p).boot_rom.authority = None, "gpu.chain", Signature),
    (
        "a provisioner that may not certify",
        |p| device(p).provisioner.key_usage = 0x80,
        "gpu.chain",
        Signature,
    ),
    (
        "a path length that is exceeded",
        |p| device(p).family.authority = Some(Some(1)),
        "gpu.chain",
        Signature,
    ),
    ("a leaf that may not sign", |p| device(p).firmware.key_usage = 0x20, "gpu.chain", Signature),
    (
        "a critical extension that is not known",
        |p| {
            let extension = nvidia::der::extension(&[0x2a, 3], true, &[5, 0]);
            device(p).boot_rom.extensions.push(extension);
        },
        "gpu.chain",
        Signature,
    ),
    (
        "four certificates",
        |p| {
            device(p).chain = |mut c| {
                c.remove(2);
                c
            }
        },
        "gpu.chain",
        Signature,
    ),
    (
        "six certificates",
        |p| {
            device(p).chain = |mut c| {
                c.push(nvidia::rim_root());
                c
            }
        },
        "gpu.chain",
        Signature,
    ),
    (
        "no root",
        |p| {
            device(p).chain = |mut c| {
                c.pop();
                c
            }
        },
        "gpu.chain",
        Signature,
    ),
    (
        "the RIMs' root",
        |p| {
            device(p).chain = |mut c| {
                c[4] = nvidia::rim_root();
                c
            }
        },
        "gpu.chain",
        Signature,
    ),
    (
        "no leaf",
        |p| {
            device(p).chain = |mut c| {
                c.remove(0);
                c
            }
        },
        "gpu.chain",
        Unavailable,
    ),
    ("a leaf out of date", |p| device(p).firmware.until = UnixTime(NOW.0 - 1), "gpu.validity", Unavailable),
    ("a family not yet valid", |p| device(p).family.from = UnixTime(NOW.0 + 1), "gpu.validity", Unavailable),
    // Revocation.
    ("a revoked boot ROM", |p| p.ocsp[0].says = Says::Revoked(1), "gpu.revocation", Rejected),
    ("a boot ROM on hold", |p| p.ocsp[0].says = Says::Revoked(6), "gpu.revocation", Rejected),
    ("a revoked family", |p| p.ocsp[2].says = Says::Revoked(0), "gpu.revocation", Rejected),
    (
        "a revocation out of date",
        |p| {
            p.ocsp[0].says = Says::Revoked(1);
            p.ocsp[0].next_update = Some(UnixTime(NOW.0 - 1));
        },
        "gpu.revocation",
        Rejected,
    ),
    (
        "a certificate the responder does not know",
        |p| p.ocsp[1].says = Says::Unknown,
        "gpu.revocation",
        Rejected,
    ),
    (
        "an answer that is too old",
        |p| p.ocsp[1].next_update = Some(UnixTime(NOW.0 - 1)),
        "gpu.revocation",
        Unavailable,
    ),
    (
        "an answer from the future",
        |p| p.ocsp[1].this_update = UnixTime(NOW.0 + 1),
        "gpu.revocation",
        Unavailable,
    ),
    ("an answer without an end", |p| p.ocsp[1].next_update = None, "gpu.revocation", Unavailable),
    ("a forged answer", |p| p.ocsp[0].forged = true, "gpu.revocation", Signature),
    (
        "a responder without its purpose",
        |p| p.ocsp[0].signer = Signer::NoResponder,
        "gpu.revocation",
        Signature,
    ),
    ("a stranger's responder", |p| p.ocsp[0].signer = Signer::Stranger, "gpu.revocation", Signature),
    ("an answer about another certificate", |p| p.ocsp[0].other = true, "gpu.revocation", Unavailable),
    ("an answer missing", |p| p.ocsp.truncate(2), "gpu.revocation", Unavailable),
    ("a responder that says try later", |p| p.ocsp[0].status = 3, "gpu.revocation", Malformed),
    ("a critical extension in an answer", |p| p.ocsp[0].critical = true, "gpu.revocation", Malformed),
    // What the device is.
    ("another architecture beside it", |p| device(p).arch = "BLACKWELL".into(), "gpu.architecture", Rejected),
    ("an architecture nobody knows", |p| device(p).arch = "HOPPER2".into(), "gpu.architecture", Rejected),
    (
        "a chip nobody knows",
        |p| {
            device(p).firmware.subject = "GR100 A01".into();
            device(p).boot_rom.subject = "GR100 BROM".into();
            device(p).firmware.issuer = "GR100 BROM".into();
        },
        "gpu.architecture",
        Rejected,
    ),
    (
        "firmware of another chip than its boot ROM",
        |p| device(p).firmware.subject = "GB100 A01".into(),
        "gpu.architecture",
        Rejected,
    ),
    ("a GPU's report with a switch's field", |p| device(p).set(26, &[0; 128]), "gpu.architecture", Rejected),
    (
        "another driver named beside it",
        |p| device(p).claims.push(("driver_version", "1.2".into())),
        "gpu.architecture",
        Rejected,
    ),
    (
        "another VBIOS named beside it",
        |p| device(p).claims.push(("vbios_version", "1.2".into())),
        "gpu.architecture",
        Rejected,
    ),
    ("other firmware than the certificate's", |p| device(p).set(20, &[0xf2; 48]), "gpu.fwid", Rejected),
    ("a firmware id cut short", |p| device(p).set(20, &[0xf1; 47]), "gpu.fwid", Rejected),
    (
        "a certificate of other firmware",
        |p| device(p).firmware.extensions = vec![tcb_info(&[0xf2; 48])],
        "gpu.fwid",
        Rejected,
    ),
    ("a certificate without firmware", |p| device(p).firmware.extensions.clear(), "gpu.fwid", Rejected),
    (
        "the second of two firmware ids",
        |p| {
            device(p).firmware.extensions = vec![tcb_info_blackwell(&[0xf2; 48])];
        },
        "gpu.fwid",
        Rejected,
    ),
    ("another challenge than ours", |p| p.challenge = Some([0x4f; 32]), "gpu.nonce", Rejected),
    ("another nonce named beside it", |p| device(p).claimed_nonce = Some([0x4f; 32]), "gpu.nonce", Rejected),
    ("a report for another challenge", |p| device(p).nonce = [0x4f; 32], "gpu.nonce", Rejected),
    // RIMs.
    (
        "a driver RIM changed after signing",
        |p| driver(p).after = |t| t.replace("index=\"3\"", "index=\"4\""),
        "gpu.rim.driver",
        Malformed,
    ),
    (
        "a golden value changed after signing",
        |p| driver(p).after = |t| t.replacen("eeee", "eeef", 1),
        "gpu.rim.driver",
        Signature,
    ),
    (
        "a signed digest changed",
        |p| driver(p).after = |t| t.replacen("<ds:DigestValue>", "<ds:DigestValue>AAAA", 1),
        "gpu.rim.driver",
        Malformed,
    ),
    ("a RIM of another driver", |p| driver(p).version = "580.95.06".into(), "gpu.rim.driver", Rejected),
    ("a RIM of another VBIOS", |p| vbios(p).version = "96.00.9F.00.02".into(), "gpu.rim.vbios", Rejected),
    ("a RIM of another chip", |p| driver(p).product = "GB100".into(), "gpu.rim.driver", Rejected),
    (
        "a RIM signer out of date",
        |p| vbios(p).signer.until = UnixTime(NOW.0 - 1),
        "gpu.rim.vbios",
        Unavailable,
    ),
    (
        "a RIM authority not yet valid",
        |p| vbios(p).authority.from = UnixTime(NOW.0 + 1),
        "gpu.rim.vbios",
        Unavailable,
    ),
    ("a forged RIM signer", |p| vbios(p).signer.forged = true, "gpu.rim.vbios", Signature),
    ("a forged RIM authority", |p| vbios(p).authority.forged = true, "gpu.rim.vbios", Signature),
    ("a RIM authority that is none", |p| vbios(p).authority.authority = None, "gpu.rim.vbios", Signature),
    ("a RIM under a root that nobody named", |p| vbios(p).wrong_root = true, "gpu.rim.vbios", Signature),
    (
        "a revoked RIM signer",
        |p| p.rim_ocsp = Some(OcspPlan { says: Says::Revoked(6), ..OcspPlan::good() }),
        "gpu.rim.driver",
        Rejected,
    ),
    (
        "no C14N 1.1 of what is signed",
        |p| {
            driver(p).before = |t| {
                t.replace(
                    "<ds:CanonicalizationMethod Algorithm=\"http://www.w3.org/2006/12/xml-c14n11\">",
                    "<ds:CanonicalizationMethod Algorithm=\"http://www.w3.org/2001/10/xml-exc-c14n#\">",
                )
            }
        },
        "gpu.rim.driver",
        Malformed,
    ),
    (
        "another signature method",
        |p| driver(p).before = |t| t.replace("ecdsa-sha384", "ecdsa-sha256"),
        "gpu.rim.driver",
        Malformed,
    ),
    (
        "another digest method",
        |p| driver(p).before = |t| t.replace("xmldsig-more#sha384", "xmldsig-more#sha224"),
        "gpu.rim.driver",
        Malformed,
    ),
    (
        "a signature over a part",
        |p| driver(p).before = |t| t.replace("URI=\"\"", "URI=\"#part\""),
        "gpu.rim.driver",
        Malformed,
    ),
    (
        "a transform more",
        |p| {
            driver(p).before = |t| {
                t.replace("<ds:Transforms>", "<ds:Transforms><ds:Transform Algorithm=\"x\"></ds:Transform>")
            }
        },
        "gpu.rim.driver",
        Malformed,
    ),
    (
        "two references",
        |p| {
            driver(p).before = |t| {
                let Some(at) = t.find("<ds:Reference") else { return t };
                format!("{t}{}", &t[at..])
            }
        },
        "gpu.rim.driver",
        Malformed,
    ),
    (
        "a second signature",
        |p| {
            driver(p).before = |t| {
                t.replace(
                    "<Payload>",
                    "<s:Signature xmlns:s=\"http://www.w3.org/2000/09/xmldsig#\"></s:Signature><Payload>",
                )
            }
        },
        "gpu.rim.driver",
        Malformed,
    ),
    (
        "a second payload",
        |p| driver(p).before = |t| t.replace("<Payload>", "<Payload></Payload><Payload>"),
        "gpu.rim.driver",
        Malformed,
    ),
    (
        "a comment in a RIM",
        |p| driver(p).after = |t| t.replace("<Payload>", "<!-- c --><Payload>"),
        "gpu.rim.driver",
        Malformed,
    ),
    (
        "a document type in a RIM",
        |p| driver(p).after = |t| format!("<!DOCTYPE a [<!ENTITY e \"x\">]>{t}"),
        "gpu.rim.driver",
        Malformed,
    ),
    (
        "a resource of another kind",
        |p| driver(p).before = |t| t.replacen("type=\"Measurement\"", "type=\"Opaque\"", 1),
        "gpu.rim.driver",
        Malformed,
    ),
    (
        "a measurement neither active nor not",
        |p| driver(p).before = |t| t.replacen("active=\"True\"", "active=\"true\"", 1),
        "gpu.rim.driver",
        Malformed,
    ),
    ("an index twice in a RIM", |p| driver(p).golden[1].0 = 0, "gpu.rim.driver", Malformed),
    (
        "fewer alternatives than counted",
        |p| driver(p).before = |t| t.replacen("alternatives=\"2\"", "alternatives=\"3\"", 1),
        "gpu.rim.driver",
        Malformed,
    ),
    (
        "no active measurement",
        |p| driver(p).golden.iter_mut().for_each(|g| g.1 = false),
        "gpu.rim.driver",
        Malformed,
    ),
    // Measurements.
    (
        "other firmware than the VBIOS RIM's",
        |p| device(p).blocks[0].1 = vec![9; 48],
        "gpu.measurements",
        Rejected,
    ),
    ("another driver than its RIM's", |p| device(p).blocks[1].1 = vec![9; 48], "gpu.measurements", Rejected),
    ("a measurement left out", |p| drop(device(p).blocks.remove(10)), "gpu.measurements", Rejected),
    ("a measurement longer than the RIM's", |p| device(p).blocks[1].1.push(0), "gpu.measurements", Rejected),
    ("both RIMs speaking of one index", |p| vbios(p).golden[1].1 = true, "gpu.measurements", Rejected),
    (
        "another NVDEC0 where it counts",
        |p| device(p).blocks[35].1 = vec![9; 48],
        "gpu.measurements",
        Rejected,
    ),
    ("an NVDEC0 status that means nothing", |p| device(p).set(11, &[0]), "gpu.measurements", Rejected),
    // Modes.
    ("protected PCIe on in another mode", |p| device(p).set(21, &[0xaa]), "gpu.mode", Rejected),
    ("protected PCIe off in its mode", |p| device(p).set(36, &[2, 0]), "gpu.mode", Rejected),
    ("a protected PCIe status that means nothing", |p| device(p).set(21, &[0]), "gpu.mode", Rejected),
    ("a mode that means nothing", |p| device(p).set(36, &[3, 0]), "gpu.mode", Rejected),
];

#[test]
fn an_honest_gpu_passes_every_check() {
    let genuine = Plan::honest().verify().expect("nothing is wrong");
    for check in genuine.checks().iter().filter(|check| check.id.starts_with("gpu.")) {
        assert_eq!(check.status, Status::Pass, "{}: {}", check.id, check.why);
    }
    assert!(genuine.simulated() && genuine.platform().name() == "nvidia" && genuine.claims().is_none());
    let [gpu] = genuine.gpus() else { panic!("one GPU") };
    assert_eq!((gpu.architecture.name(), &gpu.chip[..]), ("HOPPER", "GH100"));
    assert_eq!(gpu.driver_version.as_deref(), Some(nvidia::DRIVER));
    assert_eq!(gpu.vbios_version.as_deref(), Some(nvidia::VBIOS));
    assert_eq!((gpu.mode, gpu.protected_pcie), (Some(Mode::SinglePassthrough), Some(false)));
    assert_eq!((&gpu.serial[..], &gpu.ueid[..], gpu.nonce), (&[0x20][..], &[0x11][..], nvidia::NONCE));
    assert_eq!(gpu.measurements[2], (2, measurement(3)));
    assert!(gpu.driver_compared && gpu.vbios_compared && gpu.simulated);
    assert_eq!(genuine.platform().ids.iter().map(ToString::to_string).collect::<Vec<_>>(), ["gpu:20"]);
    assert_eq!(genuine.platform().good_until, UnixTime(NOW.0 + 86_400), "the OCSP answers end first");
}

#[test]
fn each_rule_refuses_what_breaks_it_alone() {
    let mut wrong = Vec::new();
    for (what, edit, check, kind) in BAD {
        let mut plan = Plan::honest();
        edit(&mut plan);
        match plan.verify() {
            Ok(_) => wrong.push(format!("{what}: accepted")),
            Err(refusal) if (refusal.check, refusal.kind) != (*check, *kind) => {
                wrong.push(format!("{what}: {:?} {refusal}", refusal.kind));
            }
            Err(refusal) => {
                let words = [&refusal.expected, &refusal.got, &refusal.likely, &refusal.remedy];
                assert!(words.iter().all(|text| !text.is_empty()), "{what}: {refusal}");
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// What differs from the honest plan and is still genuine.
const GOOD: &[(&str, Edit)] = &[
    ("one zero byte after the signature", |p| device(p).after = |r| r.push(0)),
    ("certificates in another order", |p| {
        device(p).chain = |mut c| {
            c.reverse();
            c
        }
    }),
    ("NVDEC0 off, whatever it measures", |p| {
        device(p).set(11, &[0x55]);
        device(p).blocks[35].1 = vec![9; 48];
    }),
    ("the first of two alternatives", |p| device(p).blocks[1].1 = vec![0xee; 48]),
    ("an inactive measurement that differs", |p| {
        driver(p).golden[1].1 = false;
        device(p).blocks[1].1 = vec![9; 48];
    }),
    ("no word on the architecture", |p| device(p).arch = String::new()),
    ("the right versions beside it", |p| {
        device(p).claims = vec![
            ("driver_version", nvidia::DRIVER.into()),
            ("vbios_version", nvidia::VBIOS.to_lowercase()),
            ("version", "1.0".into()),
        ];
    }),
    ("an opaque field nobody knows", |p| device(p).set(200, &[1])),
    ("an old report without mode, firmware id and version", |p| {
        [20, 21, 34, 36].map(|kind| device(p).remove(kind)).into_iter().collect()
    }),
    ("answers by the issuers themselves", |p| p.ocsp.iter_mut().for_each(|o| o.signer = Signer::Issuer)),
    ("issuers named by SHA-1", |p| p.ocsp.iter_mut().for_each(|o| o.hash = 1)),
    ("issuers named by SHA-256", |p| p.ocsp.iter_mut().for_each(|o| o.hash = 256)),
    ("no OCSP at all", |p| p.ocsp.clear()),
    ("no RIMs", |p| (p.driver_rim, p.vbios_rim) = (None, None)),
    ("no challenge", |p| p.challenge = None),
    ("lines ending in CR LF outside values", |p| driver(p).after = |t| format!("{t}\r\n")),
    ("a declaration before a RIM", |p| {
        driver(p).after = |t| format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n{t}")
    }),
    ("attributes in another order, single quotes, empty tags", |p| {
        driver(p).after = |t| {
            t.replace("></Resource>", "/>").replacen(
                "active=\"False\" alternatives=\"2\"",
                "alternatives = '2'\n  active='False'",
                1,
            )
        }
    }),
    ("a VBIOS RIM in small letters", |p| vbios(p).version = nvidia::VBIOS.to_lowercase()),
    ("a Blackwell GPU", |p| {
        let device = device(p);
        device.arch = "BLACKWELL".into();
        device.firmware.subject = "GB100 A01 GSP FMC LF".into();
        device.boot_rom.subject = "GB100 A01 GSP BROM".into();
        device.firmware.issuer = "GB100 A01 GSP BROM".into();
        device.firmware.extensions = vec![tcb_info_blackwell(&nvidia::FWID)];
        (driver(p).product, vbios(p).product) = ("GB100".into(), "GB100".into());
    }),
    ("the request that NVIDIA's service takes", |p| {
        p.json = |text| {
            format!(
                "{{\"nonce\":\"{}\",\"arch\":\"HOPPER\",\"claims_version\":\"3.0\",\"evidence_list\":{text}}}",
                hex::encode(nvidia::NONCE)
            )
        }
    }),
    ("one object instead of a list", |p| p.json = |text| text[1..text.len() - 1].to_owned()),
];

#[test]
fn what_means_the_same_is_accepted() {
    for (what, edit) in GOOD {
        let mut plan = Plan::honest();
        edit(&mut plan);
        if let Err(refusal) = plan.verify() {
            panic!("{what}: {refusal}");
        }
    }
}
