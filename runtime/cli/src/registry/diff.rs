//! What a change changes, line by line. Digests stand whole: whoever signs must not be shown two that look alike.

use std::collections::BTreeMap;

use cocoon_contracts::registry::{
    Change, Content, Gateway, Image, Measurements, Model, Owners, Prices, SnpFloors, Status, TcbFloor,
    TurinFloor,
};
use serde::Serialize;

use crate::ui::{Screen, one_line, ton};

/// How a line changes what is in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Mark {
    /// It is new.
    Added,
    /// It is gone.
    Removed,
    /// It is another.
    Changed,
}

/// One difference.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Line {
    pub(super) mark: Mark,
    pub(super) text: String,
}

/// Every difference between two states of a registry; none exactly when they are equal.
pub(super) fn differences(before: &Change, after: &Change) -> Vec<Line> {
    let mut lines = Vec::new();
    owners(&mut lines, &before.owners, &after.owners);
    head(&mut lines, &before.content, &after.content);
    let (old, new) = (&before.content, &after.content);
    list(&mut lines, &old.images, &new.images, image_name, image_facts);
    list(&mut lines, &old.models, &new.models, |model| format!("model {}", model.name), model_facts);
    list(&mut lines, &old.gateways, &new.gateways, |it| format!("gateway {}", it.name), gateway_facts);
    list(&mut lines, &old.barred, &new.barred, |id| format!("barred machine {id}"), |_| Vec::new());
    if lines.is_empty() && before != after {
        changed(&mut lines, "the order of entries is another; what they say is the same".to_owned());
    }
    lines
}

/// Shows the lines below each other.
pub(super) fn show(screen: &Screen, lines: &[Line]) {
    for Line { mark, text } in lines {
        // Names come from whoever proposed.
        let text = one_line(text);
        screen.line(&match mark {
            Mark::Added => screen.good(&format!("   + {text}")),
            Mark::Removed => screen.bad(&format!("   - {text}")),
            Mark::Changed => screen.warn(&format!("   ~ {text}")),
        });
    }
    if lines.is_empty() {
        screen.line("   nothing: it says what is in force already");
    }
}

fn changed(lines: &mut Vec<Line>, text: String) {
    lines.push(Line { mark: Mark::Changed, text });
}

fn owners(lines: &mut Vec<Line>, before: &Owners, after: &Owners) {
    let count = |owners: &Owners| format!("{} of {}", owners.required(), owners.keys().len());
    if count(before) != count(after) {
        changed(lines, format!("owners: {} → {}", count(before), count(after)));
    }
    for (mark, from, to) in [(Mark::Removed, before, after), (Mark::Added, after, before)] {
        let only = from.keys().iter().filter(|key| to.number(key).is_none());
        lines.extend(only.map(|key| Line { mark, text: format!("owner {}", hex::encode(key)) }));
    }
}

fn head(lines: &mut Vec<Line>, before: &Content, after: &Content) {
    let facts = |content: &Content| {
        let bounds = content.coefficients;
        let [milan, genoa, turin] = floors(&content.snp);
        vec![
            ("network fee in basis points", content.fee_bps.to_string()),
            ("treasury", content.treasury.to_string()),
            ("coefficients in thousandths", format!("{} to {}", bounds.min_permille, bounds.max_permille)),
            ("TCB floor of Milan", milan.unwrap_or_else(|| NO_FLOOR.to_owned())),
            ("TCB floor of Genoa", genoa.unwrap_or_else(|| NO_FLOOR.to_owned())),
            ("TCB floor of Turin", turin.unwrap_or_else(|| NO_FLOOR.to_owned())),
        ]
    };
    for ((name, old), (_, new)) in facts(before).into_iter().zip(facts(after)) {
        if old != new {
            changed(lines, format!("{name}: {old} → {new}"));
        }
    }
}

/// What a product without a floor is.
const NO_FLOOR: &str = "not accepted";

/// The floors of Milan, Genoa and Turin in words.
pub(super) fn floors(floors: &SnpFloors) -> [Option<String>; 3] {
    let words = |TcbFloor { boot_loader, tee, snp, microcode }: TcbFloor| {
        format!("boot loader {boot_loader}, TEE {tee}, SNP {snp}, microcode {microcode}")
    };
    let turin = floors.turin.map(|TurinFloor { fmc, tcb }| format!("FMC {fmc}, {}", words(tcb)));
    [floors.milan.map(words), floors.genoa.map(words), turin]
}

/// Facts of one entry: a name and what it says.
type Facts = Vec<(String, String)>;

/// Entries are told apart by name; of several with one name the first is compared with the first, and so on.
fn list<T: PartialEq>(
    lines: &mut Vec<Line>,
    before: &[T],
    after: &[T],
    name: impl Fn(&T) -> String,
    facts: impl Fn(&T) -> Facts,
) {
    let mut names = BTreeMap::<String, (Vec<&T>, Vec<&T>)>::new();
    before.iter().for_each(|entry| names.entry(name(entry)).or_default().0.push(entry));
    after.iter().for_each(|entry| names.entry(name(entry)).or_default().1.push(entry));
    for (name, (old, new)) in names {
        for at in 0..old.len().max(new.len()) {
            match (old.get(at), new.get(at)) {
                (Some(old), Some(new)) if old != new => {
                    changed(lines, format!("{name}: {}", both(&facts(old), &facts(new))));
                }
                (Some(old), None) => {
                    lines.push(Line { mark: Mark::Removed, text: whole(&name, &facts(old)) });
                }
                (None, Some(new)) => lines.push(Line { mark: Mark::Added, text: whole(&name, &facts(new)) }),
                _ => {}
            }
        }
    }
}

fn whole(name: &str, facts: &Facts) -> String {
    let facts: Vec<String> = facts.iter().map(|(fact, value)| format!("{fact} {value}")).collect();
    if facts.is_empty() { name.to_owned() } else { format!("{name}: {}", facts.join(", ")) }
}

fn both(old: &Facts, new: &Facts) -> String {
    let new: BTreeMap<&String, &String> = new.iter().map(|(fact, value)| (fact, value)).collect();
    let old: BTreeMap<&String, &String> = old.iter().map(|(fact, value)| (fact, value)).collect();
    let mut words = Vec::new();
    for (fact, value) in &old {
        match new.get(fact) {
            Some(now) if now != value => words.push(format!("{fact} {value} → {now}")),
            None => words.push(format!("{fact} {value} → none")),
            Some(_) => {}
        }
    }
    let added = new.iter().filter(|(fact, _)| !old.contains_key(*fact));
    words.extend(added.map(|(fact, value)| format!("{fact} none → {value}")));
    words.join(", ")
}

fn word(status: Status) -> String {
    match status {
        Status::Allowed => "allowed".to_owned(),
        Status::Barred => "barred".to_owned(),
    }
}

/// What tells images apart: a name may be there for each platform and profile.
pub(super) fn image_name(image: &Image) -> String {
    let profile = if image.profile.is_empty() { "any machine" } else { &image.profile };
    format!("image {} ({}, {profile})", image.name, platform(&image.measurements))
}

/// The platform's name.
pub(super) fn platform(measurements: &Measurements) -> &'static str {
    match measurements {
        Measurements::Tdx(_) => "TDX",
        Measurements::Snp { .. } => "SEV-SNP",
        Measurements::Vtpm { .. } => "vTPM",
    }
}

fn image_facts(image: &Image) -> Facts {
    let mut facts = vec![("status".to_owned(), word(image.status))];
    facts.extend(registers(&image.measurements));
    facts.extend(image.configuration.map(|digest| ("configuration".to_owned(), hex::encode(digest))));
    facts
}

/// Registers by name, digests whole.
pub(super) fn registers(measurements: &Measurements) -> Facts {
    match measurements {
        Measurements::Tdx(tdx) => {
            let rtmr = tdx.rtmr.iter().enumerate();
            let rtmr = rtmr.map(|(number, value)| (format!("RTMR{number}"), hex::encode(value)));
            std::iter::once(("MRTD".to_owned(), hex::encode(tdx.mrtd))).chain(rtmr).collect()
        }
        Measurements::Snp { launch } => vec![("launch digest".to_owned(), hex::encode(launch))],
        Measurements::Vtpm { pcrs } => {
            pcrs.iter().map(|(number, value)| (format!("PCR{number}"), hex::encode(value))).collect()
        }
    }
}

fn model_facts(model: &Model) -> Facts {
    let Prices { prompt, cached, completion } = model.prices;
    vec![
        ("status".to_owned(), word(model.status)),
        ("weights".to_owned(), hex::encode(model.weights)),
        ("TON per million prompt tokens".to_owned(), ton(prompt)),
        ("TON per million cached tokens".to_owned(), ton(cached)),
        ("TON per million completion tokens".to_owned(), ton(completion)),
    ]
}

fn gateway_facts(gateway: &Gateway) -> Facts {
    vec![("status".to_owned(), word(gateway.status)), ("address".to_owned(), gateway.address.to_string())]
}

#[cfg(test)]
mod tests {
    use super::super::samples;
    use super::*;

    fn texts(before: &Change, after: &Change) -> Vec<String> {
        let mark = |mark| match mark {
            Mark::Added => '+',
            Mark::Removed => '-',
            Mark::Changed => '~',
        };
        let lines = differences(before, after);
        lines.into_iter().map(|line| format!("{} {}", mark(line.mark), line.text)).collect()
    }

    #[test]
    fn the_same_differs_in_nothing() {
        assert_eq!(texts(&samples::full(), &samples::full()), Vec::<String>::new());
    }

    #[test]
    fn each_change_is_a_line_with_what_it_was_and_will_be() {
        let before = samples::full();
        let mut after = before.clone();
        after.content.fee_bps = 300;
        after.content.models[0].prices.completion = 200_000_000;
        after.content.models[0].status = Status::Barred;
        after.content.gateways.clear();
        let id = "gpu:0a0b".parse().expect("a machine");
        after.content.barred.push(id);
        let address = &before.content.gateways[0].address;
        assert_eq!(
            texts(&before, &after),
            [
                "~ network fee in basis points: 500 → 300".to_owned(),
                "~ model tiny: TON per million completion tokens 0.16 → 0.2, status allowed → barred"
                    .to_owned(),
                format!("- gateway https://one: status allowed, address {address}"),
                "+ barred machine gpu:0a0b".to_owned(),
            ]
        );
    }

    #[test]
    fn digests_stand_whole() {
        let before = samples::full();
        let mut after = before.clone();
        let Measurements::Tdx(registers) = &mut after.content.images[0].measurements else {
            panic!("the first is TDX")
        };
        registers.rtmr[2][24] ^= 1;
        let digest = hex::encode(registers.rtmr[2]);
        let lines = texts(&before, &after);
        assert_eq!(lines.len(), 1);
        assert!(lines[0].contains(&digest), "{lines:?}");
    }

    /// Whatever differs is said: nobody signs a change that shows as nothing.
    #[test]
    fn no_difference_is_silent() {
        let before = samples::full();
        for (number, after) in samples::variations().into_iter().enumerate() {
            assert_ne!(before, after, "variation {number} is none");
            assert!(!differences(&before, &after).is_empty(), "variation {number} shows nothing");
            assert!(!differences(&after, &before).is_empty(), "variation {number} shows nothing backwards");
        }
    }
}
