//! docs/verifying.md: every command on the page, run in a folder with files of the names that it uses.

use std::path::{Path, PathBuf};

use cocoon_tests::{evidence, page};

const PAGE: &str = include_str!("../../docs/verifying.md");

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

#[test]
fn every_command_on_the_page_ends_as_it_says() {
    let folder = tempfile::tempdir().expect("a folder");
    evidence::write(folder.path(), &evidence::Platform::create(), &evidence::some_registers());
    let vectors = vectors();
    if let Some(vectors) = &vectors {
        let more = [("gpus.json", "nvidia/ppcie_gpu_evidence.json")];
        for (name, file) in REAL.iter().chain(&more) {
            std::fs::copy(vectors.join(file), folder.path().join(name)).expect("a real file");
        }
    }
    let program = cocoon_tests::binary("cocoon");
    let examples = page::examples(PAGE);
    assert!(examples.len() >= 14, "{} commands", examples.len());
    let mut run = 0;
    for example in examples {
        let names = |word: &&str| REAL.iter().any(|(name, _)| name == word) || *word == "gpus.json";
        if example.words.iter().any(names) && vectors.is_none() {
            continue;
        }
        example.run(&program, folder.path(), &[]);
        run += 1;
    }
    println!("{run} commands run");
    assert!(run >= 4, "those on the simulated bundle need no real evidence");
}
