//! What was found, as data. Its JSON form is stable: fields are added, never renamed.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;

/// Version of the JSON form.
const FORMAT: u32 = 1;

/// What protects a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Tee {
    /// Intel Trust Domain Extensions.
    Tdx,
    /// AMD Secure Encrypted Virtualization with Secure Nested Paging.
    Snp,
    /// Nothing: a development guest under software emulation.
    Emulation,
}

impl Tee {
    /// Its name for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tdx => "Intel TDX",
            Self::Snp => "AMD SEV-SNP",
            Self::Emulation => "emulation",
        }
    }
}

impl FromStr for Tee {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "tdx" => Ok(Self::Tdx),
            "snp" => Ok(Self::Snp),
            "emulation" => Ok(Self::Emulation),
            _ => Err("tdx, snp or emulation".into()),
        }
    }
}

/// Why this TEE is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum TeeChoice {
    /// It was named.
    Named,
    /// The CPU is made for it.
    Cpu,
    /// The CPU is made for none, or this is a virtual machine.
    Neither,
}

/// What a check is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Group {
    /// CPU and BIOS.
    Processor,
    /// The kernel and its command line.
    Kernel,
    /// KVM, IOMMU, VFIO, vsock, memory.
    Virtualisation,
    /// QEMU and firmware.
    Software,
    /// GPUs.
    Gpus,
    /// Quotes, their collateral, the clock.
    Attestation,
    /// Disk, ports, chain, wallet.
    Operation,
}

impl Group {
    /// Its heading.
    pub fn title(self) -> &'static str {
        match self {
            Self::Processor => "processor and BIOS",
            Self::Kernel => "kernel",
            Self::Virtualisation => "virtualisation",
            Self::Software => "QEMU and firmware",
            Self::Gpus => "GPUs",
            Self::Attestation => "attestation",
            Self::Operation => "operation",
        }
    }
}

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// As it should be.
    Ok,
    /// It works, and something should be known or mended.
    Warn,
    /// A guest cannot run, or cannot earn.
    Fail,
    /// Not looked at; the reason says why.
    Skipped,
    /// Of no matter for this TEE or this machine.
    NotApplicable,
}

/// One check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// Its name, for programs: never changes its meaning.
    pub id: &'static str,
    /// What it is about.
    pub group: Group,
    /// How it ended.
    pub result: Outcome,
    /// What was found.
    pub found: String,
    /// What is needed.
    pub expected: String,
    /// Why it ended so.
    pub reason: String,
    /// What to do about it; nothing where nothing is to be done.
    pub remedy: Option<String>,
}

impl Check {
    pub(super) fn new(
        id: &'static str,
        group: Group,
        expected: impl Into<String>,
        found: impl Into<String>,
    ) -> Self {
        let (expected, found) = (expected.into(), found.into());
        Self { id, group, result: Outcome::Ok, found, expected, reason: String::new(), remedy: None }
    }

    pub(super) fn ok(self, reason: impl Into<String>) -> Self {
        Self { result: Outcome::Ok, reason: reason.into(), ..self }
    }

    pub(super) fn warn(self, reason: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { result: Outcome::Warn, reason: reason.into(), remedy: Some(remedy.into()), ..self }
    }

    pub(super) fn fail(self, reason: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { result: Outcome::Fail, reason: reason.into(), remedy: Some(remedy.into()), ..self }
    }

    pub(super) fn skipped(self, reason: impl Into<String>) -> Self {
        Self { result: Outcome::Skipped, reason: reason.into(), ..self }
    }

    pub(super) fn not_applicable(self, reason: impl Into<String>) -> Self {
        Self { result: Outcome::NotApplicable, reason: reason.into(), ..self }
    }
}

/// What all checks come to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// Nothing failed.
    pub ready: bool,
    /// In one line.
    pub text: String,
    /// Checks that failed, the first to be mended first.
    pub failed: Vec<&'static str>,
    /// Checks that warn.
    pub warned: Vec<&'static str>,
    /// What to do next.
    pub next: String,
}

/// Everything that was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Version of this form.
    pub format: u32,
    /// The TEE that is meant.
    pub tee: Tee,
    /// Why.
    pub tee_choice: TeeChoice,
    /// The checks, what blocks first coming first.
    pub checks: Vec<Check>,
    /// What they come to.
    pub verdict: Verdict,
}

impl Report {
    pub(super) fn of(tee: Tee, tee_choice: TeeChoice, checks: Vec<Check>) -> Self {
        let with =
            |result| checks.iter().filter(move |c| c.result == result).map(|c| c.id).collect::<Vec<_>>();
        let (failed, warned) = (with(Outcome::Fail), with(Outcome::Warn));
        let verdict = Verdict {
            ready: failed.is_empty(),
            text: text(tee, tee_choice, &failed, &warned),
            next: match failed.first() {
                None if tee == Tee::Emulation => "cocoon host up --vm".into(),
                None => "cocoon host up --config host.toml".into(),
                Some(first) => format!("mend {first}, then cocoon host doctor again"),
            },
            failed,
            warned,
        };
        Self { format: FORMAT, tee, tee_choice, checks, verdict }
    }

    /// A check by its name.
    pub fn check(&self, id: &str) -> Option<&Check> {
        self.checks.iter().find(|check| check.id == id)
    }

    /// The JSON form, indented.
    pub fn json(&self) -> String {
        serde_json::to_string_pretty(self).expect("it holds only text, numbers and lists")
    }
}

fn text(tee: Tee, choice: TeeChoice, failed: &[&str], warned: &[&str]) -> String {
    let only = match choice {
        TeeChoice::Neither => "this machine can run development guests (emulation) only; ",
        TeeChoice::Named | TeeChoice::Cpu => "",
    };
    let what = match tee {
        Tee::Emulation => "development guests under emulation".to_owned(),
        Tee::Tdx | Tee::Snp => format!("confidential guests with {}", tee.name()),
    };
    match (failed, warned) {
        ([], []) => format!("{only}ready for {what}"),
        ([], warned) => format!("{only}ready for {what}; look at {}", warned.join(", ")),
        ([one], _) => format!("{only}not ready for {what}: {one} failed"),
        (several, _) => {
            format!("{only}not ready for {what}: {} checks failed: {}", several.len(), several.join(", "))
        }
    }
}

impl fmt::Display for Tee {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
