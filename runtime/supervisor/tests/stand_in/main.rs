//! A server with OpenAI's API that misbehaves on command: `cocoon-stand-in ADDRESS MODE`, where the address is a unix socket's
//! path or a loopback address. What it is asked decides too: a message that begins with `!` is a mode for that answer.

mod server;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    server::run(&arguments[1], &arguments[2]);
}
