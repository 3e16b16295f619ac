//! TLS as docker's client does it: the daemon's CA, an optional certificate of our own.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, DigitallySignedStruct, Error as RustlsError, RootCertStore, SignatureScheme,
};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::config::TlsFiles;
use crate::{Error, Result};

pub(crate) async fn handshake(
    tcp: TcpStream,
    authority: &str,
    files: &TlsFiles,
) -> Result<TlsStream<TcpStream>> {
    let name = host_of(authority);
    let name = ServerName::try_from(name.to_owned())
        .map_err(|source| tls_error(format!("invalid server name {name}"), source))?;
    let connector = TlsConnector::from(Arc::new(client_config(files)?));
    connector
        .connect(name, tcp)
        .await
        .map_err(|source| tls_error(format!("TLS handshake with {authority}"), source))
}

/// The name to verify: no port, no brackets.
fn host_of(authority: &str) -> &str {
    let host = authority.rsplit_once(':').map_or(authority, |(host, _port)| host);
    host.trim_start_matches('[').trim_end_matches(']')
}

fn client_config(files: &TlsFiles) -> Result<ClientConfig> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|source| tls_error("TLS set-up".to_owned(), source))?;
    let builder = if files.verify {
        builder.with_root_certificates(roots(&files.ca)?)
    } else {
        builder.dangerous().with_custom_certificate_verifier(Arc::new(AnyServer { provider }))
    };
    match (&files.cert, &files.key) {
        (Some(cert), Some(key)) => builder
            .with_client_auth_cert(certificates(cert)?, private_key(key)?)
            .map_err(|source| tls_error(format!("client certificate {}", cert.display()), source)),
        _ => Ok(builder.with_no_client_auth()),
    }
}

fn roots(ca: &Path) -> Result<RootCertStore> {
    let mut store = RootCertStore::empty();
    for certificate in certificates(ca)? {
        store
            .add(certificate)
            .map_err(|source| tls_error(format!("CA certificate {}", ca.display()), source))?;
    }
    Ok(store)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let unreadable =
        |source| tls_error(format!("could not read certificate {}", path.display()), source);
    CertificateDer::pem_file_iter(path)
        .map_err(unreadable)?
        .collect::<std::result::Result<_, _>>()
        .map_err(|source| {
            tls_error(format!("could not read certificate {}", path.display()), source)
        })
}

fn private_key(path: &PathBuf) -> Result<PrivateKeyDer<'static>> {
    PrivateKeyDer::from_pem_file(path)
        .map_err(|source| tls_error(format!("could not read key {}", path.display()), source))
}

/// Checks certificates and key that a context is to hold; complaints are docker's.
pub fn check_material(ca: Option<&[u8]>, cert: Option<&[u8]>, key: Option<&[u8]>) -> Result<()> {
    let refuse = |message: &str| Err(Error::Config { message: message.to_owned() });
    let has_certificate =
        |pem: &[u8]| matches!(CertificateDer::pem_slice_iter(pem).next(), Some(Ok(_)));
    if ca.is_some_and(|ca| !has_certificate(ca)) {
        return refuse("failed to retrieve context tls info: ca.pem seems invalid");
    }
    let (Some(cert), Some(key)) = (cert, key) else { return Ok(()) };
    if !key.windows(11).any(|start| start == b"-----BEGIN ") {
        return refuse("no valid private key found");
    }
    if !has_certificate(cert) {
        return refuse(match PrivateKeyDer::from_pem_slice(cert) {
            Ok(_) => {
                "failed to retrieve context tls info: tls: failed to find certificate PEM data in \
                 certificate input, but did find a private key; PEM inputs may have been switched"
            }
            Err(_) => {
                "failed to retrieve context tls info: tls: failed to find any PEM data in \
                 certificate input"
            }
        });
    }
    if PrivateKeyDer::from_pem_slice(key).is_err() {
        return refuse(
            "failed to retrieve context tls info: tls: failed to find PEM block with type ending \
             in \"PRIVATE KEY\" in key input",
        );
    }
    Ok(())
}

fn tls_error(what: String, source: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::Tls { what, source: Box::new(source) }
}

/// `--tls` without `--tlsverify`: encrypted, but to whomever answers. Signatures are still checked,
/// so that the peer at least holds the key of the certificate it shows.
#[derive(Debug)]
struct AnyServer {
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> std::result::Result<ServerCertVerified, RustlsError> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, RustlsError> {
        verify_tls12_signature(
            message,
            cert,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, RustlsError> {
        verify_tls13_signature(
            message,
            cert,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn server_names_have_no_port() {
        assert_eq!(host_of("example.com:2376"), "example.com");
        assert_eq!(host_of("[::1]:2376"), "::1");
        assert_eq!(host_of("10.0.0.1:2376"), "10.0.0.1");
    }
}
