//! The check `tdx.eventlog`.

use super::{EventLog, Explained, NotExplained, Origin};
use crate::check::Finding;
use crate::{Malformed, RefusalKind};

/// What the check asks for.
pub(crate) const EXPECTED: &str = "an event log that replays to the quote's registers";

/// Judges the log that is shown with a quote: what was found and what it means, or why it is refused.
pub(crate) fn judge(log: &[u8], rtmr: &[[u8; 48]; 4]) -> Result<(String, String), Box<Finding>> {
    let log = EventLog::parse(log).map_err(|error| malformed(&error))?;
    let explained = log.explains(rtmr).map_err(|why| match why {
        NotExplained::Malformed(error) => malformed(&error),
        NotExplained::Differs(difference) => Box::new(Finding {
            kind: RefusalKind::Rejected,
            expected: EXPECTED.into(),
            got: difference.to_string(),
            likely: "The log is of another machine or another boot, or was changed".into(),
            remedy: "Read the log and the quote in one guest, without a restart between them".into(),
        }),
    })?;
    let recomputed = log.events().iter().filter(|event| event.origin() == Origin::Recomputed).count();
    let got = format!("{} events, {recomputed} recomputed from their own bytes", log.events().len());
    let why = match explained {
        Explained::Everything => "the log explains all registers",
        Explained::AllButRtmr3 => {
            "the log explains RTMR0 to RTMR2; RTMR3 was extended at run time, without a log"
        }
    };
    Ok((got, why.to_owned()))
}

fn malformed(error: &Malformed) -> Box<Finding> {
    Box::new(Finding {
        kind: RefusalKind::Malformed,
        expected: EXPECTED.into(),
        got: error.to_string(),
        likely: "The log was cut or changed, or tells of events that were never measured".into(),
        remedy: "Read it again in the guest, from /sys/firmware/acpi/tables/data/CCEL".into(),
    })
}
