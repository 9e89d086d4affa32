use super::*;

const OLD_LOG: &[u8] = include_bytes!("../../tests/golden/ovmf-2025.02-tpm.log");
const NEW_LOG: &[u8] = include_bytes!("../../tests/golden/ovmf-2026.08-tpm.log");

#[test]
fn the_profiles_of_this_crate_are_read_and_sorted() {
    let profiles = built_in();
    assert!(profiles.is_sorted_by(|(a, _), (b, _)| a.name < b.name));
    assert_eq!(profiles.len(), BUILT_IN.len());
    for (profile, record) in profiles {
        assert!(
            profile.platform != PlatformName::Snp || record.is_none(),
            "{}: SNP measures no ACPI",
            profile.name
        );
    }
}

#[test]
fn a_profile_says_everything_and_nothing_else() {
    let text = BUILT_IN.iter().find(|(text, _)| text.contains("\"snp-h100-1\"")).unwrap().0;
    assert!(Profile::from_toml(text).is_ok());
    for (from, to, word) in [
        ("vcpus = 16", "", "vcpus"),
        ("vcpus = 16", "vcpus = 0", "vcpus"),
        ("vcpus = 16", "vcpus = 1025", "vcpus"),
        ("memory_mib = 131072", "memory_mib = 255", "memory_mib"),
        ("gpus = 1", "gpus = 17", "gpus"),
        ("gpus = 1", "gpus = 1\ngpu = 2", "gpu"),
        ("qemu = \"11.1\"", "qemu = \"11\"", "qemu"),
        ("qemu = \"11.1\"", "qemu = \"11.1.3\"", "qemu"),
        ("\"snp-h100-1\"", "\"../x\"", "name"),
        ("\"OVMF.amdsev.fd\"", "\"a/b\"", "firmware"),
        ("\"snp\"", "\"tdx\"", "snp"),
        ("\"EPYC-v4\"", "\"host\"", "vcpu_type"),
    ] {
        let changed = text.replacen(from, to, 1);
        assert_ne!(changed, text, "{from}");
        let refused = Profile::from_toml(&changed).unwrap_err().to_string();
        assert!(refused.contains(word), "{to}: {refused}");
    }
    assert!(Profile::from_toml(&format!("{text}#{}", "x".repeat(PROFILE_MAX))).is_err());
}

#[test]
fn a_record_is_made_from_a_log_and_read_back() {
    for (bytes, smbios) in [(OLD_LOG, false), (NEW_LOG, true)] {
        let record = Record::from_log(&EventLog::parse(bytes).unwrap()).unwrap();
        assert_eq!(record.smbios.is_some(), smbios);
        assert_eq!(Record::from_toml(&record.to_toml()), Ok(record));
    }
    let built_in = built_in().into_iter().find(|(profile, _)| profile.name == "emulation-1").unwrap().1;
    let logged = Record::from_log(&EventLog::parse(OLD_LOG).unwrap()).unwrap();
    assert_eq!(built_in, Some(logged), "the log is of that machine");
    assert_eq!(logged.provenance, Provenance::Emulated, "a TPM's log");
    assert!(Record::from_toml("acpi_loader = \"00\"").is_err());
    let text = logged.to_toml();
    let refused = Record::from_toml(&text.replace("\"emulated\"", "\"sources\"")).unwrap_err();
    assert!(refused.to_string().contains("what nobody booted"), "{refused}");
    assert!(Record::from_toml(&text.replace("provenance = \"emulated\"\n", "")).is_err());
}
