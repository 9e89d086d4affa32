//! The second proof: the evidence is what this relying party accepts, for it, now. Measurements are compared here and in
//! the modules beside this one, and nowhere else.

use super::compare::Comparison;
use super::{Context, ImageReference, Part, Policy, Trusted, azure, freshness, gpu, rejected};
use crate::check::Checklist;
use crate::genuine::{Claims, Proven};
use crate::nvidia::Gpu;
use crate::policy::snp::{SnpReference, SnpRules};
use crate::policy::tdx::{TdxReference, TdxRules};
use crate::{Check, Genuine, Platform, Refusal, Statement, UnixTime};

impl Policy {
    /// Is this genuine evidence something I accept, for me, now?
    ///
    /// Where policies of several sources were joined by [`Policy::with`], every one of them must accept it.
    ///
    /// # Errors
    /// A [`Refusal`] naming the register or rule that does not hold.
    pub fn appraise(&self, genuine: Genuine, context: &Context) -> Result<Trusted, Refusal> {
        let Proven { checks: earlier, platform, claims, gpus, statement } = genuine.into_proven();
        let subject = Subject {
            statement: statement.as_ref().map(|(statement, _)| statement),
            claims: claims.as_ref(),
            gpus: &gpus,
            platform: &platform,
            earlier: &earlier,
        };
        let mut list = Checklist::new(&checks_on(subject.claims));
        let appraised = self.check(&subject, context, &mut list);
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
        subject: &Subject<'_>,
        context: &Context,
        list: &mut Checklist,
    ) -> Option<(String, UnixTime)> {
        let parts = self.parts();
        // Measurements are compared even where there is no statement: an auditor wants to know.
        let images: Vec<Option<&str>> = parts.iter().map(|part| image(part, subject, list)).collect();
        for part in &parts {
            if let Some(policy) = part.policy {
                policy.rules(part.source, subject, list);
                policy.platform_ids(part.source, subject.platform, list);
                gpu::check(policy.gpu.as_ref(), subject.gpus, subject.earlier, part.source, list);
            }
        }
        let Some(statement) = subject.statement else {
            list.fail("policy.network", no_statement());
            return None;
        };
        for part in &parts {
            network(part, statement, list);
            models(part, statement, list);
        }
        let max_age = parts.iter().filter_map(|part| part.policy).map(|policy| policy.max_age_seconds).min();
        let fresh_until = freshness::check(statement, max_age.unwrap_or(0), context, list)?;
        freshness::not_lapsed(subject.platform.good_until, context.now, list);
        Some((images.into_iter().collect::<Option<Vec<_>>>()?.first()?.to_string(), fresh_until))
    }

    /// What is accepted of machines of this kind, whatever image they run.
    fn rules(&self, source: &str, subject: &Subject<'_>, list: &mut Checklist) {
        match subject.claims {
            Some(claims @ (Claims::Tdx(body) | Claims::AzureTdx(body, _))) => match &self.tdx {
                Some(rules) => rules.check(body, matches!(claims, Claims::AzureTdx(..)), source, list),
                None => list.fail(TdxRules::CHECKS[0], no_rules("TDX", "[tdx]")),
            },
            Some(Claims::Snp(report) | Claims::AzureSnp(report, _)) => match &self.snp {
                Some(rules) => rules.check(report, subject.platform.product, source, list),
                None => list.fail(SnpRules::CHECKS[0], no_rules("SEV-SNP", "[snp]")),
            },
            Some(Claims::Sgx(_)) | None => {} // `image` refuses what is no guest
        }
    }

    fn platform_ids(&self, source: &str, platform: &Platform, list: &mut Checklist) {
        let only = self.platforms.only.as_ref();
        let barred = platform.ids.iter().find(|id| self.platforms.bar.contains(id));
        let stranger = platform.ids.iter().find(|id| only.is_some_and(|only| !only.contains(id)));
        // Whose chip has no name (a VLEK's, where the host masks it) may be any chip: a GPU's name is not the machine's.
        let by_chip = only.is_some() || self.platforms.bar.iter().any(|id| id.is_alike(platform.kind));
        let nameless = by_chip && !platform.ids.iter().any(|id| id.is_alike(platform.kind));
        let expected = match only {
            Some(only) => format!("one of {} named machines ({source})", only.len()),
            None => format!("none of {} barred machines ({source})", self.platforms.bar.len()),
        };
        let shown =
            |ids: &[crate::PlatformId]| ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let got = match barred.or(stranger) {
            Some(id) => id.to_string(),
            None if nameless => "a machine that hides which one it is".to_owned(),
            None => shown(&platform.ids),
        };
        let holds = barred.is_none() && stranger.is_none() && !nameless;
        list.require(
            holds,
            "policy.platform",
            "the machine is not barred, and named where names are required",
            || {
                rejected(
                    expected,
                    got,
                    "This very machine is barred, or is not one of those that the policy names",
                    "Choose another worker; name the machine in [platforms] if you accept it",
                )
            },
        );
    }
}

/// What is appraised.
struct Subject<'a> {
    statement: Option<&'a Statement>,
    /// `None` for GPUs by themselves.
    claims: Option<&'a Claims>,
    gpus: &'a [Gpu],
    platform: &'a Platform,
    /// The checks of the first proof.
    earlier: &'a [Check],
}

/// The checks of an appraisal, in their order.
fn checks_on(claims: Option<&Claims>) -> Vec<&'static str> {
    let (fields, rules) = match claims {
        Some(Claims::Tdx(_) | Claims::AzureTdx(..)) => (&TdxReference::CHECKS[..], &TdxRules::CHECKS[..]),
        Some(Claims::Snp(_) | Claims::AzureSnp(..)) => (&SnpReference::CHECKS[..], &SnpRules::CHECKS[..]),
        Some(Claims::Sgx(_)) | None => Default::default(),
    };
    let pcrs = match claims {
        Some(Claims::AzureTdx(..) | Claims::AzureSnp(..)) => &[azure::CHECK][..],
        _ => &[],
    };
    let before = &["policy.network", "policy.image"][..];
    let after = &["policy.platform", gpu::CHECK, "policy.model", "freshness"][..];
    [before, fields, pcrs, &["policy.configuration"], rules, after].concat()
}

/// The image's values for this platform beside the report's; `None` for an image that does not run there.
fn compare<'a>(image: &'a ImageReference, claims: &'a Claims) -> Option<Vec<Comparison<'a>>> {
    match claims {
        Claims::Tdx(body) => image.tdx.as_ref().map(|reference| reference.compare(body).into()),
        Claims::Sgx(_) => None,
        Claims::Snp(report) => image.snp.as_ref().map(|reference| reference.compare(report)),
        Claims::AzureTdx(body, vtpm) => {
            let azure = image.azure.as_ref()?;
            let mut rows: Vec<_> = azure.tdx.as_ref()?.compare(body).into();
            rows.push(azure.pcrs(vtpm));
            Some(rows)
        }
        Claims::AzureSnp(report, vtpm) => {
            let azure = image.azure.as_ref()?;
            let mut rows = azure.snp.as_ref()?.compare(report);
            rows.push(azure.pcrs(vtpm));
            Some(rows)
        }
    }
}

/// Holds the report against the accepted image that is closest, so that a refusal names what differs.
fn image<'a>(part: &Part<'a>, subject: &Subject<'_>, list: &mut Checklist) -> Option<&'a str> {
    let Some(claims) = subject.claims.filter(|claims| !matches!(claims, Claims::Sgx(_))) else {
        list.fail("policy.image", no_guest(subject.platform));
        return None;
    };
    let candidates = part.images.iter().filter_map(|image| Some((image, compare(image, claims)?)));
    let differences = |image: &ImageReference, rows: &[Comparison<'_>]| {
        let configured = subject.statement.is_none_or(|statement| configured(image, statement));
        rows.iter().filter(|row| !row.holds).count() + usize::from(!configured)
    };
    let Some((image, rows)) = candidates.min_by_key(|(image, rows)| differences(image, rows)) else {
        list.fail("policy.image", no_image(part));
        return None;
    };
    let got = format!("closest to {:?}", image.name);
    list.pass("policy.image", "an image that the policy names", got, "compared field by field below");
    let source = format!("{}, {}", part.source, image.name);
    rows.into_iter().for_each(|row| row.file(&source, list));
    match subject.statement {
        Some(statement) => configuration(image, statement, claims, list),
        None => list.not_applicable("policy.configuration", "without a statement nothing says it"),
    }
    Some(&image.name)
}

fn configured(image: &ImageReference, statement: &Statement) -> bool {
    image.configuration.is_none_or(|expected| expected == statement.configuration)
}

fn network(part: &Part<'_>, statement: &Statement, list: &mut Checklist) {
    let Some(policy) = part.policy else { return };
    let same = statement.network == policy.network;
    list.require(same, "policy.network", "it serves this network", || {
        rejected(
            policy.network.to_string(),
            statement.network.to_string(),
            "The guest was configured for another network",
            "Choose a worker of this network, or correct the network in the policy",
        )
    });
}

fn models(part: &Part<'_>, statement: &Statement, list: &mut Checklist) {
    let Some(accepted) = part.models else { return };
    let stranger = statement.models.iter().find(|model| !accepted.contains(&model.weights));
    let holds = stranger.is_none() && !statement.models.is_empty();
    let got = match stranger.or(statement.models.first()) {
        Some(model) => format!("{} {}", model.name, hex::encode(model.weights)),
        None => "no model".to_owned(),
    };
    list.require(holds, "policy.model", "it answers with an accepted model", || {
        let accepted: Vec<String> = accepted.iter().map(hex::encode).collect();
        let expected = if accepted.is_empty() {
            format!("none: the {} names no model", part.source)
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

fn configuration(image: &ImageReference, statement: &Statement, claims: &Claims, list: &mut Checklist) {
    const ID: &str = "policy.configuration";
    let Some(expected) = image.configuration else {
        // SEV-SNP has no register that a running guest extends: the statement alone says what was loaded.
        match claims {
            Claims::Snp(_) => list.fail(ID, no_configuration(&image.name)),
            _ => list.skip(ID, "the policy pins the configuration by its register alone"),
        }
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

fn no_image(part: &Part<'_>) -> crate::check::Finding {
    rejected(
        format!("an image of the {} for this platform", part.source),
        format!("none among {}", part.images.len()),
        "An empty list allows nothing",
        "Add the images you accept to the policy, with their values for this platform",
    )
}

fn no_configuration(image: &str) -> crate::check::Finding {
    rejected(
        format!("a configuration pinned for {image:?}"),
        "none".to_owned(),
        "SEV-SNP has no register for the configuration, so nothing would hold it",
        "Add the configuration's SHA-256 to the image in the policy",
    )
}

fn no_guest(platform: &Platform) -> crate::check::Finding {
    rejected(
        "a guest in a confidential VM".to_owned(),
        format!("{} evidence alone", platform.name()),
        "A policy accepts guests; this evidence is not a guest's",
        "Fetch the guest's bundle",
    )
}

fn no_rules(platform: &str, table: &str) -> crate::check::Finding {
    rejected(
        format!("a table {table} in the policy"),
        "none".to_owned(),
        &format!("The policy does not say which {platform} machines it accepts, so it accepts none"),
        &format!("Add {table} to the policy; `cocoon policy explain` shows what it says"),
    )
}

fn no_statement() -> crate::check::Finding {
    rejected(
        "a bundle with a statement".to_owned(),
        "raw evidence".to_owned(),
        "Evidence alone says nothing about keys, so nothing can be sealed to it",
        "Fetch the guest's bundle",
    )
}
