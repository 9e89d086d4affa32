//! `cocoon verify --fetch`: what the evidence lacks, from the vendors' services or the cache.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cocoon_attestation::{Endorsement, Endorsements, Evidence, TrustAnchors, UnixTime};
use cocoon_fetch::{Cache, Fetcher, Gathered, Limits, Progress, Service, ServiceUrl, Services, Source};

use crate::error::{Explain, Failure};
use crate::ui::{Screen, printable};

/// Most files of a folder that `--endorsements` takes.
const MAX_SAVED: usize = 64;
const HEADING: &str = "Fetching";

/// The flags.
#[derive(clap::Args)]
pub(crate) struct FetchArguments {
    /// Get endorsements that are missing or out of date from Intel, AMD and NVIDIA, and keep them
    #[arg(long, help_heading = HEADING)]
    fetch: bool,
    /// Where they are kept; if left out, $XDG_CACHE_HOME/cocoon/endorsements or ~/.cache/cocoon/endorsements
    #[arg(long, value_name = "DIR", requires = "fetch", help_heading = HEADING)]
    cache: Option<PathBuf>,
    /// Make no request: use what is kept alone
    #[arg(long, requires = "fetch", help_heading = HEADING)]
    offline: bool,
    /// Write the endorsements that were used into a new folder: with them the evidence verifies offline, later
    #[arg(long, value_name = "DIR", requires = "fetch", help_heading = HEADING)]
    save: Option<PathBuf>,
    /// Another address for Intel's PCS (API v4), such as a mirror's; https, or http on this machine's loopback
    #[arg(long, value_name = "URL", requires = "fetch", hide_short_help = true, help_heading = HEADING)]
    intel_pcs: Option<ServiceUrl>,
    /// Another address for Intel's certificate server, which has the root's revocation list
    #[arg(long, value_name = "URL", requires = "fetch", hide_short_help = true, help_heading = HEADING)]
    intel_certificates: Option<ServiceUrl>,
    /// Another address for AMD's key service
    #[arg(long, value_name = "URL", requires = "fetch", hide_short_help = true, help_heading = HEADING)]
    amd_kds: Option<ServiceUrl>,
    /// Another address for NVIDIA's RIM service
    #[arg(long, value_name = "URL", requires = "fetch", hide_short_help = true, help_heading = HEADING)]
    nvidia_rim: Option<ServiceUrl>,
    /// Another address for NVIDIA's OCSP responder
    #[arg(long, value_name = "URL", requires = "fetch", hide_short_help = true, help_heading = HEADING)]
    nvidia_ocsp: Option<ServiceUrl>,
}

impl FetchArguments {
    fn services(&self) -> Services {
        let named = [
            (Service::IntelPcs, &self.intel_pcs),
            (Service::IntelCertificates, &self.intel_certificates),
            (Service::AmdKds, &self.amd_kds),
            (Service::NvidiaRim, &self.nvidia_rim),
            (Service::NvidiaOcsp, &self.nvidia_ocsp),
        ];
        named.into_iter().fold(Services::default(), |services, (service, url)| match url {
            Some(url) => services.with(service, url.clone()),
            None => services,
        })
    }
}

/// Adds to `endorsements` what the evidence lacks at `now`, and to `anchors` the rollback mark. Does nothing without `--fetch`.
/// What could not be had is told, and left for the verdict. With `json`, standard output stays empty.
///
/// # Errors
/// If the cache has no place, or `--save` names a folder that is not new.
pub(crate) fn gather(
    arguments: &FetchArguments,
    evidence: &[u8],
    now: UnixTime,
    endorsements: &mut Endorsements,
    anchors: &mut TrustAnchors,
    json: bool,
) -> Result<(), Failure> {
    // Evidence that is none has a verdict of its own.
    let Some(evidence) = Evidence::detect(evidence).ok().filter(|_| arguments.fetch) else { return Ok(()) };
    let save = arguments.save.as_deref().map(new_folder).transpose()?;
    let cache = arguments.cache.clone().map(Cache::at).or_else(Cache::of_user).ok_or_else(|| {
        let what = "neither XDG_CACHE_HOME nor HOME says where fetched endorsements are kept";
        Failure::usage(what, "name a folder with --cache")
    })?;
    let screen = Arc::new(Screen::new(json));
    let fetcher = Fetcher::new(arguments.services(), cache, Limits::default())
        .explain(|| "no HTTP client can be made".to_owned(), "report this as a fault of ours")?
        .offline(arguments.offline)
        .with_listener({
            let screen = Arc::clone(&screen);
            move |progress| screen.progress(&line(progress))
        });
    // The verifier and all around it is pure and waits for nothing; this is the one place that does.
    let gathered = tokio::task::block_in_place(|| {
        let work = fetcher.gather(&evidence, endorsements, anchors, now);
        tokio::runtime::Handle::current().block_on(work)
    });
    tell(&gathered, &screen);
    if let Some(folder) = save {
        saved(folder, &gathered.endorsements, now, json)?;
    }
    *anchors = anchors.clone().with_evaluation_floor(gathered.floor);
    *endorsements = gathered.endorsements;
    Ok(())
}

fn line(progress: &Progress) -> String {
    match progress {
        Progress::Asking { what, service, url } => printable(&format!("{what}: {} ({url})", service.name())),
        Progress::Waiting { service, time, why } => {
            printable(&format!("{}: {why}; again in {} s", service.name(), time.as_secs()))
        }
    }
}

/// What was fetched in one line; what was not, by service and reason, on standard error.
fn tell(gathered: &Gathered, screen: &Screen) {
    let count =
        |source: &Source| gathered.outcomes.iter().filter(|outcome| outcome.source == *source).count();
    let (fetched, cached) = (count(&Source::Fetched), count(&Source::Cached));
    if !gathered.outcomes.is_empty() {
        let text = format!(
            "{fetched} fetched, {cached} from the cache, {} lacking at first",
            gathered.outcomes.len()
        );
        screen.line(&format!("{} {}", screen.bold("endorsements"), screen.dim(&text)));
    }
    // By service and reason, so that each is told once.
    let mut troubles: BTreeMap<(Option<Service>, String), Vec<String>> = BTreeMap::new();
    for outcome in &gathered.outcomes {
        let Some(why) = outcome.source.trouble() else { continue };
        let instead = match &outcome.source {
            Source::Kept(_) => "the cache's is in date, and used".to_owned(),
            Source::Expired(until, _) => format!("the cache's ran out at {until}"),
            Source::RolledBack(_) => "nothing newer is in the cache".to_owned(),
            _ => "not in the cache".to_owned(),
        };
        let reason = format!("{why}\nwhat to do: {}", why.remedy());
        troubles
            .entry((outcome.service, reason))
            .or_default()
            .push(format!("  {} ({instead})", outcome.what));
    }
    for ((service, reason), things) in troubles {
        let whose = service.map_or("nobody to ask", Service::name);
        eprintln!("{}", printable(&format!("note: {whose}: {reason}\n{}", things.join("\n"))));
    }
    for error in &gathered.unkept {
        eprintln!("{}", printable(&format!("note: {error}\nwhat to do: name another folder with --cache")));
    }
}

/// A folder that is not there, or empty: other files in it would be taken for endorsements later.
fn new_folder(path: &Path) -> Result<&Path, Failure> {
    let used = std::fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_some());
    if used || path.is_file() {
        let what = format!("{} is there already, and not an empty folder", path.display());
        return Err(Failure::usage(what, "name a new folder with --save"));
    }
    Ok(path)
}

/// One file for each endorsement, named by what it is.
fn saved(folder: &Path, endorsements: &Endorsements, now: UnixTime, json: bool) -> Result<(), Failure> {
    let items = endorsements.items();
    let remedy = "name another folder with --save";
    if items.len() > MAX_SAVED {
        let what = format!("{} endorsements, but a folder may have {MAX_SAVED} files", items.len());
        return Err(Failure::new(what, "leave out --save; what was fetched is in the cache"));
    }
    std::fs::create_dir_all(folder).explain(|| format!("cannot make {}", folder.display()), remedy)?;
    for (number, item) in items.iter().enumerate() {
        let (kind, extension, bytes) = named(item);
        let path = folder.join(format!("{:02}-{kind}.{extension}", number + 1));
        std::fs::write(&path, bytes).explain(|| format!("cannot write {}", path.display()), remedy)?;
    }
    let folder = folder.display();
    let text = match items.len() {
        0 => format!("{folder}: nothing to save, the evidence carries everything; later: --at {now}"),
        count => {
            format!("{count} files saved; later: cocoon verify EVIDENCE --endorsements {folder} --at {now}")
        }
    };
    if json {
        eprintln!("{}", printable(&text));
    } else {
        Screen::new(false).line(&printable(&text));
    }
    Ok(())
}

fn named(item: &Endorsement) -> (&'static str, &'static str, &[u8]) {
    match item {
        Endorsement::IntelCollateral(bytes) => ("intel-collateral", "json", bytes),
        Endorsement::Certificate(bytes) => ("certificate", "der", bytes),
        Endorsement::Crl(bytes) => ("revocation-list", "der", bytes),
        Endorsement::Rim(bytes) => ("rim", "swidtag", bytes),
        Endorsement::OcspResponse(bytes) => ("revocation-status", "der", bytes),
        Endorsement::EventLog(bytes) => ("event-log", "bin", bytes),
    }
}
