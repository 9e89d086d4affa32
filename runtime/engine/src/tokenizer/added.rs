//! Added tokens: a tree of their bytes, so that looking for one costs no more than its own length however many there are.

use std::collections::HashMap;

use super::Added;
use crate::error::ModelError;

/// Most nodes of the tree: bytes of all added tokens, less what they begin with in common. Gemma's 6,400 have 30,000.
const MAX_NODES: usize = 1 << 20;
/// No node, and no token.
const NONE: u32 = u32::MAX;

/// Added tokens by their bytes.
pub(super) struct AddedTokens {
    tokens: Vec<Added>,
    /// Nodes after the root, by the first byte.
    first: Box<[u32; 256]>,
    /// Nodes after another.
    next: HashMap<(u32, u8), u32>,
    nodes: Vec<Node>,
}

/// The end of some bytes: which tokens these are, or [`NONE`]. Of several with one name the first in the vocabulary counts.
#[derive(Clone, Copy)]
struct Node {
    any: u32,
    /// The same without control tokens.
    plain: u32,
}

impl AddedTokens {
    /// From tokens in the order of the vocabulary; no name is empty.
    ///
    /// # Errors
    /// They are over the limit.
    pub(super) fn new(tokens: Vec<Added>) -> Result<Self, ModelError> {
        let (mut next, mut nodes) = (HashMap::new(), Vec::new());
        let mut first = Box::new([NONE; 256]);
        for (token, number) in tokens.iter().zip(0u32..) {
            let mut node = NONE;
            for &byte in &token.name {
                let place = if node == NONE {
                    &mut first[usize::from(byte)]
                } else {
                    next.entry((node, byte)).or_insert(NONE)
                };
                if *place == NONE {
                    *place = nodes.len() as u32; // below the limit
                    nodes.push(Node { any: NONE, plain: NONE });
                }
                node = *place;
                if nodes.len() > MAX_NODES {
                    let (what, found) = ("the length of its added tokens".into(), nodes.len() as u64);
                    return Err(ModelError::Limit { what, found, limit: MAX_NODES as u64 });
                }
            }
            let Some(end) = nodes.get_mut(node as usize) else { continue };
            if end.any == NONE {
                end.any = number;
            }
            if end.plain == NONE && !token.is_control {
                end.plain = number;
            }
        }
        Ok(Self { tokens, first, next, nodes })
    }

    /// The longest added token with which `bytes` begins; control tokens only with `special`.
    pub(super) fn at(&self, bytes: &[u8], special: bool) -> Option<&Added> {
        let mut found = NONE;
        let mut node = bytes.first().map_or(NONE, |byte| self.first[usize::from(*byte)]);
        let mut rest = bytes.iter().skip(1);
        while let Some(here) = self.nodes.get(node as usize) {
            let token = if special { here.any } else { here.plain };
            found = if token == NONE { found } else { token };
            let Some(&byte) = rest.next() else { break };
            node = self.next.get(&(node, byte)).copied().unwrap_or(NONE);
        }
        self.tokens.get(found as usize)
    }

    /// The control token of this name.
    pub(super) fn control(&self, name: &[u8]) -> Option<&Added> {
        let token = self.at(name, true)?;
        (token.is_control && *token.name == *name).then_some(token)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(names: &[(&str, bool)]) -> AddedTokens {
        let token = |((name, is_control), id): (&(&str, bool), u32)| Added {
            name: name.as_bytes().into(),
            id,
            is_control: *is_control,
            strips: [false; 2],
        };
        AddedTokens::new(names.iter().zip(0..).map(token).collect()).expect("they are few")
    }

    fn at(tokens: &AddedTokens, text: &str, special: bool) -> Option<u32> {
        tokens.at(text.as_bytes(), special).map(|token| token.id)
    }

    #[test]
    fn the_longest_token_is_found_and_control_tokens_on_request_alone() {
        let all =
            tokens(&[("<a>", true), ("<", false), ("<a", false), ("<a>b", true), ("é", true), ("<", true)]);
        assert_eq!((at(&all, "<a>bc", true), at(&all, "<a>bc", false)), (Some(3), Some(2)));
        assert_eq!((at(&all, "<a>", true), at(&all, "<b", true)), (Some(0), Some(1)));
        assert_eq!((at(&all, "é", true), at(&all, "é", false)), (Some(4), None));
        assert_eq!((at(&all, "", true), at(&all, "a", true)), (None, None));
        assert_eq!(all.control(b"<a>").map(|token| token.id), Some(0));
        assert!(
            all.control(b"<a").is_none() && all.control(b"<a>bc").is_none() && all.control(b"").is_none()
        );
    }

    #[test]
    fn of_two_with_one_name_the_first_counts() {
        let all = tokens(&[("x", true), ("x", false), ("y", false), ("y", true)]);
        assert_eq!((at(&all, "x", true), at(&all, "x", false)), (Some(0), Some(1)));
        assert_eq!((at(&all, "y", true), at(&all, "y", false)), (Some(2), Some(2)));
    }

    #[test]
    fn more_than_a_tree_may_hold_is_refused() {
        let token = |id: u32| Added {
            name: format!("{id:08}{}", "x".repeat(2000)).into_bytes().into(),
            id,
            is_control: false,
            strips: [false; 2],
        };
        let error = AddedTokens::new((0..1000).map(token).collect()).err().expect("it is refused");
        assert!(error.to_string().contains("added tokens"), "{error}");
    }
}
