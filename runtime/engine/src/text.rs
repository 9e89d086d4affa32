//! Text of an answer as it may be given out: whole characters, and never a part of a stop string.

use zeroize::Zeroizing;

use crate::tokenizer::TextStream;

/// Bytes that are held back at most, as a rule: a stop string and a token. Text that grows leaves copies behind.
const USUAL: usize = 1024;

/// Holds text back for as long as it may still become a stop string.
pub(crate) struct StopFilter<'a> {
    stream: TextStream<'a>,
    stops: Vec<String>,
    /// Text that is decoded and not given out; `ready` bytes of it are free to go.
    held: Zeroizing<String>,
    ready: usize,
}

impl<'a> StopFilter<'a> {
    /// At the start of an answer. No stop string is empty.
    pub(crate) fn new(stream: TextStream<'a>, stops: Vec<String>) -> Self {
        Self { stream, stops, held: Zeroizing::new(String::with_capacity(USUAL)), ready: 0 }
    }

    /// Takes a token; true if a stop string is complete.
    pub(crate) fn push(&mut self, token: u32) -> bool {
        self.held.drain(..self.ready);
        self.stream.push(token, &mut self.held);
        if let Some(start) = self.stops.iter().filter_map(|stop| self.held.find(stop.as_str())).min() {
            self.held.truncate(start);
            self.ready = start;
            return true;
        }
        self.ready = self.held.len() - self.longest_beginning();
        false
    }

    /// Bytes at the end of the held text with which some stop string begins.
    fn longest_beginning(&self) -> usize {
        let begins = |stop: &String| {
            let most = stop.len().saturating_sub(1).min(self.held.len());
            (1..=most).rev().find(|&n| self.held.as_bytes().ends_with(&stop.as_bytes()[..n])).unwrap_or(0)
        };
        let longest = self.stops.iter().map(begins).max().unwrap_or(0);
        // A stop string begins at a character, so the split is at one.
        debug_assert!(self.held.is_char_boundary(self.held.len() - longest));
        longest
    }

    /// No more tokens: all held text is free.
    pub(crate) fn finish(&mut self) {
        self.held.drain(..self.ready);
        self.stream.finish(&mut self.held);
        self.ready = self.held.len();
    }

    /// What came free with the last token.
    pub(crate) fn ready(&self) -> &str {
        &self.held[..self.ready]
    }
}
