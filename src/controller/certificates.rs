//! Transport certificates between the operator and its heads: a CA of the operator's own, a server certificate for
//! the heads of a namespace, and a client certificate that is made at start and never stored.
//!
//! These keys protect connections only. What a receipt proves rests on ML-DSA signatures, see `docs/trust.md`.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, pem::PemObject as _},
};

/// How long certificates hold. A CA is long-lived: replacing it cuts every head off until its Secret is remounted.
const CA_LIFETIME: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
const SERVER_LIFETIME: Duration = Duration::from_secs(365 * 24 * 3600);
const CLIENT_LIFETIME: Duration = Duration::from_secs(365 * 24 * 3600);
/// Clocks of nodes differ a little.
const BACKDATED: Duration = Duration::from_secs(3600);

/// The DNS name in the operator's client certificate.
pub const CONTROLLER_NAME: &str = "controller.chimera";

/// A certificate could not be made or read.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// rcgen refused.
    #[error("make a certificate")]
    Make(#[from] rcgen::Error),
    /// A stored certificate or key is no PEM.
    #[error("read the stored certificate authority")]
    Read(#[from] rustls::pki_types::pem::Error),
    /// rustls refused the result.
    #[error("set up TLS")]
    Tls(#[from] rustls::Error),
}

/// A certificate with its private key, both PEM.
pub struct Pair {
    /// The certificate.
    pub certificate: String,
    /// PKCS#8.
    pub private_key: String,
}

/// The operator's certificate authority.
pub struct Authority {
    certificate: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// A new authority.
    pub fn generate(now: Timestamp) -> Result<Pair, CertificateError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = params(Vec::new(), "Chimera heads", now, CA_LIFETIME)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        Ok(Pair {
            certificate: params.self_signed(&key)?.pem(),
            private_key: key.serialize_pem(),
        })
    }

    /// The authority whose PEM certificate and key were stored.
    pub fn from_pem(certificate: &str, private_key: &str) -> Result<Self, CertificateError> {
        let issuer = Issuer::from_ca_cert_pem(certificate, KeyPair::from_pem(private_key)?)?;
        Ok(Self {
            certificate: certificate.to_owned(),
            issuer,
        })
    }

    /// The authority's own certificate, PEM.
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// A server certificate for the heads of `namespace`.
    pub fn issue_server(&self, namespace: &str, now: Timestamp) -> Result<Pair, CertificateError> {
        let name = api::names::head_tls_name(namespace);
        let mut params = params(vec![name.clone()], &name, now, SERVER_LIFETIME)?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.issue(&params)
    }

    /// The TLS configuration with which the operator dials heads: TLS 1.3, a client certificate, and
    /// X25519MLKEM768 before all other key exchanges.
    pub fn client_config(&self, now: Timestamp) -> Result<Arc<ClientConfig>, CertificateError> {
        let mut params = params(
            vec![CONTROLLER_NAME.to_owned()],
            CONTROLLER_NAME,
            now,
            CLIENT_LIFETIME,
        )?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let pair = self.issue(&params)?;
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.certificate.as_bytes())?)?;
        let chain = vec![CertificateDer::from_pem_slice(pair.certificate.as_bytes())?];
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from_pem_slice(pair.private_key.as_bytes())?);
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Arc::new(config))
    }

    fn issue(&self, params: &CertificateParams) -> Result<Pair, CertificateError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok(Pair {
            certificate: certificate.pem(),
            private_key: key.serialize_pem(),
        })
    }
}

/// When a server certificate made now should be replaced: after two thirds of its life.
pub fn renew_after(now: Timestamp) -> Timestamp {
    now.saturating_add(SERVER_LIFETIME * 2 / 3).unwrap_or(now)
}

fn params(
    names: Vec<String>,
    common_name: &str,
    now: Timestamp,
    lifetime: Duration,
) -> Result<CertificateParams, CertificateError> {
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name.push(DnType::CommonName, common_name);
    let start = std::time::SystemTime::from(now) - BACKDATED;
    params.not_before = start.into();
    params.not_after = (start + BACKDATED + lifetime).into();
    Ok(params)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_authority_survives_storage_and_still_issues() {
        let now = Timestamp::from_second(1_800_000_000).expect("in range");
        let pair = Authority::generate(now).expect("an authority");
        let authority = Authority::from_pem(&pair.certificate, &pair.private_key).expect("read back");
        let server = authority
            .issue_server("team-a", now)
            .expect("a server certificate");
        assert!(server.certificate.starts_with("-----BEGIN CERTIFICATE-----"));
        let config = authority.client_config(now).expect("a client configuration");
        let first = config
            .crypto_provider()
            .kx_groups
            .first()
            .expect("key exchanges")
            .name();
        assert_eq!(first, rustls::NamedGroup::X25519MLKEM768);
    }
}
