//! A supervisor with a stand-in child; tests change one thing.

use cocoon_supervisor::{
    Canary, ChildConfig, Counting, Dialect, Event, Failure, Finish, Limits, Message, PrefixCache, Question,
    Root, Said, Salt, Setting, State, Supervisor, Usage,
};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// Long enough for a loaded machine; nothing waits for it when all is well.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn config(mode: &str) -> ChildConfig {
    let program = Path::new(env!("CARGO_BIN_EXE_cocoon-stand-in"));
    let folder = program.parent().expect("a program lies in a folder");
    let argv = [program.to_str().expect("a plain path"), "/dev/shm/child.sock", mode];
    ChildConfig {
        argv: argv.map(str::to_owned).to_vec(),
        roots: vec![Root { path: folder.to_path_buf(), sha256: None }],
        environment: [("VLLM_TEST".to_owned(), "a value".to_owned())].into(),
        address: "unix:/dev/shm/child.sock".to_owned(),
        served_name: "model".to_owned(),
        dialect: Dialect::Vllm,
        prefix_cache: PrefixCache::Salted,
        counting: Counting::Bounds,
        health: "/health".to_owned(),
        user: 65_533,
        limits: Limits {
            start: 60,
            first_piece: 3,
            between_pieces: 2,
            restarts: 1,
            health_every_ms: 50,
            memory_mib: 512,
            scratch_mib: 16,
            ..Limits::default()
        },
        canary: Canary { prompt: "Say the same.".to_owned(), tokens: 16, sha256: None },
        development_logs: false,
    }
}

pub(crate) struct Kit {
    pub(crate) supervisor: Supervisor,
    pub(crate) ready_again: Arc<AtomicU32>,
}

pub(crate) fn start(config: ChildConfig, model: Option<PathBuf>) -> Kit {
    let ready_again = Arc::<AtomicU32>::default();
    let counted = ready_again.clone();
    let setting = Setting {
        warden: Path::new(env!("CARGO_BIN_EXE_cocoon-child-warden")).to_path_buf(),
        model,
        canary: None,
        most_running: 4,
        on_ready_again: Box::new(move || {
            counted.fetch_add(1, Ordering::Relaxed);
        }),
    };
    Kit { supervisor: Supervisor::start(config, setting).expect("a good configuration"), ready_again }
}

pub(crate) async fn ready(config: ChildConfig) -> Kit {
    let kit = start(config, None);
    assert_eq!(kit.settled().await, State::Ready);
    kit
}

pub(crate) fn question(text: &str) -> Question {
    Question {
        said: Said::Messages(vec![Message { role: "user".to_owned(), content: text.to_owned() }]),
        max_tokens: 64,
        temperature: 0.5,
        top_p: 0.9,
        top_k: 0,
        min_p: 0.0,
        repetition_penalty: 1.0,
        presence_penalty: 0.0,
        frequency_penalty: 0.0,
        seed: 5,
        stop: Vec::new(),
        logit_bias: Vec::new(),
        salt: Salt([7; 32]),
    }
}

pub(crate) type Heard = (String, Result<(Finish, Usage), Failure>);

impl Kit {
    pub(crate) async fn settled(&self) -> State {
        tokio::time::timeout(PATIENCE, self.supervisor.settled()).await.expect("it settles")
    }

    pub(crate) async fn reached(&self, wanted: State) {
        let reached = self.supervisor.reached(|state| state == wanted);
        tokio::time::timeout(PATIENCE, reached).await.expect("it comes to that state");
    }

    /// A whole answer.
    pub(crate) async fn ask(&self, text: &str) -> Heard {
        self.ask_whole(&question(text)).await
    }

    pub(crate) async fn ask_whole(&self, question: &Question) -> Heard {
        let mut answer = self.supervisor.ask(question).await.expect("it is ready");
        let mut heard = String::new();
        loop {
            match tokio::time::timeout(PATIENCE, answer.next())
                .await
                .expect("it ends")
                .expect("an end comes first")
            {
                Event::Piece { text, .. } => heard.push_str(&text),
                Event::End(outcome) => return (heard, outcome),
            }
        }
    }

    /// Waits until as many processes were started.
    pub(crate) async fn started(&self, starts: u32) {
        let counted = async {
            while self.supervisor.status().starts < starts {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(PATIENCE, counted).await.expect("it is started again");
    }
}
