//! The stand-in's server; tests of the guest use it too.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Duration;

const LONG: Duration = Duration::from_secs(3600);

/// Serves for ever, unless the mode says otherwise.
pub(crate) fn run(address: &str, mode: &str) {
    match mode {
        "never starts" => std::thread::sleep(LONG),
        "ends at once" => return,
        "slow start" => std::thread::sleep(Duration::from_millis(700)),
        "hangs at start" => {
            let _listener = UnixListener::bind(address).expect("a socket");
            std::thread::sleep(LONG);
        }
        _ => {}
    }
    println!("the stand-in serves, and says something private");
    if address.starts_with('/') {
        for stream in UnixListener::bind(address).expect("a socket").incoming() {
            let (stream, mode) = (stream.expect("a connection"), mode.to_owned());
            std::thread::spawn(move || serve(stream.try_clone().expect("a copy"), stream, &mode));
        }
    } else {
        for stream in TcpListener::bind(address).expect("a socket").incoming() {
            let (stream, mode) = (stream.expect("a connection"), mode.to_owned());
            std::thread::spawn(move || serve(stream.try_clone().expect("a copy"), stream, &mode));
        }
    }
}

fn serve(reader: impl Read, mut writer: impl Write, mode: &str) -> Option<()> {
    let mut reader = BufReader::new(reader);
    let (mut first, mut length) = (String::new(), 0);
    reader.read_line(&mut first).ok()?;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        if line.trim().is_empty() {
            break;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
    }
    if first.starts_with("GET") {
        let status = if mode == "sick" && std::fs::exists("/dev/shm/asked").unwrap_or(false) {
            "500 No"
        } else {
            "200 OK"
        };
        return write!(writer, "HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n").ok();
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let body: serde_json::Value = serde_json::from_slice(&body).ok()?;
    // Tokens say nothing here: then the first stop string does.
    let asked = if first.contains("/chat/") { &body["messages"][0]["content"] } else { &body["stop"][0] };
    let asked = asked.as_str().unwrap_or_default().to_owned();
    let _ = std::fs::write("/dev/shm/asked", b"yes");
    let canary = if mode == "wrong canary" { wrong() } else { "the same answer".to_owned() };
    let (kind, text) = match asked.strip_prefix('!') {
        Some(command) => (command.to_owned(), "one two three four".to_owned()),
        None => (String::new(), canary),
    };
    answer(&mut writer, &kind, &text, &body)
}

/// Another text in every process.
fn wrong() -> String {
    let boot = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    format!("{} {}", std::process::id(), boot.split(' ').nth(21).unwrap_or_default())
}

/// How chunks are written: a chat's, or a completion's.
#[derive(Clone, Copy)]
struct Style {
    chat: bool,
    prompt_tokens: u64,
}

impl Style {
    fn of(body: &serde_json::Value) -> Self {
        let sent = body["prompt"].as_array().map(|tokens| tokens.len() as u64);
        Self { chat: sent.is_none(), prompt_tokens: sent.unwrap_or(7) }
    }

    fn chunk(self, text: &str, finish: Option<&str>, usage: Option<(u64, u64)>) -> String {
        let usage = usage.map(|(prompt, completion)| {
            serde_json::json!({"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion})
        });
        let mut choice = serde_json::json!({"index": 0, "finish_reason": finish});
        if self.chat {
            choice["delta"] = serde_json::json!({"content": text});
        } else {
            choice["text"] = text.into();
        }
        format!("data: {}\n\n", serde_json::json!({"choices": [choice], "usage": usage}))
    }
}

/// What is said instead of a stream.
fn instead(writer: &mut impl Write, kind: &str) -> Option<()> {
    let said = |status: &str| format!("HTTP/1.1 {status}\r\ncontent-length: 4\r\n\r\nsay!");
    match kind {
        "refuse" => writer.write_all(said("400 Bad Request").as_bytes()).ok(),
        "fail" => writer.write_all(said("500 No").as_bytes()).ok(),
        "no stream" => writer.write_all(said("200 OK").as_bytes()).ok(),
        "endless head" => {
            writer.write_all(b"HTTP/1.1 200 OK\r\n").ok()?;
            loop {
                writer.write_all(b"x-more: and more, and more, and more\r\n").ok()?;
            }
        }
        "hang" => {
            std::thread::sleep(LONG);
            None
        }
        _ => Some(()),
    }
}

fn answer(writer: &mut impl Write, kind: &str, text: &str, body: &serde_json::Value) -> Option<()> {
    if matches!(kind, "refuse" | "fail" | "no stream" | "endless head" | "hang") {
        return instead(writer, kind);
    }
    let style = Style::of(body);
    writer.write_all(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n").ok()?;
    let words: Vec<String> = match kind.split_once(' ').unwrap_or((kind, "")) {
        ("body", _) => vec![body.to_string()],
        ("look", _) => vec![look_around()],
        ("fork", _) => vec![fork()],
        ("knock", path) => vec![attempt(UnixStream::connect(path).map(drop))],
        ("link", path) => vec![attempt(
            std::fs::remove_file("/dev/shm/child.sock")
                .and_then(|()| std::os::unix::fs::symlink(path, "/dev/shm/child.sock")),
        )],
        ("drip", _) => vec!["x".to_owned(); 1000],
        ("letters", _) => text.chars().map(String::from).collect(),
        _ => text.split_inclusive(' ').map(str::to_owned).collect(),
    };
    for (index, word) in words.iter().enumerate() {
        let made = index as u64 + 1;
        let usage = match kind {
            "huge usage" => (style.prompt_tokens, 1 << 40),
            "huge prompt" => (1 << 20, made),
            "another prompt" => (style.prompt_tokens + 1, made),
            "backwards" => (style.prompt_tokens, 10 - made),
            "too many" => (style.prompt_tokens, 50 * made),
            _ => (style.prompt_tokens, made),
        };
        writer.write_all(style.chunk(word, None, Some(usage)).as_bytes()).ok()?;
        writer.flush().ok()?;
        misdeed(writer, kind, index, style)?;
    }
    let made = words.len() as u64 * if kind == "too many" { 50 } else { 1 };
    let end = style.chunk("", Some("stop"), Some((style.prompt_tokens, made)));
    writer.write_all(end.as_bytes()).ok()?;
    if kind == "more after the end" {
        writer.write_all(style.chunk("more", None, None).as_bytes()).ok()?;
    }
    writer.write_all(b"data: [DONE]\n\n").ok()
}

/// After a piece of an answer.
fn misdeed(writer: &mut impl Write, kind: &str, index: usize, style: Style) -> Option<()> {
    match (kind, index) {
        ("crash", 1) => std::process::exit(3),
        ("hang in the middle", 1) => std::thread::sleep(LONG),
        ("comments", 1) => loop {
            writer.write_all(b": still here\n\n").ok()?;
            std::thread::sleep(Duration::from_millis(50));
        },
        ("garbage", 1) => writer.write_all(b"data: \x00\xff{not json\n\n").ok()?,
        ("aside", 1) => {
            let thought = r#"{"choices":[{"index":0,"delta":{"reasoning_content":"I think"}}]}"#;
            writer.write_all(format!("data: {thought}\n\n").as_bytes()).ok()?;
        }
        ("flood", 1) => loop {
            writer.write_all(style.chunk("", None, None).repeat(100).as_bytes()).ok()?;
        },
        ("long line", 1) => loop {
            writer.write_all(&[b'a'; 10_000]).ok()?;
        },
        ("cut", 1) => return None,
        ("drip", _) => std::thread::sleep(Duration::from_millis(500)),
        ("slowly", _) => {
            std::thread::sleep(Duration::from_millis(400));
            // Who asked may have left: then this fails.
            if writer.write_all(b": there?\n\n").and_then(|()| writer.flush()).is_err() {
                let _ = std::fs::write("/dev/shm/cancelled", b"yes");
                return None;
            }
        }
        _ => {}
    }
    Some(())
}

/// What came of something that was tried.
fn attempt(result: std::io::Result<()>) -> String {
    result.map_or_else(|error| format!("{:?}", error.kind()), |()| "done".to_owned())
}

/// Names in a folder, in order.
fn names(folder: &str) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<String> =
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// What this process finds of the machine.
fn look_around() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_else(|error| error.to_string());
    let status = read("/proc/self/status");
    let line = |name: &str| {
        status.lines().find(|line| line.starts_with(name)).unwrap_or_default().replace('\t', " ")
    };
    let interfaces = read("/proc/net/dev")
        .lines()
        .skip(2)
        .filter_map(|line| line.split(':').next())
        .map(str::trim)
        .collect::<Vec<_>>()
        .join(" ");
    let limits = read("/proc/self/limits");
    let core = limits.lines().find(|line| line.starts_with("Max core")).unwrap_or_default().to_owned();
    let environment: Vec<String> = std::env::vars().map(|(name, value)| format!("{name}={value}")).collect();
    let processes = std::fs::read_dir("/proc").map_or(0, |entries| {
        entries
            .flatten()
            .filter(|entry| entry.file_name().to_string_lossy().bytes().all(|byte| byte.is_ascii_digit()))
            .count()
    });
    let open = names("/proc/self/fd")
        .iter()
        .filter_map(|number| std::fs::read_link(format!("/proc/self/fd/{number}")).ok())
        .map(|target| target.display().to_string())
        .collect::<Vec<_>>();
    serde_json::json!({
        "user": line("Uid:"), "capabilities": line("CapEff:"), "bounding": line("CapBnd:"), "privileges": line("NoNewPrivs:"),
        "seccomp": line("Seccomp:"), "interfaces": interfaces, "core": core, "environment": environment,
        "arguments": std::env::args().collect::<Vec<_>>(), "pid": std::process::id(), "processes": processes,
        "model": read("/dev/shm/model"), "folder": std::env::current_dir().map(|path| path.display().to_string()).unwrap_or_default(),
        "write": attempt(std::fs::write(format!("/var/tmp/cocoon-{}", std::process::id()), b"x")),
        "write the model": attempt(std::fs::write("/dev/shm/model", b"x")),
        "scratch": attempt(std::fs::write("/dev/shm/file", b"x")),
        "run": std::fs::read_dir("/run").map_or(99, Iterator::count),
        "connect": attempt(std::net::TcpStream::connect_timeout(&([192, 0, 2, 1], 80).into(), Duration::from_secs(1)).map(drop)),
        "trace": attempt(call(libc::SYS_ptrace, [0; 4])), // PTRACE_TRACEME: harmless where it is not refused
        "core limit": attempt(call(libc::SYS_prlimit64, [0, 4, [0u64; 2].as_ptr() as i64, 0])),
        "outlive": attempt(call(libc::SYS_prctl, [1, 0, 0, 0])), // PR_SET_PDEATHSIG: none
        "vsock": attempt(call(libc::SYS_socket, [40, 1, 0, 0])),
        "root": names("/"), "old": names("/.old"), "devices": names("/dev"), "open": open,
        "first to end": read("/proc/self/oom_score_adj").trim(),
        "cancelled": std::fs::exists("/dev/shm/cancelled").unwrap_or(false),
    }).to_string()
}

/// A raw system call, to see it refused.
fn call(number: i64, arguments: [i64; 4]) -> std::io::Result<()> {
    let [one, two, three, four] = arguments;
    #[expect(unsafe_code, reason = "a raw system call, to see it refused")]
    // SAFETY: the callers' pointers live until the call returns.
    let code = unsafe { libc::syscall(number, one, two, three, four) };
    if code >= 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

/// A process that leaves its session, and would outlive its parent if it could; its token, to look for.
fn fork() -> String {
    let random = std::fs::read_to_string("/proc/sys/kernel/random/uuid").unwrap_or_default();
    let token = format!(
        "3{:08}",
        u32::from_str_radix(random.split('-').next().unwrap_or_default(), 16).unwrap_or(0) % 100_000_000
    );
    let child = std::process::Command::new("/usr/bin/setsid").args(["--fork", "/bin/sleep", &token]).spawn();
    child.map_or_else(|error| error.to_string(), |_| token)
}
