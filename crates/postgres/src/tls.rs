//! TLS as libpq's `sslmode` means it.

use crate::config::{Address, SslMode};
use crate::error::Error;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use std::sync::Arc;

/// The client side of TLS for a database; None where it is not wanted.
pub fn client_config(address: &Address) -> Result<Option<Arc<ClientConfig>>, Error> {
    let verified = match address.sslmode {
        SslMode::Disable => return Ok(None),
        SslMode::Prefer | SslMode::Require => Verified::Nothing,
        SslMode::VerifyCa => Verified::Authority(roots(address)?),
        SslMode::VerifyFull => Verified::AuthorityAndName(roots(address)?),
    };
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::Config(format!("TLS: {error}")))?;
    let builder = match verified {
        Verified::AuthorityAndName(roots) => builder.with_root_certificates(roots),
        Verified::Authority(roots) => {
            let verifier = Verifier { provider, roots: Some(roots) };
            builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier))
        }
        Verified::Nothing => {
            let verifier = Verifier { provider, roots: None };
            builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier))
        }
    };
    let config = match &address.sslcert {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let unreadable = |what: &str, path: &std::path::Path, error: &dyn std::fmt::Display| {
                Error::Config(format!("url: {what} {}: {error}", path.display()))
            };
            let chain = CertificateDer::pem_file_iter(certificate)
                .and_then(Iterator::collect::<Result<Vec<_>, _>>)
                .map_err(|error| unreadable("sslcert", certificate, &error))?;
            let key_der = PrivateKeyDer::from_pem_file(key).map_err(|error| unreadable("sslkey", key, &error))?;
            builder.with_client_auth_cert(chain, key_der).map_err(|error| unreadable("sslcert", certificate, &error))?
        }
    };
    Ok(Some(Arc::new(config)))
}

enum Verified {
    Nothing,
    Authority(Arc<RootCertStore>),
    AuthorityAndName(Arc<RootCertStore>),
}

fn roots(address: &Address) -> Result<Arc<RootCertStore>, Error> {
    let mut store = RootCertStore::empty();
    match &address.sslrootcert {
        Some(path) if path.as_os_str() != "system" => {
            let unreadable =
                |error: &dyn std::fmt::Display| Error::Config(format!("url: sslrootcert {}: {error}", path.display()));
            for certificate in CertificateDer::pem_file_iter(path).map_err(|error| unreadable(&error))? {
                let certificate = certificate.map_err(|error| unreadable(&error))?;
                store.add(certificate).map_err(|error| unreadable(&error))?;
            }
            if store.is_empty() {
                return Err(unreadable(&"holds no certificate"));
            }
        }
        _ => {
            for certificate in rustls_native_certs::load_native_certs().certs {
                // One odd certificate in the system's store is no reason to trust none.
                if let Err(error) = store.add(certificate) {
                    tracing::debug!(%error, "a certificate of the system is left out");
                }
            }
            if store.is_empty() {
                let cure = "name a file of trusted authorities with sslrootcert";
                return Err(Error::Config(format!("url: the system has no trusted certificates; {cure}")));
            }
        }
    }
    Ok(Arc::new(store))
}

/// What remains of verification where the host's name is not compared, and with no roots nothing but the handshake.
#[derive(Debug)]
struct Verifier {
    provider: Arc<CryptoProvider>,
    roots: Option<Arc<RootCertStore>>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if let Some(roots) = &self.roots {
            let certificate = ParsedCertificate::try_from(end_entity)?;
            let algorithms = self.provider.signature_verification_algorithms.all;
            verify_server_cert_signed_by_trust_anchor(&certificate, roots, intermediates, now, algorithms)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Whether a failed handshake is about a certificate, which trying again does not mend.
pub fn is_certificate_error(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        let inner = error.downcast_ref::<std::io::Error>().and_then(|error| error.get_ref());
        let tls = error.downcast_ref().or_else(|| inner.and_then(|inner| inner.downcast_ref::<rustls::Error>()));
        if let Some(rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented) = tls {
            return true;
        }
        cause = error.source();
    }
    false
}
