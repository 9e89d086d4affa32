//! The firmware files of an image: which packages they come from, and what is made of them.

use cocoon_image::manifest::{File, Firmware, Variant};
use cocoon_image::tdvf::with_variables_of;

use crate::Error;
use crate::groups::Group;
use crate::image::read;
use crate::lock::Lock;
use crate::output::Folder;
use crate::store::Store;
use crate::tree::Tree;

/// A file of a package.
#[derive(Clone, Copy)]
struct Packaged {
    group: Group,
    path: &'static str,
}

/// A firmware file of an image.
struct Wanted {
    /// Its name in the image, which machine profiles name it by.
    name: &'static str,
    code: Packaged,
    /// Where its variables come from, if not from the same file.
    variables: Option<Packaged>,
}

const PLAIN: Packaged = Packaged { group: Group::Firmware, path: "usr/share/ovmf/OVMF.fd" };

const EMULATED: [Wanted; 1] = [Wanted { name: "OVMF.fd", code: PLAIN, variables: None }];

const CONFIDENTIAL: [Wanted; 2] = [
    Wanted {
        name: "OVMF.amdsev.fd",
        code: Packaged { group: Group::TeeFirmware, path: "usr/share/ovmf/OVMF.amdsev.fd" },
        variables: None,
    },
    // Debian builds it with Microsoft's keys among its variables, and then it starts no kernel directly: none is signed by
    // Microsoft. With the empty variables of the plain firmware it starts the one that it measures.
    Wanted {
        name: "OVMF.inteltdx.fd",
        code: Packaged { group: Group::TeeFirmware, path: "usr/share/ovmf/OVMF.inteltdx.ms.fd" },
        variables: Some(PLAIN),
    },
];

/// Name and bytes of each firmware of an image, by name.
pub(crate) async fn files(
    variant: Variant,
    lock: &Lock,
    store: &Store,
) -> Result<Vec<(&'static str, Vec<u8>)>, Error> {
    let wanted = match variant {
        Variant::Development => EMULATED.as_slice(),
        Variant::Production => &CONFIDENTIAL,
    };
    let mut files = Vec::new();
    for Wanted { name, code, variables } in wanted {
        let mut bytes = packaged(*code, lock, store).await?;
        if let Some(variables) = variables {
            let variables = packaged(*variables, lock, store).await?;
            bytes = with_variables_of(&bytes, &variables)
                .map_err(|error| Error::Contents(format!("{name} cannot be made: {error}")))?;
        }
        files.push((*name, bytes));
    }
    Ok(files)
}

async fn packaged(file: Packaged, lock: &Lock, store: &Store) -> Result<Vec<u8>, Error> {
    read(&Tree::of(file.group, lock, store).await?.file(file.path)?)
}

/// Writes them into the folder `firmware` of an image.
pub(crate) fn write(files: &[(&str, Vec<u8>)], folder: &Folder) -> Result<(), Error> {
    let place = folder.path().join("firmware");
    std::fs::create_dir(&place).map_err(Error::io("create", &place))?;
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&place, mode).map_err(Error::io("create", &place))?;
    files.iter().try_for_each(|(name, bytes)| folder.write(&format!("firmware/{name}"), bytes))
}

/// What a manifest says of one.
pub(crate) fn listed(name: &str, bytes: &[u8]) -> Firmware {
    let File { sha256, size } = File::of(bytes);
    Firmware { name: name.to_owned(), sha256, size }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use cocoon_image::profile::{PlatformName, built_in};

    use super::*;

    /// A profile with firmware that no image has could never be booted, and nobody would notice.
    #[test]
    fn each_machine_profile_finds_its_firmware_in_the_image_for_it() {
        let has = |wanted: &[Wanted], name: &str| wanted.iter().any(|wanted| wanted.name == name);
        let mut used = BTreeMap::new();
        for (profile, _) in built_in() {
            let emulated = profile.platform == PlatformName::Emulation;
            assert_eq!(has(&EMULATED, &profile.firmware), emulated, "{}", profile.name);
            assert_eq!(has(&CONFIDENTIAL, &profile.firmware), !emulated, "{}", profile.name);
            used.insert(profile.firmware, profile.name);
        }
        assert_eq!(used.len(), EMULATED.len() + CONFIDENTIAL.len(), "no firmware is shipped for nothing");
    }

    #[test]
    fn they_are_in_the_order_of_their_names() {
        for wanted in [EMULATED.as_slice(), &CONFIDENTIAL] {
            assert!(wanted.is_sorted_by(|a, b| a.name < b.name), "a manifest has them so");
        }
    }
}
