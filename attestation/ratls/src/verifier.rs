//! The judgement of a peer's certificate, and rustls' two traits over it.

use std::sync::{Arc, Mutex, PoisonError};

use cocoon_attestation::ratls::{RaTlsCertificate, RaTlsEvidence};
use cocoon_attestation::{
    Context, Endorsements, Evidence, Exceptions, InvalidPolicy, KnownBlock, Policy, TrustAnchors, Trusted,
    UnixTime, verify,
};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime as TlsTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    DigitallySignedStruct, DistinguishedName, Error, OtherError, PeerIncompatible, SignatureScheme,
};

use crate::NotAttested;

/// What this side knows at the moment of a handshake: the verifier itself has no clock and asks no chain.
pub trait Knowledge: Send + Sync {
    /// This side's clock.
    fn now(&self) -> UnixTime;

    /// The block that this side's own view of the chain has at a number. Called during the handshake: answer from memory.
    fn block(&self, seqno: u32) -> Option<KnownBlock>;

    /// The challenge that the peer's statement must carry, if one was sent.
    fn nonce(&self) -> Option<[u8; 32]> {
        None
    }
}

/// Judges peers: whose roots count, what is accepted, and what is known. One for many connections.
pub struct Verifier {
    anchors: TrustAnchors,
    endorsements: Endorsements,
    exceptions: Exceptions,
    policy: Policy,
    knowledge: Box<dyn Knowledge>,
}

impl Verifier {
    /// A verifier that uses the endorsements which bundles carry.
    ///
    /// # Errors
    /// If the policy names an exception that is not known.
    pub fn new(
        anchors: TrustAnchors,
        policy: Policy,
        knowledge: impl Knowledge + 'static,
    ) -> Result<Self, InvalidPolicy> {
        let exceptions = policy.exceptions()?;
        let endorsements = Endorsements::none();
        Ok(Self { anchors, endorsements, exceptions, policy, knowledge: Box::new(knowledge) })
    }

    /// Uses these endorsements in place of those that bundles carry.
    #[must_use]
    pub fn with_endorsements(self, endorsements: Endorsements) -> Self {
        Self { endorsements, ..self }
    }

    /// Is this the certificate (DER) of a peer that is trusted, as far as a certificate can tell? That the peer holds the
    /// certificate's key is for the handshake to show.
    ///
    /// # Errors
    /// Why not, with the name of the check.
    pub fn judge(&self, certificate: &[u8]) -> Result<Trusted, NotAttested> {
        let certificate = RaTlsCertificate::parse(certificate).map_err(NotAttested::Certificate)?;
        let bundle = match certificate.evidence {
            RaTlsEvidence::Bundle(bundle) => *bundle,
            RaTlsEvidence::Quote { scheme, .. } => {
                return Err(NotAttested::OtherScheme(format!("a quote by the scheme of {scheme}")));
            }
            RaTlsEvidence::OtherCmw { encoding } => {
                return Err(NotAttested::OtherScheme(format!("another message wrapper in {encoding}")));
            }
        };
        let (now, evidence) = (self.knowledge.now(), Evidence::Bundle(bundle));
        let genuine = verify(&evidence, &self.endorsements, &self.anchors, &self.exceptions, now)
            .and_then(|genuine| genuine.with_tls_key(&certificate.spki))
            .map_err(NotAttested::Refused)?;
        let seqno = genuine.statement().map(|statement| statement.freshness.beacon.seqno);
        let beacon = seqno.and_then(|seqno| self.knowledge.block(seqno));
        let context = Context { now, beacon, nonce: self.knowledge.nonce() };
        self.policy.appraise(genuine, &context).map_err(NotAttested::Refused)
    }
}

impl std::fmt::Debug for Verifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Verifier").field("policy", &self.policy).finish_non_exhaustive()
    }
}

/// What one handshake came to.
#[derive(Debug, Default)]
pub(crate) enum Judgement {
    /// No certificate was seen yet.
    #[default]
    Pending,
    /// This certificate was accepted.
    Accepted { certificate: Vec<u8>, trusted: Box<Trusted> },
    /// The peer was refused, or its judgement was taken away by [`crate::Peer::trusted`].
    Over(NotAttested),
}

/// Where a handshake leaves its judgement.
#[derive(Debug, Default)]
pub(crate) struct Slot(Mutex<Judgement>);

impl Slot {
    pub(crate) fn take(&self) -> Judgement {
        let over = Judgement::Over(NotAttested::Handshake("its judgement was taken before"));
        std::mem::replace(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner), over)
    }
}

/// The verifier of one connection.
#[derive(Debug)]
pub(crate) struct OneHandshake {
    pub(crate) verifier: Arc<Verifier>,
    pub(crate) provider: Arc<CryptoProvider>,
    pub(crate) slot: Arc<Slot>,
}

impl OneHandshake {
    fn judge(&self, shown: &CertificateDer<'_>, others: &[CertificateDer<'_>]) -> Result<(), Error> {
        let mut judgement = self.slot.0.lock().unwrap_or_else(PoisonError::into_inner);
        let result = match (&*judgement, others.len()) {
            (Judgement::Pending, 0) => self.verifier.judge(shown),
            (Judgement::Pending, more) => Err(NotAttested::OtherScheme(format!("{} of them", more + 1))),
            _ => Err(NotAttested::Handshake("this configuration was made for one connection, and had it")),
        };
        match result {
            Ok(trusted) => {
                let trusted = Box::new(trusted);
                *judgement = Judgement::Accepted { certificate: shown.to_vec(), trusted };
                Ok(())
            }
            Err(why) => {
                *judgement = Judgement::Over(why.clone());
                Err(Error::Other(OtherError(Arc::new(why)))) // printed in its own words, unlike `InvalidCertificate`
            }
        }
    }

    fn tls13(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

fn never_tls12() -> Error {
    Error::PeerIncompatible(PeerIncompatible::ServerDoesNotSupportTls12Or13)
}

impl ServerCertVerifier for OneHandshake {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>, // a guest is known by what it runs, not by where it is
        _ocsp: &[u8],
        _now: TlsTime, // the time is what `Knowledge` says
    ) -> Result<ServerCertVerified, Error> {
        self.judge(end_entity, intermediates).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(never_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.tls13(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes()
    }
}

impl ClientCertVerifier for OneHandshake {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _now: TlsTime,
    ) -> Result<ClientCertVerified, Error> {
        self.judge(end_entity, intermediates).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(never_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.tls13(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes()
    }
}
