//! The image that guests boot, as far as it can be looked at quickly: `cocoon image verify` hashes all of it.

use cocoon_image::manifest::Manifest;

use super::Look;
use crate::doctor::image;
use crate::doctor::machine::{ImageQuestion, ProfileGuest};
use crate::doctor::report::{Check, Group};

const GROUP: Group = Group::Software;

pub(super) fn manifest(look: &Look<'_>) -> Check {
    let variant = image::variant(look.tee);
    let check = Check::new("image.manifest", GROUP, format!("a {} image", variant.word()), "");
    let Some(asked) = &look.question.image else {
        return check.skipped("no configuration names an image");
    };
    match image::manifest(look.root, &asked.folder) {
        Err(why) => Check { found: "none".into(), ..check }
            .fail(why, "make it with `cocoon image build`, or correct `image` in the configuration"),
        Ok(manifest) => {
            let found = format!("{}, {}", asked.folder.display(), manifest.variant.word());
            let check = Check { found, ..check };
            match manifest.variant == variant {
                true => check.ok(format!("measured for {} machines", manifest.measurements.len())),
                false => check.fail(
                    format!("it is not the image for guests with {}", look.tee.name()),
                    format!("name the {} image, or another `tee`, in the configuration", variant.word()),
                ),
            }
        }
    }
}

pub(super) fn profiles(look: &Look<'_>) -> Check {
    let check = Check::new("image.profiles", GROUP, "each guest's machine measured, its firmware there", "");
    let Some(asked) = &look.question.image else {
        return check.skipped("no configuration names an image");
    };
    if let Some(blocker) = look.blocked_by(&["image.manifest"]) {
        return check.skipped(format!("{blocker} comes first"));
    }
    if asked.guests.is_empty() {
        return check
            .not_applicable("no guest's machine is a profile: `cocoon image measure` predicts others");
    }
    let Ok(manifest) = image::manifest(look.root, &asked.folder) else {
        return check.skipped("image.manifest comes first");
    };
    let names: Vec<&str> = asked.guests.iter().map(|guest| guest.profile.as_str()).collect();
    let check = Check { found: names.join(", "), ..check };
    match asked.guests.iter().find_map(|guest| wrong(look, asked, &manifest, guest)) {
        None => check.ok("all there"),
        Some((reason, remedy)) => check.fail(reason, remedy),
    }
}

/// What is wrong with one guest's profile, and what to do.
fn wrong(
    look: &Look<'_>,
    asked: &ImageQuestion,
    manifest: &Manifest,
    guest: &ProfileGuest,
) -> Option<(String, String)> {
    let ProfileGuest { guest, profile, gpus } = guest;
    let measured: Vec<_> = image::measurements(manifest, look.tee).collect();
    let Some(measurement) = measured.iter().find(|measurement| measurement.profile == *profile) else {
        let known: Vec<&str> = measured.iter().map(|measurement| measurement.profile.as_str()).collect();
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        return Some((
            format!("guest {guest}: the manifest does not measure {profile} for {}", look.tee.name()),
            format!("name one that it does measure: {known}; or make a newer image"),
        ));
    };
    let machine = cocoon_image::profile::built_in().into_iter().find(|(machine, _)| machine.name == *profile);
    if let Some((machine, _)) = machine.filter(|(machine, _)| usize::from(machine.gpus) != *gpus) {
        return Some((
            format!(
                "guest {guest}: {profile} is measured with {} GPUs, and `gpus` names {gpus}",
                machine.gpus
            ),
            "name as many GPUs as the profile has, or another profile: clients would refuse the guest".into(),
        ));
    }
    let firmware = image::firmware(look.root, &asked.folder, manifest, measurement.firmware);
    firmware
        .err()
        .map(|why| (format!("guest {guest}: {why}"), "make the image again, or fetch it again".into()))
}
