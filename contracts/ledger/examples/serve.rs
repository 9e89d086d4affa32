//! A ledger in memory behind HTTP, without the rest of `cocoon chain`: for trying clients.
//!
//! `cargo run --release -p cocoon-ledger --example serve -- 127.0.0.1:8081`, then look at that address in a browser.

use cocoon_ledger::{Genesis, Ledger, Schedule, Server};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8081".into());
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
    let genesis = Genesis {
        network: -217,
        schedule: Schedule::Mainnet2026,
        time: u32::try_from(now.as_secs())?,
        accounts: Vec::new(),
    };
    let listener = tokio::net::TcpListener::bind(&address).await?;
    println!("http://{}", listener.local_addr()?);
    Server::new(Ledger::in_memory(&genesis)?).adjustable_clock().run(listener).await?;
    Ok(())
}
