//! docs/verifying.md: every command on the page, run in a folder with files of the names that it uses.

use std::path::{Path, PathBuf};
use std::process::Command;

use cocoon_attestation::statement::{Beacon, Freshness, Keys, ModelIdentity, SEAL_KEY, report_data};
use cocoon_attestation::{
    Bundle, Endorsement, ImageReference, Measurements, Policy, Statement, TdxRules, Tee, UnixTime,
};
use cocoon_simulated_tee::{AttestationKey, Draft, SimulatedRoot, Td};

const PAGE: &str = include_str!("../../docs/verifying.md");
const NOW: UnixTime = UnixTime(1_795_000_000);

/// Real evidence by the name it has on the page.
const REAL: [(&str, &str); 12] = [
    ("quote.bin", "tdx/v4_cocoon_90c06f.bin"),
    ("collateral.json", "intel-collateral/tdx_90c06f000000_2026-03-16_eval18.json"),
    ("logged.bin", "tdx/v4_gcp_cos113_00806f05.bin"),
    ("logged.json", "intel-collateral/tdx_00806f050000_2025-07-07_eval17.json"),
    ("ccel.dat", "eventlog/ccel_gcp_cos113.dat"),
    ("report.bin", "snp/ms_genoa_report.bin"),
    ("vcek.pem", "snp/ms_genoa_vcek.pem"),
    ("milan.bin", "snp/ms_milan_report.bin"),
    ("milan.pem", "snp/ms_milan_vcek.pem"),
    ("gpu.txt", "nvidia/sdk_hopperAttestationReport.txt"),
    ("gpu-chain.txt", "nvidia/sdk_hopperCertChain.txt"),
    ("vbios.swidtag", "nvidia/vbiosrim_1010_0200_882_96005E0001_PROD.swidtag"),
];

fn vectors() -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/vectors");
    let folder = std::env::var_os("COCOON_VECTORS").map_or(beside, PathBuf::from);
    let found = folder.join("cases.json").is_file();
    if !found {
        eprintln!(
            "vectors not found at {}: the page's commands on real evidence were not run",
            folder.display()
        );
    }
    found.then_some(folder)
}

/// A worker's bundle on a development network, its root, the policy that accepts it and the block that dates it.
fn write_bundle(folder: &Path) {
    let (root, key) = (SimulatedRoot::create(NOW), AttestationKey::generate());
    let zero = [0; 48];
    let registers = Measurements {
        mrtd: [1; 48],
        rtmr: [[2; 48]; 4],
        mrconfigid: zero,
        mrowner: zero,
        mrownerconfig: zero,
    };
    let statement = Statement {
        network: -3,
        keys: Keys { seal: vec![7; SEAL_KEY], receipt: [5; 32], tls: None },
        models: vec![ModelIdentity { name: "tiny".into(), weights: [7; 32] }],
        configuration: [3; 32],
        engine: [6; 32],
        kernels: vec![],
        gpu_evidence: vec![],
        freshness: Freshness { beacon: Beacon { seqno: 41, root_hash: [4; 32] }, nonce: None, serial: 3 },
    }
    .encode();
    let draft = Draft::honest(&Td::new(registers.clone()), &report_data(&statement), &key);
    let bundle = Bundle {
        quote: root.sign_quote(&draft, &key),
        statement,
        tee: Tee::Tdx,
        gpu: vec![],
        event_log: None,
        endorsements: vec![Endorsement::IntelCollateral(root.collateral(NOW))],
    };
    let mut policy = Policy::new(-3, 3_600);
    policy.models.push([7; 32]);
    policy.tdx = Some(TdxRules::by_vendor());
    policy.images.push(ImageReference::on_tdx("guest", Some([3; 32]), &registers));
    let beacon = format!(r#"{{"seqno": 41, "root_hash": "{}", "time": {}}}"#, "04".repeat(32), NOW.0 - 60);
    let write = |name: &str, bytes: &[u8]| std::fs::write(folder.join(name), bytes).expect("our folder");
    write("bundle.cmw", &bundle.encode());
    write("root.der", root.root_der());
    write("policy.toml", policy.to_toml().as_bytes());
    write("beacon.json", beacon.as_bytes());
}

/// The page's commands, each with the exit code that stands beside it.
fn commands() -> Vec<(&'static str, i32)> {
    let mut inside = false;
    let mut found = Vec::new();
    for line in PAGE.lines() {
        match line {
            "```sh" => inside = true,
            "```" => inside = false,
            line if inside => {
                let (command, code) = line.split_once("    # exits ").expect("each command says how it ends");
                found.push((command, code.parse().expect("a number")));
            }
            _ => {}
        }
    }
    found
}

#[test]
fn every_command_on_the_page_ends_as_it_says() {
    let folder = tempfile::tempdir().expect("a folder");
    write_bundle(folder.path());
    let vectors = vectors();
    if let Some(vectors) = &vectors {
        let more = [("gpus.json", "nvidia/ppcie_gpu_evidence.json")];
        for (name, file) in REAL.iter().chain(&more) {
            std::fs::copy(vectors.join(file), folder.path().join(name)).expect("a real file");
        }
    }
    let program = cocoon_tests::binary("cocoon");
    let commands = commands();
    assert!(commands.len() >= 14, "{} commands", commands.len());
    let mut run = 0;
    for (command, code) in commands {
        let words: Vec<&str> = command.split_whitespace().collect();
        let ["cocoon", arguments @ ..] = &words[..] else { panic!("{command}") };
        let real =
            arguments.iter().any(|word| REAL.iter().any(|(name, _)| name == word) || *word == "gpus.json");
        if real && vectors.is_none() {
            continue;
        }
        let output =
            Command::new(&program).args(arguments).current_dir(folder.path()).output().expect("it starts");
        let said = String::from_utf8_lossy(&output.stdout);
        assert_eq!(
            output.status.code(),
            Some(code),
            "{command}\n{said}\n{}",
            String::from_utf8_lossy(&output.stderr)
        );
        run += 1;
    }
    println!("{run} commands run");
    assert!(run >= 4, "those on the simulated bundle need no real evidence");
}
