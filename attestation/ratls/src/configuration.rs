//! rustls configurations, each for one connection.

use std::sync::Arc;

use cocoon_attestation::Trusted;
use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, ring};
use rustls::server::NoServerSessionStorage;
use rustls::version::TLS13;
use rustls::{ClientConfig, CommonState, Error, ServerConfig};

use crate::verifier::{Judgement, OneHandshake, Slot};
use crate::{Identity, NotAttested, Verifier};

/// Holds what the handshake of one connection came to.
#[derive(Debug)]
pub struct Peer(Arc<Slot>);

impl Peer {
    /// The peer of this connection, once its handshake is over.
    ///
    /// # Errors
    /// Why the peer was refused; or that the handshake is not over, or that this is another connection.
    pub fn trusted(self, connection: &CommonState) -> Result<Trusted, NotAttested> {
        match self.0.take() {
            Judgement::Over(why) => Err(why),
            Judgement::Pending => Err(NotAttested::Handshake("no certificate was seen yet")),
            // The certificate alone proves nothing: its key must have signed this handshake.
            Judgement::Accepted { .. } if connection.is_handshaking() => {
                Err(NotAttested::Handshake("not over yet"))
            }
            Judgement::Accepted { certificate, trusted } => match connection.peer_certificates() {
                Some([shown]) if **shown == *certificate => Ok(*trusted),
                _ => Err(NotAttested::Handshake("of another connection")),
            },
        }
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

fn one_handshake(verifier: &Arc<Verifier>) -> (Arc<OneHandshake>, Peer) {
    let slot = Arc::new(Slot::default());
    let peer = Peer(Arc::clone(&slot));
    (Arc::new(OneHandshake { verifier: Arc::clone(verifier), provider: provider(), slot }), peer)
}

/// For one connection to a server that is attested; with an identity, if this side is attested too.
///
/// # Errors
/// If rustls does not take the identity's key.
pub fn client(
    verifier: &Arc<Verifier>,
    identity: Option<&Identity>,
) -> Result<(Arc<ClientConfig>, Peer), Error> {
    let (handshake, peer) = one_handshake(verifier);
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])?
        .dangerous() // the whole of `verify` and `appraise` takes the place of web certificates
        .with_custom_certificate_verifier(handshake);
    let mut configuration = match identity {
        Some(own) => builder.with_client_auth_cert(vec![own.certificate.clone()], own.key.clone_key())?,
        None => builder.with_no_client_auth(),
    };
    configuration.resumption = Resumption::disabled(); // a resumed session would be judged by nobody
    configuration.enable_sni = false;
    Ok((Arc::new(configuration), peer))
}

/// For one connection from a client that must be attested.
///
/// # Errors
/// If rustls does not take the identity's key.
pub fn server(verifier: &Arc<Verifier>, identity: &Identity) -> Result<(Arc<ServerConfig>, Peer), Error> {
    let (handshake, peer) = one_handshake(verifier);
    let builder = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(handshake);
    let configuration =
        builder.with_single_cert(vec![identity.certificate.clone()], identity.key.clone_key())?;
    Ok((Arc::new(without_resumption(configuration)), peer))
}

/// For connections from anybody: clients are people, and have no TEE. They judge this side.
///
/// # Errors
/// If rustls does not take the identity's key.
pub fn server_for_anybody(identity: &Identity) -> Result<Arc<ServerConfig>, Error> {
    let builder = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])?
        .with_no_client_auth();
    let configuration =
        builder.with_single_cert(vec![identity.certificate.clone()], identity.key.clone_key())?;
    Ok(Arc::new(without_resumption(configuration)))
}

fn without_resumption(mut configuration: ServerConfig) -> ServerConfig {
    configuration.session_storage = Arc::new(NoServerSessionStorage {});
    configuration.send_tls13_tickets = 0;
    configuration
}
