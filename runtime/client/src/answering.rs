//! An answer on its way: opened frame by frame, and paid for in step.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cocoon_accounts::PayerStream;
use cocoon_contracts::{Nanotons, SignedVoucher};
use cocoon_protocol::{Answer, AnswerError, AnswerEvent, AnswerOpener, Price, Usage, VerifiedReceipt};
use reqwest::Response;

use crate::ClientError;
use crate::channel::Payer;
use crate::gateway::causes;
use crate::recount::{Recount, Tally};

/// What happens next in an answer.
pub enum Event {
    /// OpenAI JSON: one chunk of a stream, the whole object, or the next part of vectors' object.
    Chunk(Answer),
    /// The worker refused or failed, inside the seal.
    Error {
        /// HTTP status that OpenAI's API would have.
        status: u16,
        /// OpenAI error JSON.
        body: Answer,
    },
    /// Tokens were counted; nothing to show yet.
    Progress(Usage),
    /// The answer is whole, its receipt holds, and it is paid.
    Finished(Box<Finished>),
}

/// A finished answer.
pub struct Finished {
    /// Checked against the attested key, the request and the answer.
    pub receipt: VerifiedReceipt,
    /// What this answer cost.
    pub bill: Nanotons,
    /// The voucher that covers it and all before it; `None` if nothing was ever owed, or the gateway was gone.
    pub voucher: Option<SignedVoucher>,
    /// How long it took.
    pub timing: Timing,
    /// Our own count beside the worker's, where the client has the model's tokenizer.
    pub recount: Option<Recount>,
}

/// How long an answer took, seen from the client.
#[derive(Clone, Copy, Debug, Default)]
pub struct Timing {
    /// From sealing the request to the first frame that counts a completion token.
    pub first_token: Duration,
    /// From that frame to the last one that counts more.
    pub streaming: Duration,
}

impl Timing {
    /// Completion tokens per second after the first, or 0 if there was no second one.
    pub fn tokens_per_second(&self, usage: &Usage) -> f64 {
        let later = f64::from(usage.completion_tokens.saturating_sub(1));
        if self.streaming.is_zero() { 0.0 } else { later / self.streaming.as_secs_f64() }
    }
}

/// An answer being received. Dropping it leaves: the worker stops.
pub struct Answering {
    response: Response,
    opener: Option<AnswerOpener>,
    ready: VecDeque<(AnswerEvent, Usage)>,
    payer: Arc<Payer>,
    /// Dropped before the answer is whole, it says that the stream broke: the gateway may have forwarded, and charged,
    /// frames that were never read here.
    stream: Option<PayerStream>,
    price: Price,
    tally: Option<Tally>,
    billed: Nanotons,
    usage: Usage,
    sealed_bytes: usize,
    received_bytes: usize,
    sent_at: Instant,
    first_at: Option<Instant>,
    last_at: Instant,
}

/// The sealed request, as it left.
pub(crate) struct Sent {
    /// Its length on the wire.
    pub(crate) bytes: usize,
    /// When sealing began.
    pub(crate) at: Instant,
}

impl Answering {
    pub(crate) fn new(
        response: Response,
        opener: AnswerOpener,
        payer: Arc<Payer>,
        stream: PayerStream,
        price: Price,
        tally: Option<Tally>,
        sent: Sent,
    ) -> Self {
        Self {
            response,
            opener: Some(opener),
            ready: VecDeque::new(),
            payer,
            stream: Some(stream),
            price,
            tally,
            billed: 0,
            usage: Usage::default(),
            sealed_bytes: sent.bytes,
            received_bytes: 0,
            sent_at: sent.at,
            first_at: None,
            last_at: sent.at,
        }
    }

    /// Bytes of the sealed request, as a stranger on the wire sees them.
    pub fn sealed_bytes(&self) -> usize {
        self.sealed_bytes
    }

    /// Bytes of the sealed answer so far.
    pub fn received_bytes(&self) -> usize {
        self.received_bytes
    }

    /// What the authentic frames so far count, cumulative.
    pub fn usage(&self) -> Usage {
        self.usage
    }

    /// The next event; `None` after [`Event::Finished`] or an error.
    ///
    /// # Errors
    /// [`ClientError::Interrupted`] if the stream ends early, [`ClientError::Tampered`] if a byte is not the
    /// worker's, and the books' errors. Nothing more comes after an error.
    pub async fn next(&mut self) -> Result<Option<Event>, ClientError> {
        loop {
            if let Some((event, usage)) = self.ready.pop_front() {
                self.count(usage)?;
                match event {
                    AnswerEvent::Chunk(chunk) => {
                        if let Some(tally) = &mut self.tally {
                            tally.hear(chunk.expose());
                        }
                        return Ok(Some(Event::Chunk(chunk)));
                    }
                    AnswerEvent::Tick => return Ok(Some(Event::Progress(usage))),
                    AnswerEvent::Error { status, body } => return Ok(Some(Event::Error { status, body })),
                    AnswerEvent::End { .. } => continue,
                }
            }
            let Some(opener) = &mut self.opener else { return Ok(None) };
            match self.response.chunk().await {
                Ok(Some(bytes)) => {
                    self.received_bytes += bytes.len();
                    match opener.push(&bytes) {
                        Ok(events) => self.ready.extend(events),
                        Err(error) => {
                            return Err(self.tampered(error));
                        }
                    }
                }
                Ok(None) => return self.finish().await.map(Some),
                Err(error) => return Err(self.interrupted(causes(&error))),
            }
        }
    }

    /// Owes what the newest authentic frame says: the payer's task turns it into vouchers.
    fn count(&mut self, usage: Usage) -> Result<(), ClientError> {
        if usage.completion_tokens > self.usage.completion_tokens {
            self.last_at = Instant::now();
            self.first_at.get_or_insert(self.last_at);
        }
        self.usage = usage;
        let bill = self.price.bill(&usage);
        if let Some(stream) = &mut self.stream {
            stream.owe_up_to(bill)?;
            self.billed = self.billed.max(bill);
        }
        Ok(())
    }

    async fn finish(&mut self) -> Result<Event, ClientError> {
        let opener = self.opener.take().expect("finish is called once, from next");
        let receipt = match opener.finish() {
            Ok(receipt) => receipt,
            Err(AnswerError::Wire(cocoon_protocol::WireError::Truncated { .. })) => {
                return Err(self.interrupted("the stream ended before the last frame".to_owned()));
            }
            Err(error) => return Err(self.tampered(error)),
        };
        self.whole();
        let voucher = match self.payer.settle_up().await {
            Ok(voucher) => voucher,
            // The answer is whole and proven: it is not taken from the user because its payment could not be handed in.
            // What is owed is in the book, and the payer's task sends the voucher again until it is acknowledged.
            Err(error @ (ClientError::Unreachable { .. } | ClientError::Refused { status: 503, .. })) => {
                tracing::warn!(%error, "the answer's voucher could not be handed in");
                None
            }
            Err(error) => return Err(error),
        };
        let first = self.first_at.unwrap_or(self.last_at);
        let timing = Timing { first_token: first - self.sent_at, streaming: self.last_at - first };
        let recount = self.tally.take().map(|tally| tally.finish(receipt.receipt().usage));
        let bill = receipt.receipt().bill();
        Ok(Event::Finished(Box::new(Finished { bill, receipt, voucher, timing, recount })))
    }

    /// Nothing was charged beyond what was counted here, as far as we ever concede.
    fn whole(&mut self) {
        if let Some(stream) = self.stream.take() {
            stream.finish();
        }
    }

    fn tampered(&mut self, error: AnswerError) -> ClientError {
        self.opener = None;
        // As a stream that broke: the gateway may be honest, and a host behind it have lied. It gains no more by this than
        // by cutting the connection: a window at most, and the user is told.
        self.stream = None;
        ClientError::Tampered { error, owed: self.billed }
    }

    fn interrupted(&mut self, why: String) -> ClientError {
        self.opener = None;
        self.stream = None;
        ClientError::Interrupted { completion_tokens: self.usage.completion_tokens, owed: self.billed, why }
    }
}
