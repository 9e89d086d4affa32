//! Clients of the local endpoint that read or send a byte a second, all the way to the guest: others go on, nobody's memory
//! grows, and an answer that was broken off does not pass for a whole one. (That one is, and says so, the guest's own tests
//! hold: `runtime/guest/tests/guest/hostile.rs`.)

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use cocoon_tests::{Network, Part, tiny_model};

/// Longer than any party waits for a reader: the guest 25 s, gateway and host 30.
const SLOW: Duration = Duration::from_secs(40);
/// Longest that an honest answer may take beside it, on a loaded machine.
const HONEST: Duration = Duration::from_secs(15);
/// Most that any process may grow by, in KiB.
const GROWTH: u64 = 100 * 1024;

fn post(address: &str, body: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).expect("the proxy listens");
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).expect("it reads the head");
    stream
}

fn chat(more: &str) -> String {
    format!(r#"{{"model":"tiny","messages":[{{"role":"user","content":"Write about lists."}}]{more}}}"#)
}

fn whole(address: &str, body: &str) -> String {
    let mut stream = post(address, body);
    stream.write_all(body.as_bytes()).expect("it reads the body");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("an answer");
    text
}

fn resident_kib(id: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("Linux says it");
    line.split_whitespace().next().and_then(|count| count.parse().ok()).expect("a count")
}

#[test]
fn a_client_that_reads_or_sends_a_byte_a_second_harms_nobody_and_knows_what_it_has() {
    let network = Network::start(&tiny_model());
    let log = network.folder.path().join("proxy.log");
    let proxy = Part::start(&["proxy", "--listen", "127.0.0.1:0", "--state", network.state()], &log);
    let url = proxy.url();
    let address = url.trim_start_matches("http://");
    assert!(whole(address, &chat(r#","max_tokens":4"#)).contains("chat.completion"), "it works");
    let part = |part: &Option<Part>| part.as_ref().expect("it runs").id();
    let mut processes = vec![proxy.id(), part(&network.gateway), part(&network.host)];
    processes.extend(network.guests());
    let before: Vec<u64> = processes.iter().map(|id| resident_kib(*id)).collect();

    // Megabytes, and the model may not end by itself.
    let vocabulary = cocoon_engine::Vocabulary::open(&tiny_model()).expect("a tokenizer");
    let ends = vocabulary.tokenizer().end_tokens().iter();
    let bias: Vec<String> = ends.map(|token| format!(r#""{token}":-100"#)).collect();
    let long = chat(&format!(
        r#","stream":true,"n":16,"max_tokens":400,"logprobs":true,"top_logprobs":20,"temperature":2,"seed":1,
        "logit_bias":{{{}}}"#,
        bias.join(",")
    ));
    let mut reader = post(address, &long);
    reader.write_all(long.as_bytes()).expect("it reads the body");
    let mut sender = post(address, &long);
    let done = AtomicBool::new(false);
    let (text, answered) = std::thread::scope(|scope| {
        let others = scope.spawn(|| {
            let mut answered = 0;
            while !done.load(Ordering::Relaxed) {
                let began = Instant::now();
                let answer = whole(address, &chat(r#","stream":true,"max_tokens":40"#));
                assert!(answer.contains("[DONE]"), "an honest answer comes whole: {answer}");
                assert!(began.elapsed() < HONEST, "it took {:?}", began.elapsed());
                answered += 1;
            }
            answered
        });
        let (began, mut bytes, mut byte) = (Instant::now(), Vec::new(), [0]);
        while began.elapsed() < SLOW {
            reader.read_exact(&mut byte).expect("there is more");
            bytes.extend(byte);
            sender.write_all(&long.as_bytes()[..1]).expect("nobody minds");
            std::thread::sleep(Duration::from_secs(1));
        }
        // What the connection still holds, and then the reason.
        reader.read_to_end(&mut bytes).expect("it ends in order");
        done.store(true, Ordering::Relaxed);
        (String::from_utf8(bytes).expect("text"), others.join().expect("others went on"))
    });
    println!("{answered} others were answered beside it; the slow one has {} bytes", text.len());
    assert!(answered > 5, "{answered}");
    // What the kernel's buffers on the way hold is no answer that stalls. Either it came whole, or it says that it did not.
    let events: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("data: ")).collect();
    let ended = events.iter().filter(|event| event.contains(r#""finish_reason":"length""#)).count();
    match events.last() {
        Some(&"[DONE]") => assert_eq!(ended, 16, "it passes for a whole answer"),
        Some(last) => {
            let error: serde_json::Value = serde_json::from_str(last).expect("the last is JSON");
            let code = error["error"]["code"].as_str().unwrap_or_else(|| panic!("no error: {last}"));
            println!("it is told: {}", error["error"]["message"]);
            assert!(["timeout", "interrupted_answer"].contains(&code), "{error}");
        }
        None => panic!("no events: {text}"),
    }
    for (id, before) in processes.iter().zip(before) {
        let grown = resident_kib(*id).saturating_sub(before);
        assert!(grown < GROWTH, "process {id} has grown by {grown} KiB");
    }
    drop(sender);
    proxy.stop();
}
