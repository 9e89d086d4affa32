//! What a host's configuration asks of its machine.

use super::image::{firmware, manifest, measurements};
use super::machine::{ImageQuestion, ProfileGuest, Question};
use super::report::Tee;
use crate::config::{HostConfig, Size};
use crate::gpu::{PciAddress, Selection};
use crate::root::Root;

/// The question that a configuration asks, for guests with this TEE.
pub fn question(root: &Root, config: &HostConfig, tee: Tee) -> Question {
    let gpus: Vec<PciAddress> = config.guests.iter().flat_map(|guest| guest.gpus.iter().copied()).collect();
    // A profile that is not known here is a failed check of the image.
    let memory = config.guests.iter().filter_map(|guest| guest.size.memory()).fold(0, u64::saturating_add);
    let guests = config.guests.iter().filter_map(|guest| match &guest.size {
        Size::Profile(profile) => {
            Some(ProfileGuest { guest: guest.name.clone(), profile: profile.clone(), gpus: guest.gpus.len() })
        }
        Size::Own { .. } => None,
    });
    let image = ImageQuestion { folder: config.image.clone(), guests: guests.collect() };
    let mut question = Question {
        tee: Some(tee),
        gpus: (!gpus.is_empty()).then_some(Selection::Only(gpus)),
        memory,
        quote_service: config.quote_service.clone(),
        state: config.state.clone(),
        ports: config.guests.iter().map(|guest| guest.listen).collect(),
        ..Question::default()
    };
    if let Ok(manifest) = manifest(root, &image.folder) {
        let wanted =
            |profile: &str| image.guests.is_empty() || image.guests.iter().any(|g| g.profile == profile);
        let of_guests: Vec<_> = measurements(&manifest, tee).filter(|m| wanted(&m.profile)).collect();
        question.known_firmware = of_guests.iter().map(|m| m.firmware.to_string()).collect();
        let mut files =
            of_guests.iter().filter_map(|m| firmware(root, &image.folder, &manifest, m.firmware).ok());
        question.firmware = files.next();
    }
    Question { image: Some(image), ..question }
}
