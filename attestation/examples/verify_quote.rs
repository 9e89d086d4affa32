//! Verifies evidence of any kind: `cargo run --release -p cocoon-attestation --example verify_quote EVIDENCE ENDORSEMENT…`.

use std::time::{SystemTime, UNIX_EPOCH};

use cocoon_attestation::{Endorsements, Evidence, Exceptions, TrustAnchors, UnixTime, verify};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut files = std::env::args().skip(1).map(std::fs::read);
    let evidence = Evidence::detect(&files.next().ok_or("name the evidence, then endorsements")??)?;
    let endorsements = Endorsements::from_files(files.collect::<Result<Vec<_>, _>>()?)?;
    let now = UnixTime(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs());
    match verify(&evidence, &endorsements, &TrustAnchors::hardware(), &Exceptions::none(), now) {
        Ok(genuine) => {
            println!("genuine: {} by {}", genuine.platform().name(), genuine.platform().tcb_status)
        }
        Err(refusal) => println!("refused: {refusal}"),
    }
    Ok(())
}
