//! Certificate files: split, checked, described. Whatever is not a usable CA is refused by its file's name.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use x509_parser::pem::Pem;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::error::shown;
use super::{CaSummary, TemplateError};
use crate::base::{ByteSize, Sha256Digest};

/// 8 MiB: forty times the bundle of all public CAs. Larger is no bundle.
const MOST: u64 = 8 * ByteSize::MIB;

/// A CA certificate that may be given to an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaCertificate {
    /// The certificate alone, as PEM with lines of 64 characters.
    pub pem: String,
    /// Its description.
    pub summary: CaSummary,
}

/// Reads sets of CA certificates.
#[derive(Debug, Clone, Copy)]
pub struct CaSet;

impl CaSet {
    /// Reads the certificates of files and folders (their `*.crt` and `*.pem`, sorted by name), in the order given, each
    /// certificate once. Bundles are split; PEM and DER are both fine.
    ///
    /// # Errors
    ///
    /// Fails on the first file that cannot be read, holds no certificate or something else beside certificates (a private
    /// key above all), or a certificate that is not valid at `now` or is no CA's. A folder without certificates is an error.
    pub fn load(paths: &[PathBuf], now: jiff::Timestamp) -> Result<Vec<CaCertificate>, TemplateError> {
        let mut certificates = Vec::new();
        let mut seen = BTreeSet::new();
        for path in paths {
            for file in files_of(path)? {
                for certificate in read(&file, now)? {
                    if seen.insert(certificate.summary.fingerprint.clone()) {
                        certificates.push(certificate);
                    }
                }
            }
        }
        Ok(certificates)
    }
}

fn refused(file: &Path, reason: impl Into<String>) -> TemplateError {
    TemplateError::Certificate { file: file.to_owned(), reason: reason.into() }
}

fn files_of(path: &Path) -> Result<Vec<PathBuf>, TemplateError> {
    let failed = |source| TemplateError::Read { path: path.to_owned(), source };
    if !fs::metadata(path).map_err(failed)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Vec::new();
    for entry in fs::read_dir(path).map_err(failed)? {
        let file = entry.map_err(failed)?.path();
        // A link that leads nowhere stays in, to be refused by name.
        if file.extension().is_some_and(|extension| extension == "crt" || extension == "pem")
            && !file.is_dir()
        {
            files.push(file);
        }
    }
    if files.is_empty() {
        return Err(refused(path, "is a folder without `*.crt` and `*.pem` files"));
    }
    files.sort();
    Ok(files)
}

fn read(file: &Path, now: jiff::Timestamp) -> Result<Vec<CaCertificate>, TemplateError> {
    let failed = |source| TemplateError::Read { path: file.to_owned(), source };
    let metadata = fs::metadata(file).map_err(failed)?;
    if !metadata.is_file() {
        return Err(refused(file, "is not a file"));
    }
    if metadata.len() > MOST {
        return Err(refused(file, format!("is larger than {} and so no certificate bundle", ByteSize(MOST))));
    }
    let bytes = fs::read(file).map_err(failed)?;
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Err(refused(file, "is empty"));
    }
    // Looked for in the raw bytes, so that no malformed block can hide one.
    if memchr::memmem::find(&bytes, b"PRIVATE KEY-----").is_some() {
        return Err(refused(file, "holds a private key, which must not get into an image"));
    }
    if memchr::memmem::find(&bytes, b"-----BEGIN").is_none() {
        return Ok(vec![certificate(file, &bytes, now)?]);
    }
    let mut certificates = Vec::new();
    for block in Pem::iter_from_buffer(&bytes) {
        let block = block.map_err(|error| refused(file, format!("is not valid PEM ({error})")))?;
        if !matches!(block.label.as_str(), "CERTIFICATE" | "X509 CERTIFICATE") {
            return Err(refused(file, format!("holds a `{}`, which is no certificate", shown(&block.label))));
        }
        certificates.push(certificate(file, &block.contents, now)?);
    }
    let begun = memchr::memmem::find_iter(&bytes, b"-----BEGIN").count();
    if certificates.len() != begun {
        return Err(refused(
            file,
            format!("is not valid PEM (of {begun} blocks, {} are whole)", certificates.len()),
        ));
    }
    Ok(certificates)
}

fn certificate(file: &Path, der: &[u8], now: jiff::Timestamp) -> Result<CaCertificate, TemplateError> {
    let parsed = match X509Certificate::from_der(der) {
        Ok(([], parsed)) => parsed,
        Ok((rest, _)) => {
            return Err(refused(file, format!("has {} bytes after a certificate", rest.len())));
        }
        Err(error) => {
            return Err(refused(file, format!("is not a certificate, neither PEM nor DER ({error})")));
        }
    };
    let subject = shown(&parsed.subject().to_string());
    let about =
        |reason: String| refused(file, format!("holds the certificate of `{subject}`, which {reason}"));
    let (begins, expires) =
        (parsed.validity().not_before.timestamp(), parsed.validity().not_after.timestamp());
    if now.as_second() < begins {
        return Err(about(format!("is not valid before {}", time(begins))));
    }
    if now.as_second() > expires {
        return Err(about(format!("expired at {}", time(expires))));
    }
    let constraints = parsed
        .basic_constraints()
        .map_err(|error| about(format!("has basic constraints that cannot be read ({error})")))?;
    if !constraints.is_some_and(|constraints| constraints.value.ca) {
        return Err(about("is not a CA's (its basic constraints do not say `CA:TRUE`)".to_owned()));
    }
    let summary = CaSummary {
        fingerprint: Sha256Digest::of(der).to_string(),
        expires: time(expires),
        file: file.to_owned(),
        subject,
    };
    Ok(CaCertificate { pem: pem_of(der), summary })
}

/// Returns a certificate's time; one past what can be counted (`99991231235959Z`: "never") is the last that can.
fn time(seconds: i64) -> jiff::Timestamp {
    jiff::Timestamp::from_second(seconds).unwrap_or(if seconds < 0 {
        jiff::Timestamp::MIN
    } else {
        jiff::Timestamp::MAX
    })
}

fn pem_of(der: &[u8]) -> String {
    let encoded = STANDARD.encode(der);
    let mut pem = String::from("-----BEGIN CERTIFICATE-----\n");
    let mut rest = encoded.as_str();
    while !rest.is_empty() {
        // Base64 is ASCII: every index is a boundary.
        let (line, tail) = rest.split_at(rest.len().min(64));
        pem.push_str(line);
        pem.push('\n');
        rest = tail;
    }
    pem.push_str("-----END CERTIFICATE-----\n");
    pem
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair};

    use super::*;
    use crate::base::fs::{Existing, write_durably};

    const NOW: &str = "2026-06-01T00:00:00Z";

    fn now() -> jiff::Timestamp {
        NOW.parse().unwrap()
    }

    struct Made {
        pem: String,
        der: Vec<u8>,
        key: String,
    }

    fn make(name: &str, change: impl FnOnce(&mut CertificateParams)) -> Made {
        let key = KeyPair::generate().unwrap();
        let mut parameters = CertificateParams::new(Vec::new()).unwrap();
        parameters.distinguished_name.push(DnType::CommonName, name);
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        parameters.not_before = rcgen::date_time_ymd(2026, 1, 1);
        parameters.not_after = rcgen::date_time_ymd(2027, 1, 1);
        change(&mut parameters);
        let certificate = parameters.self_signed(&key).unwrap();
        Made { pem: certificate.pem(), der: certificate.der().to_vec(), key: key.serialize_pem() }
    }

    fn folder(files: &[(&str, &[u8])]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, bytes) in files {
            write_durably(&folder.path().join(name), bytes, Existing::Keep).unwrap();
        }
        folder
    }

    fn load_one(bytes: &[u8]) -> Result<Vec<CaCertificate>, String> {
        let folder = folder(&[("x.crt", bytes)]);
        CaSet::load(&[folder.path().join("x.crt")], now())
            .map_err(|error| error.to_string().replace(&folder.path().display().to_string(), "DIR"))
    }

    #[test]
    fn pem_der_and_bundles_give_the_same_certificates() {
        let (one, two) = (make("one", |_| ()), make("two", |_| ()));
        let bundle = format!("# two of them\r\n{}\nand\n{}", one.pem.replace('\n', "\r\n"), two.pem);
        let of_bundle = load_one(bundle.as_bytes()).unwrap();
        let pems: Vec<_> = of_bundle.iter().map(|ca| ca.pem.clone()).collect();
        assert_eq!(pems, [one.pem.replace("\r\n", "\n"), two.pem.replace("\r\n", "\n")]);
        assert_eq!(load_one(&one.der).unwrap()[0].pem, pems[0]);
        assert!(of_bundle[0].summary.subject.contains("one"), "{:?}", of_bundle[0].summary);
        assert_eq!(of_bundle[0].summary.expires.to_string(), "2027-01-01T00:00:00Z");
        assert_eq!(of_bundle[0].summary.fingerprint, Sha256Digest::of(&one.der).to_string());
    }

    #[test]
    fn a_folder_is_read_in_order_and_each_certificate_once() {
        let (one, two) = (make("one", |_| ()), make("two", |_| ()));
        let folder = folder(&[
            ("b.crt", one.pem.as_bytes()),
            ("a.pem", two.pem.as_bytes()),
            ("c.crt", &two.der),
            ("readme.txt", b"no certificate"),
        ]);
        let loaded = CaSet::load(&[folder.path().to_owned(), folder.path().join("b.crt")], now()).unwrap();
        let names: Vec<_> = loaded.iter().map(|ca| ca.summary.file.file_name().unwrap().to_owned()).collect();
        assert_eq!(names, ["a.pem", "b.crt"]);
    }

    #[test]
    fn what_is_no_usable_ca_is_refused_by_name() {
        let good = make("good", |_| ());
        let leaf = make("leaf", |parameters| parameters.is_ca = IsCa::NoCa);
        let explicit = make("leaf", |parameters| parameters.is_ca = IsCa::ExplicitNoCa);
        let expired = make("old", |parameters| parameters.not_after = rcgen::date_time_ymd(2026, 5, 1));
        let early = make("early", |parameters| parameters.not_before = rcgen::date_time_ymd(2026, 7, 1));
        let with_key = format!("{}{}", good.pem, good.key);
        let broken = good.pem.replace("MII", "!!!");
        let cut = good.pem.split("-----END").next().unwrap().to_owned();
        let request = good.pem.replace("CERTIFICATE", "CERTIFICATE REQUEST");
        let second_is_leaf = format!("{}{}", good.pem, leaf.pem);
        let trailing = [&good.der[..], b"x"].concat();
        let cases: Vec<(&[u8], &str)> = vec![
            (leaf.pem.as_bytes(), "is not a CA's"),
            (explicit.pem.as_bytes(), "is not a CA's"),
            (second_is_leaf.as_bytes(), "is not a CA's"),
            (expired.pem.as_bytes(), "expired at 2026-05-01T00:00:00Z"),
            (early.pem.as_bytes(), "is not valid before 2026-07-01T00:00:00Z"),
            (with_key.as_bytes(), "holds a private key"),
            (good.key.as_bytes(), "holds a private key"),
            (broken.as_bytes(), "is not valid PEM"),
            (cut.as_bytes(), "is not valid PEM"),
            (request.as_bytes(), "holds a `CERTIFICATE REQUEST`"),
            (&trailing, "has 1 bytes after a certificate"),
            (b"garbage", "is not a certificate"),
            (b" \n", "is empty"),
            (b"", "is empty"),
        ];
        for (bytes, reason) in cases {
            let error = load_one(bytes).unwrap_err();
            assert!(error.starts_with("`DIR/x.crt` ") && error.contains(reason), "{reason}: {error}");
        }
    }

    #[test]
    fn a_missing_file_and_an_empty_folder_are_errors() {
        let folder = folder(&[]);
        assert!(matches!(
            CaSet::load(&[folder.path().join("none.crt")], now()),
            Err(TemplateError::Read { .. })
        ));
        assert!(matches!(
            CaSet::load(&[folder.path().to_owned()], now()),
            Err(TemplateError::Certificate { .. })
        ));
    }

    #[test]
    fn a_certificate_that_never_expires_is_fine() {
        let forever = make("ever", |parameters| parameters.not_after = rcgen::date_time_ymd(9999, 12, 31));
        assert_eq!(load_one(forever.pem.as_bytes()).unwrap()[0].summary.expires, jiff::Timestamp::MAX);
    }
}
