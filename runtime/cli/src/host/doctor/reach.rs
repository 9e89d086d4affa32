//! What the doctor learns over the network, all at once and within a limit, before it looks at the machine.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cocoon_chain::Chain;
use cocoon_fetch::{Service, ServiceUrl, Services};
use cocoon_launch::doctor::{Network, Probe, Tee};

use crate::access::connect;
use crate::error::chain;
use crate::keys;
use crate::network::NetworkFile;

/// How long any service may take.
const LIMIT: Duration = Duration::from_secs(10);

/// Asks the vendor's service, its clock, the chain and the wallet.
pub(super) async fn learn(tee: Tee, pccs: Option<&ServiceUrl>, state: &Path) -> Network {
    let services = Services::default();
    let vendors = match tee {
        Tee::Tdx => Some(pccs.unwrap_or_else(|| services.url(Service::IntelPcs))),
        Tee::Snp => Some(services.url(Service::AmdKds)),
        Tee::Emulation => None,
    };
    let vendor = async {
        match vendors {
            None => (
                Probe::NotAsked("emulation asks no vendor".into()),
                Probe::NotAsked("emulation asks no service whose clock could be compared".into()),
            ),
            Some(url) => ask(&url.to_string()).await,
        }
    };
    let ((collateral, clock), (chain, wallet)) = tokio::join!(vendor, ledger(state));
    Network { clock, collateral, chain, wallet }
}

/// Any answer shows that the service can be reached; its `Date` (RFC 9110, 6.6.1) is the network's time.
async fn ask(url: &str) -> (Probe<String>, Probe<i64>) {
    let client =
        reqwest::Client::builder().timeout(LIMIT).redirect(reqwest::redirect::Policy::none()).build();
    let answer = match client {
        Ok(client) => client.get(url).send().await,
        Err(error) => Err(error),
    };
    match answer {
        Err(error) => {
            let why = chain(&error);
            (Probe::Failed(why), Probe::NotAsked("no service answered that tells the time".into()))
        }
        Ok(answer) => {
            let date = answer.headers().get("date").and_then(|value| value.to_str().ok()).and_then(unix_time);
            let clock = match (date, own_time()) {
                (Some(theirs), Some(own)) => Probe::Answered(own.saturating_sub(theirs)),
                _ => Probe::NotAsked("the service that answered tells no time".into()),
            };
            let collateral = match answer.status().is_server_error() {
                true => Probe::Failed(format!("{url} answers {}", answer.status())),
                false => Probe::Answered(url.to_owned()),
            };
            (collateral, clock)
        }
    }
}

fn own_time() -> Option<i64> {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).ok()?.as_secs()).ok()
}

/// `Sun, 06 Nov 1994 08:49:37 GMT` in seconds since 1970: IMF-fixdate, the only form that servers may send (RFC 9110, 5.6.7).
fn unix_time(text: &str) -> Option<i64> {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let words: Vec<&str> = text.split(' ').collect();
    let [_, day, month, year, time, "GMT"] = words.as_slice() else { return None };
    let month = MONTHS.iter().position(|name| name == month)?;
    let number = |word: &str| word.parse::<u16>().ok().map(i64::from);
    let (day, month, year) = (number(day)?, i64::try_from(month).ok()? + 1, number(year)?);
    let clock: Vec<i64> = time.split(':').filter_map(number).collect();
    let [hours, minutes, seconds] = clock.as_slice() else { return None };
    // Days since 1970 in the Gregorian calendar, with years that begin in March: the leap day comes last.
    let (year, month) = if month <= 2 { (year - 1, month + 9) } else { (year, month - 3) };
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1 - 719_468;
    Some(((days * 24 + hours) * 60 + minutes) * 60 + seconds)
}

/// The chain of the network file, and what the operator's wallet holds. Makes neither file nor key.
async fn ledger(state: &Path) -> (Probe<String>, Probe<u64>) {
    if !state.join(crate::network::FILE).exists() {
        let why = format!("no network was joined yet: there is no network file in {}", state.display());
        return (Probe::NotAsked(why.clone()), Probe::NotAsked(why));
    }
    let failed = |why: String| (Probe::Failed(why), Probe::NotAsked("the chain comes first".into()));
    let file = match NetworkFile::load(state) {
        Ok(file) => file,
        Err(failure) => return failed(failure.what),
    };
    let met = tokio::time::timeout(LIMIT, async {
        let chain = connect(state, &file).await.map_err(|failure| failure.what)?;
        let head = chain.head().await.map_err(|error| error.to_string())?;
        Ok::<_, String>((chain, head))
    });
    let (chain, head) = match met.await {
        Err(_) => return failed(format!("{} gave no answer in time", file.chain)),
        Ok(Err(why)) => return failed(why),
        Ok(Ok(met)) => met,
    };
    let found = format!("network {}, block {}", file.network, head.seqno);
    (Probe::Answered(found), wallet(state, chain).await)
}

async fn wallet(state: &Path, chain: Arc<dyn Chain>) -> Probe<u64> {
    // Its public half: a doctor asks for no passphrase.
    let file = match keys::look(&state.join("operator/wallet.key")) {
        Ok(Some(file)) => file,
        Ok(None) => return Probe::NotAsked("there is no wallet yet: `cocoon host up` makes one".into()),
        Err(failure) => return Probe::Failed(failure.what),
    };
    let address = file.wallet().address(&file.public(), chain.network());
    match tokio::time::timeout(LIMIT, chain.account(&address)).await {
        Ok(Ok(account)) => Probe::Answered(account.balance),
        Ok(Err(error)) => Probe::Failed(error.to_string()),
        Err(_) => Probe::Failed("the chain gave no answer in time".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_a_server_is_read_as_date_reads_it() {
        for (text, seconds) in [
            ("Sun, 06 Nov 1994 08:49:37 GMT", 784_111_777),
            ("Thu, 01 Jan 1970 00:00:00 GMT", 0),
            ("Thu, 29 Feb 2024 23:59:59 GMT", 1_709_251_199),
            ("Fri, 01 Mar 2024 00:00:00 GMT", 1_709_251_200),
        ] {
            assert_eq!(unix_time(text), Some(seconds), "{text}");
        }
        for text in [
            "",
            "Sun, 06 Nov 1994 08:49:37",
            "Sunday, 06-Nov-94 08:49:37 GMT",
            "Sun, 06 Foo 1994 08:49:37 GMT",
        ] {
            assert_eq!(unix_time(text), None, "{text}");
        }
    }

    #[tokio::test]
    async fn without_a_network_file_nobody_is_asked_and_nothing_is_made() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (chain, wallet) = ledger(folder.path()).await;
        assert!(matches!(chain, Probe::NotAsked(why) if why.contains("no network file")));
        assert!(matches!(wallet, Probe::NotAsked(_)));
        assert_eq!(std::fs::read_dir(folder.path()).expect("it is there").count(), 0);
    }

    #[tokio::test]
    async fn a_service_that_is_not_there_is_a_failure_and_no_clock() {
        let (collateral, clock) = ask("http://127.0.0.1:9").await;
        assert!(matches!(collateral, Probe::Failed(_)));
        assert!(matches!(clock, Probe::NotAsked(_)));
    }
}
