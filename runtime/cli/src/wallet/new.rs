//! `cocoon wallet new`.

use std::path::PathBuf;
use std::process::ExitCode;

use cocoon_contracts::wallet::WalletVersion;
use cocoon_contracts::{MAINNET, SigningKey, friendly_on};
use cocoon_keystore::{Cost, Keep, KeyFile, Mnemonic, Passphrase, PassphraseSource, Protection};
use zeroize::Zeroizing;

use super::{Which, is_public, network_name};
use crate::error::Failure;
use crate::keys::{self, passphrases};
use crate::network::NetworkFile;
use crate::ui::{Screen, print};
use crate::wiring::fill;

#[derive(clap::Args)]
#[command(after_help = "\
The key is encrypted under a passphrase, which is asked for on the terminal; a service names --passphrase-file FILE or
--passphrase-fd N instead. An existing key is never written over.")]
pub(crate) struct Arguments {
    #[command(flatten)]
    which: Which,
    /// Where to keep the key [default: the profile's wallet.key]
    #[arg(long, value_name = "FILE", conflicts_with = "key")]
    file: Option<PathBuf>,
    /// Make the key from 24 new words, and show them once: written down, they are the backup
    #[arg(long, conflicts_with = "restore")]
    words: bool,
    /// Make the key from 24 words that exist: asked for on the terminal, or read from --words-file
    #[arg(long)]
    restore: bool,
    /// The file with the words, for --restore
    #[arg(long, value_name = "FILE", requires = "restore")]
    words_file: Option<PathBuf>,
    /// The words have a password of their own, which is asked for
    #[arg(long)]
    words_password: bool,
    /// Keep the secret in the system's keyring
    #[arg(long, conflicts_with = "plain")]
    keyring: bool,
    /// Keep the secret as it is, for its owner alone: development networks only
    #[arg(long)]
    plain: bool,
    /// The older version, v4r2: the same address on every network
    #[arg(long, conflicts_with = "payout")]
    v4r2: bool,
    /// A wallet for who pays many often: cheaper for each payment, and known to no wallet app
    #[arg(long)]
    payout: bool,
    /// Fill it from the faucet of a development network
    #[arg(long)]
    faucet: bool,
    /// One JSON object; with --words the words are in it
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(arguments: Arguments) -> Result<ExitCode, Failure> {
    let known = NetworkFile::load(&arguments.which.state()?).ok();
    let network = known.as_ref().map_or(MAINNET, |file| file.network);
    check(&arguments, known.as_ref())?;
    let path = match &arguments.file {
        Some(path) => path.clone(),
        None => arguments.which.key_path()?,
    };
    if path.exists() {
        return Err(keys::explain(&cocoon_keystore::KeystoreError::Exists(path)));
    }
    let (key, words) = make(&arguments)?;
    let version = match (arguments.v4r2, arguments.payout) {
        (true, _) => WalletVersion::V4R2,
        (_, true) => WalletVersion::Payout,
        _ => WalletVersion::V5R1,
    };
    let file = keep(&arguments, &path, &key, version)?;
    let address = version.address(&key.public(), network);
    if arguments.faucet
        && let Some(known) = &known
    {
        let chain = crate::access::connect(&arguments.which.state()?, known).await?;
        let wallet = cocoon_chain::Wallet::of_version(key, version, chain);
        fill(&wallet, &known.chain).await?;
    }
    let shown = friendly_on(&address, false, network);
    if arguments.json {
        let words = words.as_ref().map(|words| words.as_str());
        let object = serde_json::json!({
            "address": shown, "raw": address.to_string(), "version": version.name(), "network": network,
            "key": path, "words": words,
        });
        return print(&object.to_string()).map(|()| ExitCode::SUCCESS);
    }
    let screen = Screen::new(false);
    screen.line(&format!("{} {shown}", screen.bold("a new wallet")));
    screen.detail("raw", &address.to_string());
    screen.detail("version", version.name());
    match known {
        Some(_) => screen.detail("network", &network_name(network)),
        None => screen.detail("network", "mainnet (-239): no network file is in this folder"),
    }
    screen.detail("key", &format!("{}: {}", path.display(), file.protection().words()));
    match words {
        Some(words) => show_words(&screen, &words),
        None if arguments.restore => screen.detail("backup", "the words"),
        None => screen.detail("backup", backup(file.protection())),
    }
    Ok(ExitCode::SUCCESS)
}

/// What must not be lost.
fn backup(protection: Protection) -> &'static str {
    match protection {
        Protection::Plain => "copy the key file: there is no other way back",
        Protection::Passphrase => {
            "copy the key file, and remember its passphrase: there is no other way back"
        }
        Protection::Keyring => {
            "the keyring's own: there is no other way back (--words makes a key that has one)"
        }
    }
}

fn check(arguments: &Arguments, known: Option<&NetworkFile>) -> Result<(), Failure> {
    let development = known.is_some_and(|file| !is_public(file.network));
    if arguments.plain && !development {
        return Err(Failure::usage(
            "a key as it is may be kept on development networks only",
            "leave --plain out: the key is encrypted under a passphrase; or start `cocoon chain` first",
        ));
    }
    if arguments.faucet && !known.is_some_and(|file| file.faucet) {
        return Err(Failure::usage(
            "this network has no faucet",
            "send coins to the wallet's address from another wallet",
        ));
    }
    Ok(())
}

type Words = Zeroizing<String>;

fn make(arguments: &Arguments) -> Result<(SigningKey, Option<Words>), Failure> {
    let words = arguments.words || arguments.restore;
    if arguments.words_password && !words {
        return Err(Failure::usage("there are no words to have a password", "add --words or --restore"));
    }
    if !words {
        return Ok((keys::generate()?, None));
    }
    let password = arguments.words_password.then(words_password).transpose()?;
    if arguments.restore {
        let text = existing_words(arguments)?;
        let mnemonic =
            Mnemonic::parse(&text, password.as_ref()).map_err(|error| keys::explain(&error.into()))?;
        return Ok((mnemonic.signing_key(password.as_ref()), None));
    }
    let mnemonic = Mnemonic::generate(password.as_ref()).map_err(|error| keys::explain(&error))?;
    Ok((mnemonic.signing_key(password.as_ref()), Some(mnemonic.expose_words())))
}

/// The words' own password is asked for on the terminal, whatever opens the file.
fn words_password() -> Result<Passphrase, Failure> {
    PassphraseSource::Terminal.read("Password of the words: ").map_err(|error| keys::explain(&error))
}

fn existing_words(arguments: &Arguments) -> Result<Words, Failure> {
    /// 24 words of 8 letters, and room for what people put between them.
    const MAX_WORDS: u64 = 4096;
    use std::io::Read;
    let Some(path) = &arguments.words_file else {
        let typed =
            PassphraseSource::Terminal.read("The 24 words: ").map_err(|error| keys::explain(&error))?;
        return Ok(typed.expose_text());
    };
    let unreadable = |error: std::io::Error| {
        Failure::new(format!("cannot read the words in {}: {error}", path.display()), "check the name")
    };
    let file = std::fs::File::open(path).map_err(unreadable)?;
    let mut text = Zeroizing::new(String::with_capacity(4096));
    file.take(MAX_WORDS).read_to_string(&mut text).map_err(unreadable)?;
    Ok(text)
}

fn keep(
    arguments: &Arguments,
    path: &std::path::Path,
    key: &SigningKey,
    version: WalletVersion,
) -> Result<KeyFile, Failure> {
    let kept = if arguments.plain {
        KeyFile::create(path, key, version, &Keep::Plain)
    } else if arguments.keyring {
        KeyFile::create(path, key, version, &Keep::Keyring)
    } else {
        let prompt = format!("New passphrase for {}: ", path.display());
        passphrases().read_new(&prompt).and_then(|passphrase| {
            KeyFile::create(path, key, version, &Keep::Sealed(&passphrase, Cost::DEFAULT))
        })
    };
    kept.map_err(|error| keys::explain(&error))
}

/// Four columns, numbered: as one writes them down.
fn show_words(screen: &Screen, words: &Words) {
    const COLUMNS: usize = 4;
    screen.line("");
    screen.line(
        "Write these words down, in this order. They are shown once, and whoever has them has the money:",
    );
    screen.line("");
    let all: Vec<&str> = words.split(' ').collect();
    let rows = all.len().div_ceil(COLUMNS);
    for row in 0..rows {
        let mut line = Zeroizing::new(String::with_capacity(80));
        for (number, word) in all.iter().enumerate().skip(row).step_by(rows) {
            line.push_str(&format!("   {:>2}  {word:<10}", number + 1));
        }
        screen.line(line.trim_end());
    }
}
