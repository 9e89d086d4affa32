//! The example, and one wrong thing at a time.

use super::*;

const EXAMPLE: &str = include_str!("../../host.toml");

fn refused(good: &str, bad: &str) -> String {
    let text = EXAMPLE.replacen(good, bad, 1);
    assert_ne!(text, EXAMPLE, "{good} is not in the example");
    HostConfig::parse(&text).expect_err(bad).to_string()
}

#[test]
fn the_example_says_what_it_means() {
    let config = HostConfig::parse(EXAMPLE).expect("good");
    assert_eq!(config.tee, TeeChoice::Auto);
    assert_eq!(config.quote_service, QuoteService::Vsock { cid: 2, port: 4050 });
    assert_eq!(config.coefficient.as_deref(), Some("1.25"));
    assert_eq!(config.iommu, Iommu::Iommufd);
    let [first, second] = &config.guests[..] else { panic!("two guests") };
    assert_eq!(first.size, Size::Profile("tdx-h100-1".into()));
    let memory = Memory::mib(96 * 1024).expect("within limits");
    assert_eq!(second.size, Size::Own { vcpus: Vcpus::try_from(16).expect("within limits"), memory });
    assert_eq!((u32::from(first.cid), u32::from(second.cid)), (16, 17));
    assert_eq!((first.listen.port(), second.listen.port()), (8083, 8084));
}

#[test]
fn what_is_commented_out_in_the_example_is_good_too() {
    let mut text = String::new();
    for line in EXAMPLE.lines() {
        // A comment that is `word = value` is an offer; the one on `advertise` is for a single guest.
        let offer = line.strip_prefix("# ").filter(|rest| {
            rest.split_once(" = ")
                .is_some_and(|(word, _)| word.chars().all(|c| c.is_ascii_lowercase() || c == '_'))
        });
        let offer = offer.filter(|rest| !rest.starts_with("advertise"));
        text.push_str(offer.unwrap_or(line));
        text.push('\n');
    }
    let config = HostConfig::parse(&text).expect("good");
    assert!(config.tools.qemu.is_some() && config.tools.gpu_admin.is_some() && config.iommu == Iommu::Legacy);
    assert_eq!((config.guests[1].listen.port(), config.guests[1].forward), (9000, 8183));
}

#[test]
fn each_wrong_value_names_its_field_and_what_to_write() {
    for (good, bad, field, remedy) in [
        ("state = \"/var", "state = \"var", "`state`", "from / on"),
        ("file = \"/var", "file = \"~/var", "`model.file`", "from / on"),
        ("# qemu = \"/usr", "qemu = \"usr", "`tools.qemu`", "from / on"),
        ("vsock:2:4050", "vsock:2", "`quote_service`", "vsock:2:4050"),
        ("vsock:2:4050", "unix:qgs.socket", "`quote_service`", "from / on"),
        ("[\"https://gateway.example\"]", "[]", "`gateways`", "name 1 to 16"),
        ("https://gateway.example", "gateway.example", "`gateways`", "https://host"),
        ("https://gateway.example", "https://a b", "`gateways`", "https://host"),
        ("# advertise", "advertise", "`advertise`", "leave it out"),
        ("name = \"SmolLM2-135M-Instruct\"", "name = \"\"", "`model.name`", "1 to 128"),
        ("profile = \"tdx-h100-1\"", "profile = \"a\"\nvcpus = 2", "`guest.gpu-0.profile`", "either profile"),
        ("vcpus = 16\n", "", "`guest.gpu-1.profile`", "either profile"),
        ("0000:2a:00.0", "0000:17:00.0", "`guest.gpu-1.gpus`", "give each its own"),
        ("name = \"gpu-1\"", "name = \"gpu-1\"\ncid = 16", "`guest.gpu-1.cid`", "give each its own"),
        ("name = \"gpu-1\"", "name = \"gpu-0\"", "`guest.gpu-0.name`", "give each its own"),
        (
            "# listen = \"0.0.0.0:9000\"",
            "listen = \"0.0.0.0:8083\"",
            "`guest.gpu-1.listen`",
            "give each its own",
        ),
        ("0.0.0.0:8083", "0.0.0.0:65535", "`guest.gpu-1.listen`", "name one for this guest"),
        ("tee = \"auto\"", "tee = \"emulation\"", "`guest.gpu-0.gpus`", "another `tee`"),
    ] {
        let words = refused(good, bad);
        assert!(words.contains(field) && words.contains(remedy), "{bad}: {words}");
    }
}

#[test]
fn grammar_is_closed_everywhere() {
    for (good, bad) in [
        ("tee = \"auto\"", "tee = \"auto\"\ndebug = true"),
        ("tee = \"auto\"", "tee = \"none\""),
        ("tee = \"auto\"", ""),
        ("[price]", "[price]\nprompt = 1"),
        ("[tools]", "[tools]\nshell = \"/bin/sh\""),
        ("[model]", "[model]\nurl = \"http://x\""),
        ("cid = 16", "cid = 2"),
        ("cid = 16", "cid = -1"),
        ("cid = 16", "port = 5"),
        ("96 GiB", "96 GB"),
        ("vcpus = 16", "vcpus = 0"),
        ("0000:17:00.0", "17"),
        ("0.0.0.0:8083", "8083"),
        ("name = \"gpu-0\"", "name = \"../x\""),
    ] {
        let words = refused(good, bad);
        assert!(words.contains("is not understood"), "{bad}: {words}");
    }
}

#[test]
fn an_emulated_guest_is_not_offered_to_other_machines() {
    let text = EXAMPLE.replace("tee = \"auto\"", "tee = \"emulation\"");
    let text: String =
        text.lines().filter(|line| !line.starts_with("gpus")).map(|line| format!("{line}\n")).collect();
    let words = HostConfig::parse(&text).expect_err("refused").to_string();
    assert!(words.contains("127.0.0.1"), "{words}");
    assert!(HostConfig::parse(&text.replace("0.0.0.0", "127.0.0.1")).is_ok());
}

#[test]
fn a_file_that_is_not_there_or_too_long_is_said() {
    let at = tempfile::tempdir().expect("a folder");
    let path = at.path().join("host.toml");
    assert!(HostConfig::load(&path).expect_err("missing").to_string().contains("host.toml cannot be read"));
    std::fs::write(&path, "#".repeat(70_000)).expect("writable");
    assert!(HostConfig::load(&path).expect_err("long").to_string().contains("more than 65536"));
    std::fs::write(&path, EXAMPLE).expect("writable");
    assert!(HostConfig::load(&path).is_ok());
}
