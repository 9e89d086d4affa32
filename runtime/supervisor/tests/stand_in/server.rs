//! The stand-in's server; tests of the guest use it too.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
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
    let asked = body["messages"][0]["content"].as_str().unwrap_or_default().to_owned();
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

fn chunk(text: &str, finish: Option<&str>, usage: Option<(u64, u64)>) -> String {
    let usage = usage.map(|(prompt, completion)| {
        serde_json::json!({"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion})
    });
    let choice = serde_json::json!({"index": 0, "delta": {"content": text}, "finish_reason": finish});
    format!("data: {}\n\n", serde_json::json!({"choices": [choice], "usage": usage}))
}

fn answer(writer: &mut impl Write, kind: &str, text: &str, body: &serde_json::Value) -> Option<()> {
    let refused = |status: &str| format!("HTTP/1.1 {status}\r\ncontent-length: 4\r\n\r\nsay!");
    match kind {
        "refuse" => return writer.write_all(refused("400 Bad Request").as_bytes()).ok(),
        "fail" => return writer.write_all(refused("500 No").as_bytes()).ok(),
        "no stream" => return writer.write_all(refused("200 OK").as_bytes()).ok(),
        "hang" => std::thread::sleep(LONG),
        _ => {}
    }
    writer.write_all(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n").ok()?;
    let words: Vec<String> = match kind {
        "body" => vec![body.to_string()],
        "look around" => vec![look_around()],
        "fork" => vec![fork()],
        _ => text.split_inclusive(' ').map(str::to_owned).collect(),
    };
    for (index, word) in words.iter().enumerate() {
        let made = index as u64 + 1;
        let usage = match kind {
            "huge usage" => (7, 1 << 40),
            "huge prompt" => (1 << 20, made),
            "backwards" => (7, 10 - made),
            _ => (7, made),
        };
        writer.write_all(chunk(word, None, Some(usage)).as_bytes()).ok()?;
        writer.flush().ok()?;
        match (kind, index) {
            ("crash", 1) => std::process::exit(3),
            ("hang in the middle", 1) => std::thread::sleep(LONG),
            ("comments", 1) => loop {
                writer.write_all(b": still here\n\n").ok()?;
                std::thread::sleep(Duration::from_millis(50));
            },
            ("garbage", 1) => writer.write_all(b"data: \x00\xff{not json\n\n").ok()?,
            ("flood", 1) => loop {
                writer.write_all(chunk("", None, None).repeat(100).as_bytes()).ok()?;
            },
            ("long line", 1) => loop {
                writer.write_all(&[b'a'; 10_000]).ok()?;
            },
            ("cut", 1) => return None,
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
    }
    writer.write_all(chunk("", Some("stop"), Some((7, words.len() as u64))).as_bytes()).ok()?;
    writer.write_all(b"data: [DONE]\n\n").ok()
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
    let attempt = |result: std::io::Result<()>| {
        result.map_or_else(|error| format!("{:?}", error.kind()), |()| "done".to_owned())
    };
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
        "trace": attempt(traced()),
        "cancelled": std::fs::exists("/dev/shm/cancelled").unwrap_or(false),
    }).to_string()
}

/// A call that the filter refuses and that is harmless where it is not: this process is traced by its parent.
fn traced() -> std::io::Result<()> {
    #[expect(unsafe_code, reason = "a raw system call, to see it refused")]
    // SAFETY: PTRACE_TRACEME has no further arguments.
    let code = unsafe { libc::syscall(libc::SYS_ptrace, 0, 0, 0, 0) };
    if code == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
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
