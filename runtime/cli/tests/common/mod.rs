//! The binary as a process, a simulated guest's files, and real evidence where it lies.

#![allow(dead_code, reason = "each test file uses its own part")]
#![allow(unreachable_pub, reason = "a module of test helpers, shared by several test crates")]

pub mod browser;

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use cocoon_attestation::statement::{Beacon, Freshness, Keys, ModelIdentity, SEAL_KEY, report_data};
use cocoon_attestation::{
    Bundle, Endorsement, ImageReference, Measurements, Policy, Statement, TdxRules, Tee, UnixTime,
};
use cocoon_simulated_tee::{AttestationKey, Draft, SimulatedRoot, Td};
use serde_json::Value;

pub const NOW: UnixTime = UnixTime(1_795_000_000);
pub const CONFIGURATION: [u8; 32] = [0x33; 32];

/// Runs the binary and waits for it; standard input is `input`.
pub fn cocoon_with<S: AsRef<OsStr>>(arguments: &[S], input: Vec<u8>) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_cocoon"))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    let mut stdin = child.stdin.take().expect("it is piped");
    let writer = std::thread::spawn(move || {
        use std::io::Write;
        // A command that does not read its input closes it.
        let _ = stdin.write_all(&input);
    });
    let output = child.wait_with_output().expect("it ends");
    writer.join().expect("it ends with its pipe");
    output
}

pub fn cocoon<S: AsRef<OsStr>>(arguments: &[S]) -> Output {
    cocoon_with(arguments, Vec::new())
}

pub fn exit(output: &Output) -> i32 {
    output.status.code().expect("it was not killed")
}

pub fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("UTF-8")
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Exit code and the object of `verify … --json`.
pub fn verify(arguments: &[&str]) -> (i32, Value) {
    let output = cocoon(&[&["verify", "--json"], arguments].concat());
    let verdict = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
    (exit(&output), verdict)
}

/// A simulated guest's files in a folder of their own.
pub struct Guest {
    folder: tempfile::TempDir,
    pub root: SimulatedRoot,
    key: AttestationKey,
    statement: Vec<u8>,
}

pub fn registers() -> Measurements {
    Measurements {
        mrtd: [0xa0; 48],
        rtmr: [[0xb0; 48], [0xb1; 48], [0xb2; 48], [0xb3; 48]],
        mrconfigid: [0; 48],
        mrowner: [0; 48],
        mrownerconfig: [0; 48],
    }
}

impl Guest {
    /// Writes `bundle.cmw`, `quote.bin`, `collateral.json`, `root.der`, `policy.toml`, `beacon.json`.
    pub fn new() -> Self {
        let (root, key) = (SimulatedRoot::create(NOW), AttestationKey::generate());
        let statement = Statement {
            network: -239,
            keys: Keys { seal: vec![7; SEAL_KEY], receipt: [5; 32], tls: None },
            models: vec![ModelIdentity { name: "tiny".into(), weights: [0x77; 32] }],
            configuration: CONFIGURATION,
            engine: [6; 32],
            kernels: vec![],
            gpu_evidence: vec![],
            freshness: Freshness {
                beacon: Beacon { seqno: 41, root_hash: [0x41; 32] },
                nonce: Some([9; 32]),
                serial: 3,
            },
        };
        let folder = tempfile::tempdir().expect("a folder");
        let guest = Self { folder, root, key, statement: statement.encode() };
        guest.write("bundle.cmw", &guest.bundle(guest.quote()).encode());
        guest.write("quote.bin", &guest.quote());
        guest.write("collateral.json", &guest.root.collateral(NOW));
        guest.write("root.der", guest.root.root_der());
        guest.write("policy.toml", guest.policy(&registers()).to_toml().as_bytes());
        let beacon = serde_json::json!({"seqno": 41, "root_hash": "41".repeat(32), "time": NOW.0 - 60});
        guest.write("beacon.json", beacon.to_string().as_bytes());
        guest
    }

    pub fn quote(&self) -> Vec<u8> {
        let draft = Draft::honest(&Td::new(registers()), &report_data(&self.statement), &self.key);
        self.root.sign_quote(&draft, &self.key)
    }

    pub fn bundle(&self, quote: Vec<u8>) -> Bundle {
        Bundle {
            statement: self.statement.clone(),
            tee: Tee::Tdx,
            quote,
            gpu: vec![],
            event_log: None,
            endorsements: vec![Endorsement::IntelCollateral(self.root.collateral(NOW))],
        }
    }

    /// A policy that accepts a guest with these registers and nothing else.
    pub fn policy(&self, registers: &Measurements) -> Policy {
        let mut policy = Policy::new(-239, 600);
        policy.models = vec![[0x77; 32]];
        policy.images = vec![ImageReference::on_tdx("guest 0.1.0", Some(CONFIGURATION), registers)];
        policy.tdx = Some(TdxRules::by_vendor());
        policy
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The path as an argument.
    pub fn file(&self, name: &str) -> String {
        text(&self.path(name)).to_owned()
    }

    pub fn write(&self, name: &str, bytes: &[u8]) -> String {
        std::fs::write(self.path(name), bytes).expect("it can be written");
        self.file(name)
    }

    /// The arguments that make the bundle `trusted`.
    pub fn trusting(&self) -> Vec<String> {
        let mut all = self.at();
        all.extend([
            "--policy".into(),
            self.file("policy.toml"),
            "--beacon".into(),
            self.file("beacon.json"),
        ]);
        all
    }

    /// Root and time alone: `genuine`.
    pub fn at(&self) -> Vec<String> {
        vec!["--simulated-root".into(), self.file("root.der"), "--at".into(), NOW.0.to_string()]
    }
}

pub fn text(path: &Path) -> &str {
    path.to_str().expect("temporary names are UTF-8")
}

/// Real evidence: `$COCOON_VECTORS`, or `../shared/vectors` from the workspace's root.
pub fn vectors() -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/vectors");
    let folder = std::env::var_os("COCOON_VECTORS").map_or(beside, PathBuf::from);
    if folder.join("cases.json").is_file() {
        return Some(folder);
    }
    eprintln!("VECTORS NOT FOUND at {}, nothing was checked: set COCOON_VECTORS", folder.display());
    None
}

/// The arguments of a case in `cases.json`.
pub fn case_arguments(folder: &Path, case: &Value) -> Vec<String> {
    let file = |name: &Value| text(&folder.join(name.as_str().expect("a file name"))).to_owned();
    let mut arguments = vec![file(&case["evidence"]), "--at".to_owned(), case["at"].to_string()];
    for name in case["endorsements"].as_array().into_iter().flatten() {
        arguments.extend(["--endorsements".to_owned(), file(name)]);
    }
    for name in case["allow"].as_array().into_iter().flatten() {
        arguments.extend(["--allow".to_owned(), name.as_str().expect("a name").to_owned()]);
    }
    arguments
}

pub fn cases(folder: &Path) -> Vec<Value> {
    let list = std::fs::read(folder.join("cases.json")).expect("it is there");
    serde_json::from_slice(&list).expect("cases.json is a list")
}
