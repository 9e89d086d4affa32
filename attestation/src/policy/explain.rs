//! A policy in words.

use super::Policy;

/// One heading and what belongs under it, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paragraph {
    /// What it is about.
    pub heading: String,
    /// A sentence or a value each.
    pub lines: Vec<String>,
}

impl Policy {
    /// What is accepted, source by source.
    pub fn explain(&self) -> Vec<Paragraph> {
        let paragraph = |part: super::Part<'_>| {
            let images = match part.images {
                [] => "no image".to_owned(),
                images => images.iter().map(|image| image.name.as_str()).collect::<Vec<_>>().join(", "),
            };
            let mut lines = vec![format!("accepts {images}")];
            if let Some(policy) = part.policy {
                lines.push(format!("on network {}", policy.network));
                lines.push(format!("with evidence of at most {} seconds of age", policy.max_age_seconds));
            }
            Paragraph { heading: part.source.to_owned(), lines }
        };
        self.parts().into_iter().map(paragraph).collect()
    }
}
