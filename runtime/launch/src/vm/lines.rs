//! Lines of text from QEMU and from the guest: limited in length and number, without control characters, the last ones kept.

use std::{
    collections::VecDeque,
    io,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader},
    net::UnixListener,
    sync::watch,
};

use super::{
    console::Console,
    limit::{self, Limit, Verdict},
};

/// Longer lines are cut in pieces of this many bytes.
pub const MAX_LINE: u64 = 2048;
/// Lines that an error quotes.
const LAST: usize = 12;
/// After so many lines that were left out, a pause: what a guest says for ever costs no more than a little of a core.
const FLOOD: u64 = 100;
const PAUSE: Duration = Duration::from_millis(10);
/// How long the last words may take after the process is gone.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// Takes each line as it comes.
pub type LineSink = Arc<dyn Fn(&str) + Send + Sync>;

/// Reads lines in the background, until they end or this is dropped.
#[derive(Debug)]
pub(super) struct Follower {
    last: Arc<Mutex<VecDeque<String>>>,
    done: watch::Receiver<bool>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Follower {
    /// Lines of the first that connects.
    pub(super) fn accept_one(listener: std::os::unix::net::UnixListener, sink: LineSink) -> io::Result<Self> {
        let listener = asynchronous(listener)?;
        Ok(Self::spawn(move |last| async move {
            if let Ok((stream, _)) = listener.accept().await {
                drop(listener);
                follow(stream, &sink, &last).await;
            }
        }))
    }

    /// The console of the first that connects: to its files, and no line of it anywhere else.
    pub(super) fn keep_one(listener: std::os::unix::net::UnixListener, console: Console) -> io::Result<Self> {
        let listener = asynchronous(listener)?;
        Ok(Self::spawn(move |_| async move {
            if let Ok((stream, _)) = listener.accept().await {
                drop(listener);
                console.keep(stream).await;
            }
        }))
    }

    /// Lines of a pipe.
    pub(super) fn read(from: impl AsyncRead + Unpin + Send + 'static, sink: LineSink) -> Self {
        Self::spawn(move |last| async move { follow(from, &sink, &last).await })
    }

    fn spawn<F: Future<Output = ()> + Send + 'static>(
        work: impl FnOnce(Arc<Mutex<VecDeque<String>>>) -> F,
    ) -> Self {
        let last = Arc::default();
        let (finish, done) = watch::channel(false);
        let work = work(Arc::clone(&last));
        let task = tokio::spawn(async move {
            work.await;
            finish.send_replace(true);
        });
        Self { last, done, task }
    }

    /// Waits for the end of the lines, but not long.
    pub(super) async fn finished(&self) {
        let mut done = self.done.clone();
        let ended = done.wait_for(|done| *done);
        drop(tokio::time::timeout(LAST_WORDS, ended).await);
    }

    /// The last lines, oldest first.
    pub(super) fn last(&self) -> Vec<String> {
        let last = self.last.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        last.iter().cloned().collect()
    }
}

fn asynchronous(listener: std::os::unix::net::UnixListener) -> io::Result<UnixListener> {
    listener.set_nonblocking(true)?;
    UnixListener::from_std(listener)
}

async fn follow(from: impl AsyncRead + Unpin, sink: &LineSink, last: &Mutex<VecDeque<String>>) {
    let mut reader = BufReader::new(from);
    let (mut limit, mut flood) = (Limit::new(Instant::now()), 0_u64);
    let told = |left_out: u64| {
        if left_out > 0 {
            sink(&limit::words(left_out));
        }
    };
    loop {
        let mut line = Vec::new();
        match (&mut reader).take(MAX_LINE).read_until(b'\n', &mut line).await {
            Ok(0) | Err(_) => break told(limit.count(Instant::now())),
            Ok(_) => {}
        }
        let line = plain(&line);
        if line.is_empty() {
            continue;
        }
        match limit.judge(Instant::now()) {
            Verdict::Said { left_out } => {
                told(left_out);
                sink(&line);
            }
            Verdict::LeftOut => flood += 1,
        }
        // Last words are quoted even where they came too fast to be passed on.
        keep(last, line);
        if flood == FLOOD {
            flood = 0;
            tokio::time::sleep(PAUSE).await;
        }
    }
}

fn keep(last: &Mutex<VecDeque<String>>, line: String) {
    let mut last = last.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if last.len() == LAST {
        last.pop_front();
    }
    last.push_back(line);
}

/// As text that steers no terminal.
fn plain(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    text.trim_end().chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn lines_are_cut_cleaned_and_the_last_are_kept() {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let sink: LineSink = {
            let seen = Arc::clone(&seen);
            Arc::new(move |line: &str| seen.lock().expect("ours").push(line.to_owned()))
        };
        let mut text = b"\n\x1b[2Jclear\xff\r\n".to_vec();
        text.extend(vec![b'x'; 5000]);
        text.extend((0..20).flat_map(|n| format!("\nline {n}").into_bytes()));
        let follower = Follower::read(io::Cursor::new(text), sink);
        follower.finished().await;
        let seen = seen.lock().expect("ours").clone();
        assert_eq!(seen[0], "\u{fffd}[2Jclear\u{fffd}");
        assert_eq!(seen[1..4].iter().map(String::len).collect::<Vec<_>>(), [2048, 2048, 904]);
        assert_eq!(follower.last().first().map(String::as_str), Some("line 8"));
        assert_eq!(follower.last().len(), LAST);
    }

    #[tokio::test]
    async fn a_guest_that_says_too_much_is_cut_short_and_its_last_words_are_kept() {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let sink: LineSink = {
            let seen = Arc::clone(&seen);
            Arc::new(move |line: &str| seen.lock().expect("ours").push(line.to_owned()))
        };
        let began = Instant::now();
        let text: String = (0..20_000).map(|n| format!("line {n}\n")).collect();
        let (mut guest, host) = tokio::io::duplex(1 << 16);
        let follower = Follower::read(host, sink);
        tokio::io::AsyncWriteExt::write_all(&mut guest, text.as_bytes()).await.expect("it is read");
        drop(guest);
        follower.done.clone().wait_for(|done| *done).await.expect("it ends");
        let seen = seen.lock().expect("ours").clone();
        let (counts, lines): (Vec<_>, Vec<_>) = seen.iter().partition(|line| line.starts_with('('));
        let left_out = |line: &&String| -> usize {
            line.trim_start_matches('(').split(' ').next().and_then(|n| n.parse().ok()).expect("a number")
        };
        assert!((200..10_000).contains(&lines.len()), "{}", lines.len());
        assert_eq!(
            lines.len() + counts.iter().map(left_out).sum::<usize>(),
            20_000,
            "each is said or counted"
        );
        assert_eq!(follower.last().last().map(String::as_str), Some("line 19999"));
        assert!(began.elapsed() > Duration::from_millis(500), "it is not read as fast as it comes");
    }
}
