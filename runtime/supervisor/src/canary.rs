//! The known question: greedy, so that the same weights and the same code give the same text at every start. Other engines
//! have served silent garbage under confidential computing; one that does is not let near a client.

use crate::answer::{AnswerStream, Event};
use crate::config::ChildConfig;
use crate::request::{Message, Question, Said, Salt};
use crate::supervisor::Live;
use ring::digest::{Context, SHA256};
use std::sync::Arc;

/// SHA-256 of the answer's text. Asked in tokens where these are given, as clients' questions are then.
///
/// # Errors
/// Why there is no answer.
pub(crate) async fn ask(
    config: &Arc<ChildConfig>,
    live: &Arc<Live>,
    tokens: Option<&[u32]>,
) -> Result<[u8; 32], String> {
    let canary = &config.canary;
    let message = || Message { role: "user".to_owned(), content: canary.prompt.clone() };
    let question = Question {
        said: match tokens {
            Some(tokens) => Said::Tokens(tokens.to_vec().into()),
            None => Said::Messages(vec![message()]),
        },
        max_tokens: canary.tokens,
        temperature: 0.0,
        top_p: 1.0,
        top_k: 0,
        min_p: 0.0,
        repetition_penalty: 1.0,
        presence_penalty: 0.0,
        frequency_penalty: 0.0,
        seed: 0,
        stop: Vec::new(),
        logit_bias: Vec::new(),
        salt: Salt([0; 32]), // nobody's
    };
    let mut answer = AnswerStream::start(config.clone(), live.clone(), &question, ());
    let (mut context, mut length) = (Context::new(&SHA256), 0);
    while let Some(event) = answer.next().await {
        match event {
            Event::Piece { text, .. } => {
                length += text.len();
                context.update(text.as_bytes());
            }
            Event::End(Ok(_)) if length == 0 => return Err("the canary's answer is empty".to_owned()),
            Event::End(Ok(_)) => {
                return Ok(context.finish().as_ref().try_into().expect("SHA-256 gives 32 bytes"));
            }
            Event::End(Err(failure)) => return Err(format!("the canary was not answered: {failure}")),
        }
    }
    Err("the canary was not answered".to_owned())
}
