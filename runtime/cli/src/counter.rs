//! Counting tokens again with the model's own tokenizer, and saying so when a worker counts otherwise.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use cocoon_client::{Finished, Peer, TokenCounter};
use cocoon_engine::{ChatMessage, Vocabulary};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::error::{Explain, Failure};
use crate::ui::{Screen, printable};

/// Where reports are kept, in the profile's folder.
const REPORTS: &str = "reports";

/// The tokenizer of a model file.
struct Counter {
    weights: [u8; 32],
    vocabulary: Vocabulary,
}

/// Reads the tokenizer of the model in this file, which must be the very file that workers serve.
///
/// # Errors
/// The file cannot be read, or is no model that this engine knows.
pub(crate) fn open(path: &Path) -> Result<Arc<dyn TokenCounter>, Failure> {
    const REMEDY: &str = "name the GGUF file that the worker serves, or leave --recount out";
    let about = || format!("tokens cannot be counted with {}", path.display());
    let vocabulary = Vocabulary::open(path).explain(about, REMEDY)?;
    let weights = digest(path).explain(about, REMEDY)?;
    Ok(Arc::new(Counter { weights, vocabulary }))
}

fn digest(path: &Path) -> std::io::Result<[u8; 32]> {
    let mut context = ring::digest::Context::new(&ring::digest::SHA256);
    let (mut file, mut piece) = (File::open(path)?, vec![0; 1 << 20]);
    loop {
        match std::io::Read::read(&mut file, &mut piece)? {
            0 => return Ok(context.finish().as_ref().try_into().expect("SHA-256 has 32 bytes")),
            read => context.update(&piece[..read]),
        }
    }
}

impl TokenCounter for Counter {
    fn weights(&self) -> [u8; 32] {
        self.weights
    }

    fn prompt_tokens(&self, request: &[u8]) -> Option<u32> {
        let Request { messages, tools } = serde_json::from_slice(request).ok()?;
        if tools.is_some() {
            return None; // the guest tells the model of them
        }
        let messages: Vec<ChatMessage> = messages.into_iter().map(Message::plain).collect::<Option<_>>()?;
        let text = Zeroizing::new(self.vocabulary.render_chat(&messages, true).ok()?);
        self.tokens(&text, true)
    }

    fn text_tokens(&self, text: &str) -> u32 {
        self.tokens(text, false).unwrap_or(u32::MAX)
    }
}

impl Counter {
    fn tokens(&self, text: &str, special: bool) -> Option<u32> {
        let tokens = Zeroizing::new(self.vocabulary.tokenizer().encode(text, special));
        u32::try_from(tokens.len()).ok()
    }
}

/// Of a chat request, what becomes the prompt.
#[derive(Deserialize)]
struct Request {
    messages: Vec<Message>,
    tools: Option<serde::de::IgnoredAny>,
}

#[derive(Deserialize)]
struct Message {
    role: String,
    content: Content,
    /// How calls are told is the guest's and the template's matter.
    tool_calls: Option<serde::de::IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Content {
    Text(String),
    Parts(Vec<Part>),
}

#[derive(Deserialize)]
struct Part {
    text: String,
}

impl Message {
    /// As the guest reads it; `None` for what it refuses.
    fn plain(self) -> Option<ChatMessage> {
        if self.tool_calls.is_some() {
            return None;
        }
        let role = match self.role.as_str() {
            "developer" => "system".to_owned(),
            "system" | "user" | "assistant" => self.role,
            _ => return None,
        };
        let content = match self.content {
            Content::Text(text) => text,
            Content::Parts(parts) => parts.into_iter().map(|part| part.text).collect(),
        };
        Some(ChatMessage { role, content })
    }
}

/// What is kept of a worker that counts otherwise: its signed receipt and both counts; nothing of prompt or answer.
#[derive(Serialize)]
struct Report<'a> {
    worker: &'a str,
    model: &'a str,
    request_id: String,
    /// The worker's, as its receipt says.
    claimed: cocoon_protocol::Usage,
    /// Ours; null where it could not be counted.
    prompt_tokens: Option<u32>,
    completion_tokens: Option<u32>,
    receipt: String,
    opening: String,
}

/// Says that a worker's count differs from ours, if it does, and keeps a report in the profile's folder. Returns whether it did.
pub(crate) fn report(screen: &Screen, profile: &Path, peer: &Peer, finished: &Finished) -> bool {
    let Some(recount) = finished.recount.filter(cocoon_client::Recount::differs) else { return false };
    let claimed = recount.claimed;
    let ours = |count: Option<u32>| count.map_or_else(|| "?".to_owned(), |count| count.to_string());
    let request_id = hex::encode(finished.receipt.receipt().request_id);
    let line = format!(
        "{} counts {} + {} tokens, this client counts {} + {}: it is asked last from now on",
        printable(peer.worker()),
        claimed.prompt_tokens,
        claimed.completion_tokens,
        ours(recount.prompt_tokens),
        ours(recount.completion_tokens)
    );
    eprintln!("{}", screen.warn(&line));
    let report = Report {
        worker: peer.worker(),
        model: peer.model(),
        claimed,
        prompt_tokens: recount.prompt_tokens,
        completion_tokens: recount.completion_tokens,
        receipt: hex::encode(finished.receipt.signed().encode()),
        opening: hex::encode(finished.receipt.opening().encode()),
        request_id: request_id.clone(),
    };
    let folder = profile.join(REPORTS);
    let path = folder.join(format!("{request_id}.json"));
    let text = serde_json::to_vec_pretty(&report).expect("strings and numbers always encode");
    match std::fs::create_dir_all(&folder).and_then(|()| std::fs::write(&path, text)) {
        Ok(()) => eprintln!("{}", screen.dim(&format!("the signed receipt is kept in {}", path.display()))),
        Err(error) => eprintln!("{}", screen.warn(&format!("the report was not kept: {error}"))),
    }
    true
}
