//! Settings, credentials, certificates, repetitions and timeouts of a client for an S3 server.

use std::time::Duration;

use aws_config::environment::EnvironmentVariableRegionProvider;
use aws_config::meta::region::RegionProviderChain;
use aws_config::profile::ProfileFileRegionProvider;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{
    BehaviorVersion, Credentials, Region, RequestChecksumCalculation, ResponseChecksumValidation,
    SharedHttpClient, StalledStreamProtectionConfig,
};
use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore};
use aws_smithy_http_client::{Builder, ConnectorBuilder};

use crate::objects::{ObjectsError, S3Url};

/// How long a client waits for its server and how often it tries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct S3Patience {
    /// Most tries of one request, the first included. Pauses between them grow and are drawn by lot.
    pub attempts: u32,
    /// Longest pause before the second try; it doubles with each one, up to 20 s.
    pub first_pause: Duration,
    /// Longest wait for a connection.
    pub connect: Duration,
    /// Longest wait for an answer to a small request, and for the next byte of a body.
    pub answer: Duration,
    /// Slowest upload that is not taken for a dead one, in bytes a second.
    pub slowest_upload: u64,
}

impl Default for S3Patience {
    fn default() -> Self {
        Self {
            attempts: 6,
            first_pause: Duration::from_millis(200),
            connect: Duration::from_secs(5),
            answer: Duration::from_secs(30),
            // A part of 8 MiB then has two minutes, and half a minute for the answer.
            slowest_upload: 64 << 10,
        }
    }
}

impl S3Patience {
    /// Returns how long one try of a request with `bytes` in its body may take until the answer begins.
    pub(super) fn for_upload(&self, bytes: u64) -> Duration {
        self.answer + Duration::from_secs(bytes / self.slowest_upload.max(1))
    }

    pub(super) fn timeouts(&self, bytes: u64) -> TimeoutConfig {
        let attempt = self.for_upload(bytes);
        TimeoutConfig::builder()
            .connect_timeout(self.connect)
            .read_timeout(attempt)
            .operation_attempt_timeout(attempt)
            .build()
    }
}

/// What the URL of an S3 store does not say.
#[derive(Debug, Clone, Default)]
pub struct S3Options {
    /// The credentials; `None` takes those that the AWS tools would take: environment, profile, web identity, container, instance.
    pub credentials: Option<Credentials>,
    /// How long to wait.
    pub patience: S3Patience,
}

/// Makes a client. Sends nothing to the server; may ask for the region of this machine where neither the URL nor the
/// environment names it.
pub(super) async fn client(url: &S3Url, options: &S3Options) -> Result<Client, ObjectsError> {
    let settings = |reason: &str| ObjectsError::Settings {
        store: url.to_string(),
        reason: reason.to_owned(),
        source: None,
    };
    let region = region(url)
        .await
        .ok_or_else(|| settings("no region is known; give `region=` in its URL, or set AWS_REGION"))?;
    let patience = &options.patience;
    let mut loader = aws_config::defaults(BehaviorVersion::latest()).region(region);
    if let Some(credentials) = options.credentials.clone() {
        loader = loader.credentials_provider(credentials);
    }
    let http = match url.ca() {
        Some(path) => Some(trusting(url, path).await?),
        None => None,
    };
    if let Some(http) = http {
        loader = loader.http_client(http);
    }
    let shared = Box::pin(loader.load()).await;
    let mut config = aws_sdk_s3::config::Builder::from(&shared)
        .force_path_style(url.path_style())
        // Many servers refuse or mistake the trailing checksums of the newer default.
        .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
        .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
        .retry_config(
            RetryConfig::standard()
                .with_max_attempts(patience.attempts)
                .with_initial_backoff(patience.first_pause)
                .with_max_backoff(Duration::from_secs(20)),
        )
        .timeout_config(patience.timeouts(0))
        .stalled_stream_protection(
            StalledStreamProtectionConfig::enabled().grace_period(patience.answer).build(),
        );
    if let Some(endpoint) = url.endpoint() {
        config = config.endpoint_url(endpoint);
    }
    Ok(Client::from_conf(config.build()))
}

async fn region(url: &S3Url) -> Option<Region> {
    if let Some(region) = url.region() {
        return Some(Region::new(region.to_owned()));
    }
    if url.endpoint().is_none() {
        return Box::pin(RegionProviderChain::default_provider().region()).await;
    }
    // The region of the machine says nothing about another server, so the metadata service is not asked.
    let chain = RegionProviderChain::first_try(EnvironmentVariableRegionProvider::new())
        .or_else(ProfileFileRegionProvider::new())
        .or_else(Region::from_static("us-east-1"));
    Box::pin(chain.region()).await
}

/// Makes an HTTP client that trusts the certificates in the file at `path` beside those of this host.
async fn trusting(url: &S3Url, path: &std::path::Path) -> Result<SharedHttpClient, ObjectsError> {
    let reason = format!("the CA file `{}` cannot be read", path.display());
    let pem = tokio::fs::read(path).await.map_err(|source| ObjectsError::Settings {
        store: url.to_string(),
        reason,
        source: Some(source.into()),
    })?;
    let wrong = |reason: &str| ObjectsError::Settings {
        store: url.to_string(),
        reason: format!("the CA file `{}` {reason}", path.display()),
        source: None,
    };
    // Looked at here, because the client itself would stop the program over a certificate that it cannot read.
    let mut certificates = 0;
    for block in x509_parser::pem::Pem::iter_from_buffer(&pem) {
        let block = block.map_err(|_not_pem| wrong("is not in PEM"))?;
        if block.label.contains("PRIVATE KEY") {
            return Err(wrong("holds a private key"));
        }
        block.parse_x509().map_err(|_not_x509| wrong("holds something that is no certificate"))?;
        certificates += 1;
    }
    if certificates == 0 {
        return Err(wrong("holds no certificate"));
    }
    let context = TlsContext::builder()
        .with_trust_store(TrustStore::default().with_pem_certificate(pem))
        .build()
        .map_err(|source| ObjectsError::Settings {
            store: url.to_string(),
            reason: format!("the CA file `{}` cannot be used", path.display()),
            source: Some(source.into()),
        })?;
    Ok(Builder::new().build_with_connector_fn(move |settings, components| {
        let mut connector = ConnectorBuilder::default()
            .tls_provider(Provider::Rustls(CryptoMode::AwsLc))
            .tls_context(context.clone());
        connector.set_connector_settings(settings.cloned());
        connector.set_proxy_config(Some(ProxyConfig::from_env()));
        if let Some(components) = components {
            connector.set_sleep_impl(components.sleep_impl());
        }
        connector.build()
    }))
}
