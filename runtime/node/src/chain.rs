//! The certificate of an endorsement key, checked against the makers' roots that an operator gives.
//!
//! The path is webpki's: signatures, validity, basic constraints, key usage, name constraints, unknown critical extensions. A
//! TPM's certificate has a critical subject alternative name and often no subject; webpki takes both.
use crate::Error;
use crate::credential::EndorsementKey;
use base64::{Engine, engine::general_purpose::STANDARD};
use rustls_pki_types::{CertificateDer, SignatureVerificationAlgorithm, TrustAnchor, UnixTime};
use std::time::Duration;
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};

/// tcg-kp-EKCertificate (2.23.133.8.1), which such a certificate has where it names any use.
const EK_USAGE: &[u8] = &[0x67, 0x81, 0x05, 0x08, 0x01];
const MAX_PEM: usize = 1 << 20;
const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
const END: &str = "-----END CERTIFICATE-----";

static ALGORITHMS: &[&dyn SignatureVerificationAlgorithm] = &[
    webpki::ring::ECDSA_P256_SHA256,
    webpki::ring::ECDSA_P256_SHA384,
    webpki::ring::ECDSA_P384_SHA256,
    webpki::ring::ECDSA_P384_SHA384,
    webpki::ring::RSA_PKCS1_2048_8192_SHA256,
    webpki::ring::RSA_PKCS1_2048_8192_SHA384,
    webpki::ring::RSA_PKCS1_2048_8192_SHA512,
    webpki::ring::RSA_PSS_2048_8192_SHA256_LEGACY_KEY,
    webpki::ring::RSA_PSS_2048_8192_SHA384_LEGACY_KEY,
];

/// Certificates that an operator trusts to certify TPMs, and those between them and the TPMs.
#[derive(Debug, Clone, Default)]
pub struct Makers {
    roots: Vec<CertificateDer<'static>>,
    between: Vec<CertificateDer<'static>>,
}

impl Makers {
    /// From PEM files: roots (or any certificate that is to be trusted as one), intermediates.
    ///
    /// # Errors
    /// A file that holds no certificate, or bytes that are none.
    pub fn from_pem(roots: &str, between: &str) -> Result<Self, Error> {
        let makers = Self { roots: certificates(roots)?, between: certificates(between)? };
        if makers.roots.is_empty() {
            return Err(Error::refused("no certificate to trust. Fix: name the TPM maker's root as PEM"));
        }
        for root in &makers.roots {
            anchor_from_trusted_cert(root).map_err(|e| Error::refused(format!("a root is no certificate: {e}")))?;
        }
        Ok(makers)
    }

    /// The key of an endorsement certificate that one of the roots leads to, at `now` (seconds since the epoch).
    ///
    /// # Errors
    /// Why no root leads to it, or a key that no credential can be made for.
    pub(crate) fn check(&self, certificate: &[u8], now: u64) -> Result<EndorsementKey, Error> {
        let refused = |e: webpki::Error| {
            Error::refused(format!("the TPM's endorsement certificate does not lead to a given root: {e}"))
        };
        let der = CertificateDer::from(certificate);
        let leaf = EndEntityCert::try_from(&der).map_err(refused)?;
        let roots: Result<Vec<TrustAnchor<'_>>, _> = self.roots.iter().map(anchor_from_trusted_cert).collect();
        let roots = roots.map_err(refused)?;
        let now = UnixTime::since_unix_epoch(Duration::from_secs(now));
        let usage = KeyUsage::required_if_present(EK_USAGE);
        leaf.verify_for_usage(ALGORITHMS, &roots, &self.between, now, usage, None, None).map_err(refused)?;
        EndorsementKey::from_spki(&leaf.subject_public_key_info())
    }
}

fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, Error> {
    if pem.len() > MAX_PEM {
        return Err(Error::Malformed("certificates", "larger than 1 MiB"));
    }
    let mut found = Vec::new();
    let mut rest = pem;
    while let Some((_, after)) = rest.split_once(BEGIN) {
        let (body, next) =
            after.split_once(END).ok_or(Error::Malformed("certificates", "a PEM block without an end"))?;
        let text: String = body.split_ascii_whitespace().collect();
        let der = STANDARD.decode(text).map_err(|_| Error::Malformed("certificates", "not base64"))?;
        found.push(CertificateDer::from(der));
        rest = next;
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roots_are_certificates() {
        assert!(Makers::from_pem("", "").is_err());
        assert!(Makers::from_pem("junk", "").is_err());
        assert!(Makers::from_pem(&format!("{BEGIN}\nAAAA\n{END}\n"), "").is_err());
        assert!(Makers::from_pem(&format!("{BEGIN}\nAAAA\n"), "").is_err());
        assert!(Makers::from_pem(&format!("{BEGIN}\n!\n{END}\n"), "").is_err());
    }
}
