//! Real TLS handshakes in memory: one good row, and rows that each change one thing.

#[path = "../../tests/common/mod.rs"]
mod common;

use std::sync::Arc;

use cocoon_attestation::{
    Bundle, KnownBlock, Pin, Policy, Refusal, Statement, Tee, TrustAnchors, Trusted, UnixTime, statement,
};
use cocoon_ratls::{
    CannotIssue, Identity, Knowledge, NotAttested, Peer, TlsKey, Verifier, client, issue, server,
    server_for_anybody,
};
use common::{NOW, Platform, context, policy};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::version::{TLS12, TLS13};
use rustls::{
    ClientConfig, ClientConnection, CommonState, Connection, Error, ServerConfig, ServerConnection,
    SupportedProtocolVersion,
};

/// What a side knows: a clock, and one block.
struct Known {
    now: UnixTime,
    block: Option<KnownBlock>,
    nonce: Option<[u8; 32]>,
}

impl Default for Known {
    fn default() -> Self {
        Self { now: NOW, block: context().beacon, nonce: None }
    }
}

impl Knowledge for Known {
    fn now(&self) -> UnixTime {
        self.now
    }

    fn block(&self, seqno: u32) -> Option<KnownBlock> {
        self.block.clone().filter(|block| block.seqno == seqno)
    }

    fn nonce(&self) -> Option<[u8; 32]> {
        self.nonce
    }
}

/// A guest with its TLS key, and the platform it runs on.
struct Guest {
    platform: Platform,
    key: TlsKey,
}

impl Guest {
    fn new() -> Self {
        Self { platform: Platform::new(), key: TlsKey::generate().expect("randomness") }
    }

    fn statement(&self) -> Statement {
        let mut statement = common::statement();
        statement.keys.tls = Some(self.key.spki());
        statement
    }

    fn bundle(&self) -> Bundle {
        self.platform.bundle_of(&self.statement())
    }

    fn identity(&self) -> Identity {
        issue(&self.bundle(), &self.key).expect("the statement names the key")
    }

    fn verifier(&self) -> Arc<Verifier> {
        self.verifier_that(|_, _| {})
    }

    /// A verifier that accepts this guest, with one thing changed.
    fn verifier_that(&self, change: impl FnOnce(&mut Policy, &mut Known)) -> Arc<Verifier> {
        let (mut policy, mut known) = (policy(), Known::default());
        change(&mut policy, &mut known);
        Arc::new(Verifier::new(self.platform.anchors(), policy, known).expect("no exceptions"))
    }
}

/// How far a handshake came.
struct Outcome {
    client: ClientConnection,
    server: ServerConnection,
    client_error: Option<Error>,
    server_error: Option<Error>,
}

/// Drives both sides until neither has anything to say.
fn handshake(client: Arc<ClientConfig>, server: Arc<ServerConfig>) -> Outcome {
    let name = ServerName::try_from("guest").expect("a name");
    let mut client: Connection = ClientConnection::new(client, name).expect("a client").into();
    let mut server: Connection = ServerConnection::new(server).expect("a server").into();
    let (mut client_error, mut server_error) = (None, None);
    for _ in 0..32 {
        let to_server = pump(&mut client, &mut server, &mut server_error);
        let to_client = pump(&mut server, &mut client, &mut client_error);
        if to_server + to_client == 0 {
            break;
        }
    }
    match (client, server) {
        (Connection::Client(client), Connection::Server(server)) => {
            Outcome { client, server, client_error, server_error }
        }
        _ => unreachable!("made so above"),
    }
}

/// Moves what one side has to say to the other; how many bytes it was.
fn pump(from: &mut Connection, to: &mut Connection, error: &mut Option<Error>) -> usize {
    let mut bytes = Vec::new();
    while from.wants_write() {
        from.write_tls(&mut bytes).expect("memory takes it");
    }
    let mut rest = bytes.as_slice();
    while !rest.is_empty() && error.is_none() {
        to.read_tls(&mut rest).expect("memory gives it");
        *error = to.process_new_packets().err();
    }
    bytes.len()
}

fn done(state: &CommonState) -> bool {
    !state.is_handshaking()
}

fn ring() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// A server that shows whatever it is told to, whether or not the key belongs to it.
fn server_showing(
    certificates: &[Vec<u8>],
    key: &TlsKey,
    version: &'static SupportedProtocolVersion,
) -> Arc<ServerConfig> {
    let certificates = certificates.iter().map(|der| CertificateDer::from(der.clone())).collect();
    // The private key leaves its type only together with a certificate.
    let mut statement = common::statement();
    statement.keys.tls = Some(key.spki());
    let bundle = Bundle {
        statement: statement.encode(),
        tee: Tee::Tdx,
        quote: vec![],
        gpu: vec![],
        event_log: None,
        endorsements: vec![],
    };
    let (_, private) = issue(&bundle, key).expect("it names the key").into_parts();
    let signer = ring().key_provider.load_private_key(private).expect("a P-256 key");
    let resolver = SingleCertAndKey::from(CertifiedKey::new(certificates, signer));
    let configuration = ServerConfig::builder_with_provider(ring())
        .with_protocol_versions(&[version])
        .expect("a version of TLS")
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(resolver));
    Arc::new(configuration)
}

/// The client's judgement of a server that shows this certificate and has this key.
fn client_judges(
    verifier: &Arc<Verifier>,
    shown: &[u8],
    key: &TlsKey,
) -> (Result<Trusted, NotAttested>, Outcome) {
    let (configuration, peer) = client(verifier, None).expect("a configuration");
    let outcome = handshake(configuration, server_showing(&[shown.to_vec()], key, &TLS13));
    (peer.trusted(&outcome.client), outcome)
}

/// The refusal is in the handshake's error, in the peer's judgement, and no connection came of it.
fn refusal(verifier: &Arc<Verifier>, shown: &[u8], key: &TlsKey) -> Refusal {
    let (judgement, outcome) = client_judges(verifier, shown, key);
    let Err(NotAttested::Refused(refusal)) = judgement else { panic!("must be refused: {judgement:?}") };
    let error = outcome.client_error.expect("the handshake failed").to_string();
    assert!(error.contains(refusal.check), "the error names the check: {error}");
    assert!(!done(&outcome.client) && !done(&outcome.server), "no connection on either side");
    assert!(matches!(outcome.server_error, Some(Error::AlertReceived(_))), "the other side is told");
    refusal
}

#[test]
fn two_trusted_peers_connect_and_each_knows_the_other() {
    let (alice, bob) = (Guest::new(), Guest::new());
    let (for_client, server_peer) = client(&bob.verifier(), Some(&alice.identity())).expect("taken");
    let (for_server, client_peer) = server(&alice.verifier(), &bob.identity()).expect("taken");
    let Outcome { mut client, mut server, client_error, server_error } = handshake(for_client, for_server);
    assert_eq!((client_error, server_error), (None, None));
    assert!(done(&client) && done(&server));

    let bob_seen = server_peer.trusted(&client).expect("trusted");
    let alice_seen = client_peer.trusted(&server).expect("trusted");
    assert_eq!(bob_seen.statement(), &bob.statement());
    assert_eq!(alice_seen.statement(), &alice.statement());
    assert!(bob_seen.checks().iter().any(|check| check.id == "binding.tls_key"));
    assert!(bob_seen.simulated(), "said for connections too");

    std::io::Write::write_all(&mut client.writer(), b"hello").expect("buffered");
    let mut wire = Vec::new();
    client.write_tls(&mut wire).expect("memory takes it");
    server.read_tls(&mut wire.as_slice()).expect("memory gives it");
    assert_eq!(server.process_new_packets().expect("authentic").plaintext_bytes_to_read(), 5);
}

#[test]
fn a_person_connects_to_a_trusted_server_and_shows_nothing() {
    let guest = Guest::new();
    let (configuration, peer) = client(&guest.verifier(), None).expect("a configuration");
    let outcome = handshake(configuration, server_for_anybody(&guest.identity()).expect("a configuration"));
    let judgement = peer.trusted(&outcome.client);
    assert_eq!(judgement.expect("trusted").statement(), &guest.statement());
    assert!(done(&outcome.client) && done(&outcome.server));
    assert!(outcome.server.peer_certificates().is_none());
}

#[test]
fn every_refusal_of_verify_and_appraise_ends_the_handshake() {
    let guest = Guest::new();
    type Change = fn(&mut Policy, &mut Known);
    let table: [(&str, Change); 9] = [
        ("freshness", |_, known| known.block.as_mut().expect("known").time = UnixTime(NOW.0 - 3_601)),
        ("freshness", |_, known| known.block.as_mut().expect("known").root_hash[0] ^= 1),
        ("freshness", |_, known| known.block = None),
        ("freshness", |_, known| known.nonce = Some([8; 32])),
        ("tdx.validity", |_, known| known.now = UnixTime(NOW.0 + 40 * 365 * 86_400)),
        ("policy.image", |policy, _| policy.images.clear()),
        ("policy.rtmr3", |policy, _| policy.images[0].tdx.as_mut().expect("TDX").rtmr3 = Pin::to([1; 48])),
        ("policy.model", |policy, _| policy.models.clear()),
        ("policy.network", |policy, _| policy.network = -3),
    ];
    for (check, change) in table {
        assert_eq!(
            refusal(&guest.verifier_that(change), guest.identity().certificate(), &guest.key).check,
            check
        );
    }
}

#[test]
fn a_root_that_is_not_trusted_is_refused() {
    let (guest, stranger) = (Guest::new(), Guest::new());
    let shown = guest.identity();
    let refused = |verifier| refusal(&verifier, shown.certificate(), &guest.key);
    assert_eq!(refused(stranger.verifier()).check, "tdx.root");
    let hardware =
        Verifier::new(TrustAnchors::hardware(), policy(), Known::default()).expect("no exceptions");
    assert_eq!(refused(Arc::new(hardware)).check, "tdx.root");
}

/// A certificate with some bytes replaced by as many others. Its own signature breaks, which nobody looks at.
fn replaced(certificate: &[u8], old: &[u8], new: &[u8]) -> Vec<u8> {
    assert_eq!(old.len(), new.len(), "so that lengths in the certificate stay");
    let mut der = certificate.to_vec();
    let at = der.windows(old.len()).position(|window| window == old).expect("it is in there");
    der[at..at + new.len()].copy_from_slice(new);
    der
}

/// A certificate that `issue` would not make: genuine evidence under a key of somebody else.
fn relayed(bundle: &Bundle, thief: &TlsKey) -> Vec<u8> {
    let mut own = Statement::decode(&bundle.statement).expect("honest");
    own.keys.tls = Some(thief.spki());
    let lie = Bundle { statement: own.encode(), ..bundle.clone() };
    let identity = issue(&lie, thief).expect("it names the key");
    replaced(identity.certificate(), &lie.statement, &bundle.statement)
}

#[test]
fn genuine_evidence_under_another_key_is_refused() {
    let (guest, thief) = (Guest::new(), TlsKey::generate().expect("randomness"));
    let refusal = refusal(&guest.verifier(), &relayed(&guest.bundle(), &thief), &thief);
    assert_eq!(refusal.check, "binding.tls_key");
    assert_ne!(refusal.expected, refusal.got);
}

#[test]
fn a_statement_that_the_quote_does_not_have_is_refused() {
    let guest = Guest::new();
    let mut other = guest.statement();
    other.freshness.serial += 1;
    let lie = Bundle { statement: other.encode(), ..guest.bundle() };
    let shown = issue(&lie, &guest.key).expect("it names the key");
    assert_eq!(refusal(&guest.verifier(), shown.certificate(), &guest.key).check, "binding.report_data");
}

#[test]
fn a_statement_without_a_tls_key_is_refused() {
    let guest = Guest::new();
    let silent = guest.platform.bundle();
    assert_eq!(issue(&silent, &guest.key).expect_err("names none"), CannotIssue::OtherKey);
    let thief = TlsKey::generate().expect("randomness");
    assert_eq!(issue(&guest.bundle(), &thief).expect_err("names another"), CannotIssue::OtherKey);
}

#[test]
fn the_right_certificate_without_its_key_is_refused() {
    let (guest, thief) = (Guest::new(), TlsKey::generate().expect("randomness"));
    let (judgement, outcome) = client_judges(&guest.verifier(), guest.identity().certificate(), &thief);
    assert!(matches!(outcome.client_error, Some(Error::InvalidCertificate(_))), "{:?}", outcome.client_error);
    assert_eq!(judgement.expect_err("its key never signed"), NotAttested::Handshake("not over yet"));
}

#[test]
fn a_certificate_without_evidence_or_with_cut_evidence_is_refused() {
    let guest = Guest::new();
    let (identity, bundle) = (guest.identity(), guest.bundle());
    let whole = identity.certificate();
    let plain = replaced(whole, &[0x2b, 6, 1, 5, 5, 7, 1, 35], &[0x2b, 6, 1, 5, 5, 7, 1, 36]);
    let other = replaced(whole, b"tag:cocoon.network", b"tag:cocoon.netwerk");
    let version = [&[9], &bundle.statement[1..64]].concat();
    let damaged = replaced(whole, &bundle.statement[..64], &version);
    for (what, shown, word) in [
        ("a plain certificate", plain, "ratls.certificate"),
        ("another wrapper", other, "ratls.certificate"),
        ("no statement", damaged, "binding.report_data"),
    ] {
        let (judgement, outcome) = client_judges(&guest.verifier(), &shown, &guest.key);
        let why = judgement.expect_err(what).to_string();
        let error = outcome.client_error.expect("the handshake failed").to_string();
        assert!(why.contains(word) && error.contains(word), "{what}: {why}; {error}");
        assert!(!done(&outcome.server), "{what}");
    }
    let verifier = guest.verifier();
    for length in 0..whole.len() {
        assert!(verifier.judge(&whole[..length]).is_err(), "cut to {length}");
    }
}

#[test]
fn a_server_refuses_a_client_that_is_not_trusted_or_shows_nothing() {
    let (guest, stranger) = (Guest::new(), Guest::new());
    let (for_server, peer) = server(&guest.verifier(), &guest.identity()).expect("a configuration");
    let (for_client, _) = client(&guest.verifier(), Some(&stranger.identity())).expect("a configuration");
    let outcome = handshake(for_client, for_server);
    let Err(NotAttested::Refused(refusal)) = peer.trusted(&outcome.server) else { panic!("a stranger") };
    let error = outcome.server_error.expect("the handshake failed").to_string();
    assert!(error.contains(refusal.check), "{error}");
    assert!(outcome.client_error.is_some() && !done(&outcome.server));

    let (for_server, peer) = server(&guest.verifier(), &guest.identity()).expect("a configuration");
    let (for_client, _) = client(&guest.verifier(), None).expect("a configuration");
    let outcome = handshake(for_client, for_server);
    assert_eq!(outcome.server_error, Some(Error::NoCertificatesPresented));
    assert!(peer.trusted(&outcome.server).is_err());
}

#[test]
fn a_chain_is_refused() {
    let guest = Guest::new();
    let certificate = guest.identity().certificate().to_vec();
    let configuration = server_showing(&[certificate.clone(), certificate], &guest.key, &TLS13);
    let (for_client, peer) = client(&guest.verifier(), None).expect("a configuration");
    let outcome = handshake(for_client, configuration);
    assert!(outcome.client_error.expect("the handshake failed").to_string().contains("ratls.certificate"));
    assert!(matches!(peer.trusted(&outcome.client), Err(NotAttested::OtherScheme(_))));
}

#[test]
fn tls_1_2_is_not_spoken_by_either_side() {
    let guest = Guest::new();
    let identity = guest.identity();
    let old_server = server_showing(&[identity.certificate().to_vec()], &guest.key, &TLS12);
    let (for_client, peer) = client(&guest.verifier(), None).expect("a configuration");
    let outcome = handshake(for_client, old_server);
    assert!(matches!(outcome.server_error, Some(Error::PeerIncompatible(_))), "{:?}", outcome.server_error);
    assert!(peer.trusted(&outcome.client).is_err());

    let old_client = ClientConfig::builder_with_provider(ring())
        .with_protocol_versions(&[&TLS12])
        .expect("TLS 1.2")
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    let outcome = handshake(Arc::new(old_client), server_for_anybody(&identity).expect("a configuration"));
    assert!(matches!(outcome.server_error, Some(Error::PeerIncompatible(_))), "{:?}", outcome.server_error);
}

#[test]
fn one_configuration_serves_one_connection_and_its_judgement_no_other() {
    let guest = Guest::new();
    let shown = server_for_anybody(&guest.identity()).expect("a configuration");
    let (configuration, peer) = client(&guest.verifier(), None).expect("a configuration");
    let first = handshake(Arc::clone(&configuration), Arc::clone(&shown));
    assert!(done(&first.client));
    let second = handshake(configuration, Arc::clone(&shown));
    let error = second.client_error.expect("the configuration is used up").to_string();
    assert!(error.contains("made for one connection"), "{error}");
    assert!(peer.trusted(&second.client).is_err());

    let (configuration, peer) = client(&guest.verifier(), None).expect("a configuration");
    let good = handshake(configuration, shown);
    assert!(done(&good.client));
    assert!(peer.trusted(&good.server).is_err(), "not the connection that was judged");
}

#[test]
fn no_session_is_resumed() {
    let guest = Guest::new();
    let shown = server_for_anybody(&guest.identity()).expect("a configuration");
    for _ in 0..2 {
        let (configuration, _peer): (_, Peer) = client(&guest.verifier(), None).expect("a configuration");
        let outcome = handshake(configuration, Arc::clone(&shown));
        assert_eq!(outcome.client.handshake_kind(), Some(rustls::HandshakeKind::Full));
        assert_eq!(outcome.client.tls13_tickets_received(), 0);
    }
}

#[test]
fn a_bundle_too_large_for_tls_is_refused_when_it_is_issued() {
    let guest = Guest::new();
    let large = Bundle { event_log: Some(vec![0xff; 64 * 1024]), ..guest.bundle() };
    let error = issue(&large, &guest.key).expect_err("too large");
    assert!(matches!(error, CannotIssue::TooLarge(_)) && error.to_string().contains("padding"), "{error}");
    let cut = Bundle { statement: guest.bundle().statement[1..].to_vec(), ..guest.bundle() };
    assert!(matches!(issue(&cut, &guest.key), Err(CannotIssue::Statement(_))));
}

#[test]
fn keys_are_never_printed() {
    let guest = Guest::new();
    assert_eq!(format!("{:?}", guest.key), "TlsKey { .. }");
    assert!(format!("{:?}", guest.identity()).len() < 64);
    assert!(guest.key.spki().len() <= statement::MAX_TLS_KEY);
}

#[test]
fn a_certificate_is_signed_by_its_own_key() {
    let guest = Guest::new();
    let identity = guest.identity();
    // SEQUENCE { content: SEQUENCE, algorithm: 12 bytes, BIT STRING with 3 bytes before the signature }, long lengths.
    let inner = &identity.certificate()[4..];
    let length = 4 + usize::from(u16::from_be_bytes([inner[2], inner[3]]));
    let (content, rest) = inner.split_at(length);
    let spki = guest.key.spki();
    let key = ring::signature::UnparsedPublicKey::new(&ring::signature::ECDSA_P256_SHA256_ASN1, &spki[26..]);
    key.verify(content, &rest[12 + 3..]).expect("RFC 5280, 4.1.1.3: other TLS stacks look at it");
    let reissued = guest.identity();
    assert_ne!(identity.certificate()[15..31], reissued.certificate()[15..31], "serial numbers are random");
}
