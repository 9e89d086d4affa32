//! The warden by itself, for tests of this crate; the guest's own program takes over the same way.

use std::process::ExitCode;

fn main() -> ExitCode {
    cocoon_supervisor::take_over().unwrap_or_else(|| {
        eprintln!("cocoon-child-warden: it is started by a supervisor, and by nobody else");
        ExitCode::FAILURE
    })
}
