//! The second proof: the evidence is what this relying party accepts, for it, now.

use crate::check::{Checklist, Finding};
use crate::genuine::{Claims, Proven};
use crate::statement::ModelIdentity;
use crate::{
    Check, Context, Genuine, ImageReference, KnownBlock, Measurements, Platform, Policy, Refusal,
    RefusalKind, Statement, UnixTime,
};

const CHECKS: [&str; 12] = [
    "policy.network",
    "policy.mrtd",
    "policy.rtmr0",
    "policy.rtmr1",
    "policy.rtmr2",
    "policy.rtmr3",
    "policy.mrconfigid",
    "policy.mrowner",
    "policy.mrownerconfig",
    "policy.configuration",
    "policy.model",
    "freshness",
];

/// How far a beacon's time may lie ahead of the caller's clock, in seconds.
const MAX_CLOCK_SKEW: u64 = 60;

/// A peer that a policy accepted. Made by [`Policy::appraise`] alone; nothing else can be sealed to.
#[derive(Debug)]
pub struct Trusted {
    statement: Statement,
    digest: [u8; 32],
    checks: Vec<Check>,
    platform: Platform,
    image: String,
    fresh_until: UnixTime,
}

impl Trusted {
    /// What the guest says about itself.
    pub fn statement(&self) -> &Statement {
        &self.statement
    }

    /// SHA-256 of the encoded statement: its name in headers and receipts.
    pub fn statement_digest(&self) -> [u8; 32] {
        self.digest
    }

    /// X-Wing public key that prompts are sealed to.
    pub fn seal_key(&self) -> &[u8] {
        &self.statement.keys.seal
    }

    /// Ed25519 public key that signs receipts.
    pub fn receipt_key(&self) -> &[u8; 32] {
        &self.statement.keys.receipt
    }

    /// The model of this name, if the guest serves it.
    pub fn model(&self, name: &str) -> Option<&ModelIdentity> {
        self.statement.models.iter().find(|model| model.name == name)
    }

    /// All checks of both steps, in their fixed order.
    pub fn checks(&self) -> &[Check] {
        &self.checks
    }

    /// True if a simulated root vouches for it. Say so wherever it is shown.
    pub fn simulated(&self) -> bool {
        self.platform.simulated
    }

    /// The machine.
    pub fn platform(&self) -> &Platform {
        &self.platform
    }

    /// Name of the image in the policy that it runs.
    pub fn image(&self) -> &str {
        &self.image
    }

    /// When this trust ends: when the beacon is too old or the endorsements lapse, whichever comes first. Appraise
    /// again, with fresh evidence, before it.
    pub fn fresh_until(&self) -> UnixTime {
        self.fresh_until
    }
}

impl Policy {
    /// Is this genuine evidence something I accept, for me, now?
    ///
    /// # Errors
    /// A [`Refusal`] naming the register or rule that does not hold.
    pub fn appraise(&self, genuine: Genuine, context: &Context) -> Result<Trusted, Refusal> {
        let Proven { checks: earlier, platform, claims, statement, .. } = genuine.into_proven();
        let registers = claims.as_ref().and_then(Claims::registers);
        let mut list = Checklist::new(&CHECKS);
        let appraised = match (&statement, &registers) {
            (Some((statement, _)), Some(registers)) => self.check(statement, registers, context, &mut list),
            _ => {
                list.fail("policy.network", no_statement());
                None
            }
        };
        let checks = match list.outcome() {
            Ok(checks) => [earlier, checks].concat(),
            Err(refusal) => return Err(refusal.after(earlier).about(platform.name(), platform.simulated)),
        };
        let (statement, digest) = statement.expect("no check failed, so there is a statement");
        let (image, fresh_until) = appraised.expect("no check failed, so an image and a beacon were found");
        // Neither stale evidence nor lapsed endorsements are trusted, whichever comes first.
        let fresh_until = fresh_until.min(platform.good_until);
        Ok(Trusted { statement, digest, checks, platform, image, fresh_until })
    }

    fn check(
        &self,
        statement: &Statement,
        registers: &Measurements,
        context: &Context,
        list: &mut Checklist,
    ) -> Option<(String, UnixTime)> {
        self.network(statement, list);
        let image = self.image(statement, registers, list);
        self.model(statement, list);
        let fresh_until = self.freshness(statement, context, list);
        Some((image?.name.clone(), fresh_until?))
    }

    fn network(&self, statement: &Statement, list: &mut Checklist) {
        let same = statement.network == self.network;
        list.require(same, "policy.network", "it serves this network", || {
            rejected(
                self.network.to_string(),
                statement.network.to_string(),
                "The guest was configured for another network",
                "Choose a worker of this network, or correct the network in the policy",
            )
        });
    }

    /// Holds the registers against the accepted image that is closest, so that a refusal names what differs.
    fn image(
        &self,
        statement: &Statement,
        got: &Measurements,
        list: &mut Checklist,
    ) -> Option<&ImageReference> {
        let differences = |image: &&ImageReference| {
            differing(&image.measurements, got) + usize::from(!configured(image, statement))
        };
        let Some(image) = self.images.iter().min_by_key(differences) else {
            list.fail("policy.mrtd", no_images(got));
            return None;
        };
        for ((name, expected), (_, got)) in image.measurements.named().into_iter().zip(got.named()) {
            register(name, expected, got, &image.name, list);
        }
        configuration(image, statement, list);
        Some(image)
    }

    fn model(&self, statement: &Statement, list: &mut Checklist) {
        let stranger = statement.models.iter().find(|model| !self.models.contains(&model.weights));
        let holds = stranger.is_none() && !statement.models.is_empty();
        let got = match stranger.or(statement.models.first()) {
            Some(model) => format!("{} {}", model.name, hex::encode(model.weights)),
            None => "no model".to_owned(),
        };
        list.require(holds, "policy.model", "it answers with an accepted model", || {
            let accepted: Vec<String> = self.models.iter().map(hex::encode).collect();
            let expected = if accepted.is_empty() {
                "none: the policy names no model".into()
            } else {
                accepted.join(", ")
            };
            rejected(
                expected,
                got,
                "Another model, or other weights of the same name, are served",
                "Add the model's SHA-256 to the policy if you accept it, or choose another worker",
            )
        });
    }

    fn freshness(&self, statement: &Statement, context: &Context, list: &mut Checklist) -> Option<UnixTime> {
        match self.judge_freshness(statement, context) {
            Ok(beacon) => {
                let expected = format!("at most {} s old at {}", self.max_age_seconds, context.now);
                let nonce = if context.nonce.is_some() { ", with our nonce" } else { "" };
                let got = format!("block {} of {}{nonce}", beacon.seqno, beacon.time);
                list.pass("freshness", expected, got, "the quote is recent");
                Some(UnixTime(beacon.time.0.saturating_add(self.max_age_seconds)))
            }
            Err(finding) => {
                list.fail("freshness", *finding);
                None
            }
        }
    }

    fn judge_freshness<'a>(
        &self,
        statement: &Statement,
        context: &'a Context,
    ) -> Result<&'a KnownBlock, Box<Finding>> {
        let claimed = &statement.freshness.beacon;
        let Some(known) = &context.beacon else {
            return Err(Box::new(unknown_beacon(claimed.seqno)));
        };
        if (known.seqno, known.root_hash) != (claimed.seqno, claimed.root_hash) {
            return Err(Box::new(rejected(
                format!("block {} with root hash {}", known.seqno, hex::encode(known.root_hash)),
                format!("block {} with root hash {}", claimed.seqno, hex::encode(claimed.root_hash)),
                "The guest saw another chain, or the block is invented",
                "Compare the chain servers of both sides; choose another worker",
            )));
        }
        let age = context.now.0.saturating_sub(known.time.0);
        let ahead = known.time.0.saturating_sub(context.now.0);
        if age > self.max_age_seconds || ahead > MAX_CLOCK_SKEW {
            return Err(Box::new(rejected(
                format!("a block at most {} s old at {}", self.max_age_seconds, context.now),
                format!("block {} of {}, {age} s old", known.seqno, known.time),
                "The evidence is stale, or a clock is wrong",
                "Ask the host for a fresh bundle",
            )));
        }
        if context.nonce.is_some() && context.nonce != statement.freshness.nonce {
            return Err(Box::new(rejected(
                "our nonce".to_owned(),
                statement.freshness.nonce.map_or("none".to_owned(), hex::encode),
                "The quote answers somebody else's challenge",
                "Ask for a quote with a nonce of your own again",
            )));
        }
        Ok(known)
    }
}

fn differing(expected: &Measurements, got: &Measurements) -> usize {
    expected.named().into_iter().zip(got.named()).filter(|((_, a), (_, b))| a != b).count()
}

fn configured(image: &ImageReference, statement: &Statement) -> bool {
    image.configuration.is_none_or(|expected| expected == statement.configuration)
}

fn rejected(expected: String, got: String, likely: &str, remedy: &str) -> Finding {
    Finding { kind: RefusalKind::Rejected, expected, got, likely: likely.into(), remedy: remedy.into() }
}

fn register(name: &str, expected: &[u8; 48], got: &[u8; 48], image: &str, list: &mut Checklist) {
    let id = CHECKS
        .into_iter()
        .find(|id| id.strip_prefix("policy.") == Some(name))
        .expect("every register has a check");
    list.require(expected == got, id, meaning(name), || {
        rejected(
            format!("{} ({image})", hex::encode(expected)),
            hex::encode(got),
            &format!("{} is not the one the policy accepts", capitalised(meaning(name))),
            "Compare the running release with the policy; add its measurements if you accept it",
        )
    });
}

fn meaning(register: &str) -> &'static str {
    match register {
        "mrtd" => "the guest binary or initial image",
        "rtmr0" => "the firmware",
        "rtmr1" => "the command line",
        "rtmr2" => "the configuration",
        "rtmr3" => "the model's weights",
        _ => "what the host set at launch",
    }
}

fn capitalised(text: &str) -> String {
    let mut characters = text.chars();
    characters.next().map(|first| first.to_uppercase().chain(characters).collect()).unwrap_or_default()
}

fn configuration(image: &ImageReference, statement: &Statement, list: &mut Checklist) {
    let Some(expected) = image.configuration else {
        list.skip("policy.configuration", "the policy pins the configuration by RTMR2 alone");
        return;
    };
    let same = expected == statement.configuration;
    list.require(same, "policy.configuration", "the configuration is the accepted one", || {
        rejected(
            hex::encode(expected),
            hex::encode(statement.configuration),
            "The guest was given another configuration",
            "Compare the host's configuration with the policy's",
        )
    });
}

fn no_images(got: &Measurements) -> Finding {
    rejected(
        "none: the policy names no image".to_owned(),
        hex::encode(got.mrtd),
        "An empty list allows nothing",
        "Add the images you accept to the policy",
    )
}

fn no_statement() -> Finding {
    rejected(
        "a bundle with a statement".to_owned(),
        "a raw quote".to_owned(),
        "A quote alone says nothing about keys, so nothing can be sealed to it",
        "Fetch the guest's bundle",
    )
}

fn unknown_beacon(seqno: u32) -> Finding {
    Finding {
        kind: RefusalKind::Unavailable,
        expected: format!("block {seqno} in our own view of the chain"),
        got: "not known".into(),
        likely: "The chain server could not be asked, or does not have this block".into(),
        remedy: "Check the chain server's address, and try again".into(),
    }
}
