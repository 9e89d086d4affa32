//! `cocoon chat`: a conversation, or one question.

use std::io::{BufRead, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use cocoon_client::proxy::budget_for;
use cocoon_client::{Answering, CacheSalt, Client, Event, Finished, Peer};
use cocoon_protocol::Prompt;
use serde::Deserialize;

use crate::counter;
use crate::error::{EXIT_FAILURE, Failure};
use crate::network::{role_folder, state_folder};
use crate::ui::{Screen, grouped, printable, ton};
use crate::wiring::{CLIENT, ChannelMoney, ClientSettings, Joined, explain_client, parse_profile};

#[derive(clap::Args)]
#[command(after_help = "\
Without PROMPT it reads lines: from a terminal as a conversation (/new forgets it, /quit or Ctrl-D ends), from a pipe as
one question.")]
pub(crate) struct Arguments {
    /// Ask this once and end
    prompt: Option<String>,
    /// The model to ask [default: the cheapest that is acceptable]
    #[arg(long, value_name = "NAME")]
    model: Option<String>,
    /// What the model is told first
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,
    /// Most tokens of an answer
    #[arg(long, value_name = "N", default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..=8192))]
    max_tokens: u32,
    /// 0 is deterministic, 2 is wild
    #[arg(long, value_name = "T")]
    temperature: Option<f32>,
    /// The same seed gives the same answer
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Folder of the network file, wallets and books [default: cocoon/ in the user's state folder]
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// The gateway to use [default: the first of the network file]
    #[arg(long, value_name = "URL")]
    gateway: Option<String>,
    /// Accept only what this policy accepts beside the registry's: the strictest wins
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// Count tokens again with this model file, and report a worker whose count differs
    #[arg(long, value_name = "FILE")]
    recount: Option<PathBuf>,
    /// Keep the last answer's receipt, its opening and the worker's bundle here, for `cocoon verify` and `cocoon audit replay`
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
    /// Whose wallet and books to use; each profile is open in one process at a time
    #[arg(long, value_name = "NAME", default_value = CLIENT, value_parser = parse_profile)]
    profile: String,
    #[command(flatten)]
    money: ChannelMoney,
}

pub(crate) async fn run(arguments: Arguments) -> Result<ExitCode, Failure> {
    let screen = Screen::new(false);
    let joined = Joined::load(&state_folder(arguments.state.clone())?).await?;
    let settings = ClientSettings {
        policy: arguments.policy.clone(),
        recount: arguments.recount.clone(),
        profile: arguments.profile.clone(),
        money: arguments.money.clone(),
        ..ClientSettings::default()
    };
    let client = joined.client(arguments.gateway.clone(), settings).await?;
    let peer = client.find(arguments.model.as_deref()).await.map_err(|error| explain_client(&error))?;
    let folder = role_folder(&joined.state, &arguments.profile)?;
    let salt = CacheSalt::random();
    let mut chat = Chat { screen, client, peer, arguments, folder, salt, turns: Vec::new() };
    chat.greet();
    match chat.arguments.prompt.clone() {
        Some(prompt) => chat.turn(&prompt).await?,
        None if std::io::stdin().is_terminal() => return chat.converse().await,
        None => {
            let prompt = std::io::read_to_string(std::io::stdin()).map_err(|error| {
                Failure::usage(format!("standard input cannot be read: {error}"), "send UTF-8 text")
            })?;
            chat.turn(prompt.trim()).await?;
        }
    }
    chat.client.close_idle().await;
    Ok(ExitCode::SUCCESS)
}

struct Chat {
    screen: Screen,
    client: Client,
    peer: Peer,
    arguments: Arguments,
    /// The profile's.
    folder: PathBuf,
    /// Each turn begins with all turns before it: a worker that it comes to again has read them.
    salt: CacheSalt,
    /// Role and text, in order.
    turns: Vec<(&'static str, String)>,
}

impl Chat {
    fn greet(&self) {
        let checks = self.peer.trusted().checks().len();
        let mut line = format!("{} {} · {checks} checks", self.screen.good("✓ verified"), self.peer.model());
        if self.peer.trusted().simulated() {
            line.push_str(&self.screen.warn(" · SIMULATED: no hardware protects this conversation"));
        }
        eprintln!("{line}");
        if let Some(other) = self.peer.twin() {
            let note = format!("this worker and {} show the same machine or device", printable(other));
            eprintln!("{}", self.screen.warn(&note));
        }
    }

    async fn converse(&mut self) -> Result<ExitCode, Failure> {
        let mut failed = false;
        loop {
            let Some(line) = read_line(&self.screen).await else { break };
            match line.trim() {
                "" => continue,
                "/quit" | "/exit" => break,
                "/new" => {
                    self.turns.clear();
                    eprintln!("{}", self.screen.dim("a new conversation"));
                }
                prompt => {
                    let prompt = prompt.to_owned();
                    let asked = self.turn(&prompt).await;
                    failed = asked.is_err();
                    // A conversation goes on after an error: nothing of it is lost.
                    if let Err(failure) = asked {
                        eprintln!("{failure}");
                    }
                }
            }
        }
        Ok(if failed { ExitCode::from(EXIT_FAILURE) } else { ExitCode::SUCCESS })
    }

    /// Asks, shows the answer as it comes, and keeps both for the next turn if the receipt holds.
    async fn turn(&mut self, prompt: &str) -> Result<(), Failure> {
        if prompt.is_empty() {
            return Err(Failure::usage(
                "there is nothing to ask",
                "give a prompt as argument or on standard input",
            ));
        }
        if !self.peer.is_fresh() {
            self.peer =
                self.client.find(self.arguments.model.as_deref()).await.map_err(|e| explain_client(&e))?;
        }
        let body = self.body(prompt);
        let budget = budget_for(&body, Some(self.arguments.max_tokens));
        let answering = self.client.ask(&self.peer, Prompt::new(body), budget).await;
        let mut answering = answering.map_err(|error| explain_client(&error))?;
        let screen = &self.screen;
        let shown = show(&mut answering, |piece| screen.raw(&printable(piece))).await;
        self.screen.line(""); // an error never stands on the answer's line
        if shown.is_err() {
            self.client.avoid(&self.peer);
        }
        let (text, finished) = shown?;
        let receipt = finished.receipt.receipt();
        let cost = format!(
            "{} + {} tokens · {} nanotons ({} TON) · receipt ✓",
            receipt.usage.prompt_tokens,
            receipt.usage.completion_tokens,
            grouped(finished.bill),
            ton(finished.bill)
        );
        eprintln!("{}", self.screen.dim(&cost));
        if let Some(folder) = &self.arguments.keep {
            crate::keep::papers(folder, self.peer.bundle(), &finished.receipt)?;
        }
        if counter::report(&self.screen, &self.folder, &self.peer, &finished) {
            self.client.avoid(&self.peer);
        }
        self.turns.push(("user", prompt.to_owned()));
        self.turns.push(("assistant", text));
        Ok(())
    }

    fn body(&self, prompt: &str) -> Vec<u8> {
        let system = self.arguments.system.iter().map(|text| ("system", text.as_str()));
        let turns = self.turns.iter().map(|(role, text)| (*role, text.as_str()));
        let messages: Vec<_> = system
            .chain(turns)
            .chain([("user", prompt)])
            .map(|(role, content)| serde_json::json!({"role": role, "content": content}))
            .collect();
        let mut body = serde_json::json!({
            "model": self.peer.model(),
            "messages": messages,
            "stream": true,
            "max_tokens": self.arguments.max_tokens,
            "cache_salt": self.salt.expose(),
        });
        if let Some(temperature) = self.arguments.temperature {
            body["temperature"] = temperature.into();
        }
        if let Some(seed) = self.arguments.seed {
            body["seed"] = seed.into();
        }
        body.to_string().into_bytes()
    }
}

/// A line from the terminal; `None` at its end. On a thread of its own, so that Ctrl-C is not held up.
async fn read_line(screen: &Screen) -> Option<String> {
    eprint!("{} ", screen.bold("›"));
    let _ = std::io::stderr().flush();
    tokio::task::spawn_blocking(|| {
        let mut line = String::new();
        matches!(std::io::stdin().lock().read_line(&mut line), Ok(1..)).then_some(line)
    })
    .await
    .ok()
    .flatten()
}

/// Text of a streamed chunk (OpenAI's `chat.completion.chunk`).
#[derive(Deserialize)]
struct Chunk {
    #[serde(default)]
    choices: Vec<Choice>,
}

#[derive(Deserialize)]
struct Choice {
    #[serde(default)]
    delta: Delta,
}

#[derive(Default, Deserialize)]
struct Delta {
    content: Option<String>,
}

/// Reads an answer to its end; every piece of text goes to `on_text` as it comes.
pub(crate) async fn show(
    answering: &mut Answering,
    mut on_text: impl FnMut(&str),
) -> Result<(String, Box<Finished>), Failure> {
    let mut text = String::new();
    let mut refusal: Option<Failure> = None;
    while let Some(event) = answering.next().await.map_err(|error| explain_client(&error))? {
        match event {
            Event::Chunk(chunk) => {
                let piece = text_of(chunk.expose());
                if !piece.is_empty() {
                    on_text(&piece);
                    text.push_str(&piece);
                }
            }
            Event::Error { status, body } => refusal = Some(refused(status, body.expose())),
            Event::Progress(_) => {}
            Event::Finished(finished) => return refusal.map_or(Ok((text, finished)), Err),
        }
    }
    Err(refusal.unwrap_or_else(|| Failure::new("the answer ended without a receipt", "ask again")))
}

fn text_of(chunk: &[u8]) -> String {
    let chunk: Option<Chunk> = serde_json::from_slice(chunk).ok();
    chunk
        .and_then(|chunk| chunk.choices.into_iter().next())
        .and_then(|choice| choice.delta.content)
        .unwrap_or_default()
}

fn refused(status: u16, body: &[u8]) -> Failure {
    let error: Option<cocoon_protocol::http::ApiError> = serde_json::from_slice(body).ok();
    let remedy = match error.as_ref().map(|error| error.code()) {
        Some("unsupported_endpoint") => "name a model that writes text with --model NAME",
        _ => "change the request as it says",
    };
    let message =
        error.map_or_else(|| "no reason was given".to_owned(), |error| printable(&error.error.message));
    Failure::new(format!("the worker refused ({status}): {message}"), remedy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_read_out_of_chunks_and_nothing_else() {
        let chunk =
            br#"{"choices":[{"index":0,"delta":{"role":"assistant","content":"hi"},"finish_reason":null}]}"#;
        assert_eq!(text_of(chunk), "hi");
        assert_eq!(text_of(br#"{"choices":[],"usage":{}}"#), "");
        assert_eq!(text_of(b"garbage"), "");
    }
}
