//! What an answer of an S3 server, or none, says about the server.

use std::error::Error;

use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};

use crate::objects::ServerProblem;

/// An answer that is no success, or the silence in its place.
#[derive(Debug)]
pub(super) struct Answer {
    /// The HTTP status, where there was an answer.
    pub(super) status: Option<u16>,
    /// The server's own word for what is wrong.
    pub(super) code: Option<String>,
    /// What is wrong.
    pub(super) problem: ServerProblem,
    was_cut: bool,
    text: String,
}

impl Answer {
    /// Reads the end of a request that did not succeed.
    pub(super) fn of<E>(error: &SdkError<E, HttpResponse>) -> Self
    where
        E: ProvideErrorMetadata + Error + Send + Sync + 'static,
    {
        let status = error.raw_response().map(|response| response.status().as_u16());
        let code = error.as_service_error().and_then(ProvideErrorMetadata::code).map(str::to_owned);
        let message = error.as_service_error().and_then(ProvideErrorMetadata::message).unwrap_or_default();
        let causes = chain_of(error);
        let problem = match (status, code.as_deref()) {
            // The credentials' own errors have no public type that can be asked for here.
            (None, _) if causes.contains("credential") => ServerProblem::Credentials,
            (None, _) if matches!(error, SdkError::ConstructionFailure(_)) => ServerProblem::Refused,
            (None, _) => ServerProblem::Unreachable,
            (Some(status), code) => problem_of(status, code.unwrap_or_default(), message),
        };
        let text = match (status, code.as_deref()) {
            (Some(status), Some(code)) if message.is_empty() => {
                format!("the server answered {status} {code}")
            }
            (Some(status), Some(code)) => format!("the server answered {status} {code}: {message}"),
            (Some(status), None) => format!("the server answered {status}, and not as S3 does"),
            (None, _) => causes,
        };
        Self { status, code, problem, was_cut: false, text: without_keys(&text) }
    }

    /// Makes the answer of a body that broke off.
    pub(super) fn cut(error: &(dyn Error + 'static)) -> Self {
        let text = format!("the answer broke off: {}", chain_of(error));
        Self {
            status: None,
            code: None,
            problem: ServerProblem::Unreachable,
            was_cut: true,
            text: without_keys(&text),
        }
    }

    /// Makes an answer of what a server says about one of several keys.
    pub(super) fn of_one_key(code: &str, message: &str) -> Self {
        let problem = match problem_of(0, code, message) {
            // Without a status, an unknown code says only that it failed.
            ServerProblem::Refused => ServerProblem::Failed,
            problem => problem,
        };
        let text = without_keys(&format!("the server answered {code}: {message}"));
        Self { status: None, code: Some(code.to_owned()), problem, was_cut: false, text }
    }

    /// Tells whether the server says that there is no such object. A 404 in other words may come from anybody.
    pub(super) fn is_no_object(&self) -> bool {
        matches!(self.code.as_deref(), Some("NoSuchKey" | "NotFound"))
    }

    /// Tells whether a body broke off that had begun well.
    pub(super) fn was_cut(&self) -> bool {
        self.was_cut
    }

    /// Tells whether the range begins behind the end of the object.
    pub(super) fn is_no_range(&self) -> bool {
        self.status == Some(416)
    }

    /// Tells whether the server does not know the request, so that another one for the same purpose may do.
    pub(super) fn is_not_implemented(&self) -> bool {
        let code = self.code.as_deref().unwrap_or_default();
        matches!(self.status, Some(405 | 501))
            || (self.status == Some(400)
                && ["MissingContentMD5", "InvalidRequest", "InvalidDigest", "BadDigest", "MalformedXML"]
                    .contains(&code))
            || ["NotImplemented", "MethodNotAllowed"].contains(&code)
    }

    /// Returns the text as the cause of an error.
    pub(super) fn into_source(self) -> Box<dyn Error + Send + Sync> {
        self.text.into()
    }
}

fn problem_of(status: u16, code: &str, message: &str) -> ServerProblem {
    match code {
        "InvalidAccessKeyId"
        | "SignatureDoesNotMatch"
        | "ExpiredToken"
        | "InvalidToken"
        | "InvalidClientTokenId"
        | "TokenRefreshRequired"
        | "RequestTimeTooSkewed" => ServerProblem::Credentials,
        // Garage says so of a key that it does not know, and of a signature that is wrong.
        "AccessDenied" if message.contains("No such key") || message.contains("signature") => {
            ServerProblem::Credentials
        }
        "AccessDenied" | "AllAccessDisabled" | "AccountProblem" => ServerProblem::Denied,
        "NoSuchBucket" => ServerProblem::NoBucket,
        "SlowDown"
        | "Throttling"
        | "ThrottlingException"
        | "TooManyRequests"
        | "RequestLimitExceeded"
        | "BandwidthLimitExceeded" => ServerProblem::Throttled,
        _ => match status {
            401 | 403 => ServerProblem::Denied,
            429 => ServerProblem::Throttled,
            // Not a failure of the server: the same request would end in the same way.
            300..=499 => ServerProblem::Refused,
            _ => ServerProblem::Failed,
        },
    }
}

/// Returns an error and its causes in one line, each said once.
fn chain_of(error: &(dyn Error + 'static)) -> String {
    let mut texts = vec![error.to_string()];
    for cause in crate::base::chain(error) {
        if !texts.iter().any(|text| text.contains(&cause)) {
            texts.push(cause);
        }
    }
    texts.join(": ")
}

/// Returns `text` without the words that look like an access key: servers repeat them in their answers.
fn without_keys(text: &str) -> String {
    let is_key = |word: &str| {
        word.len() >= 16
            && word.bytes().any(|b| b.is_ascii_digit())
            && word.bytes().any(|b| b.is_ascii_uppercase())
            && word.bytes().all(|b| b.is_ascii_alphanumeric())
    };
    text.split(' ')
        .map(|word| {
            let bare = word.trim_matches(|c: char| !c.is_ascii_alphanumeric());
            if is_key(bare) { word.replace(bare, "…") } else { word.to_owned() }
        })
        .collect::<Vec<_>>()
        .join(" ")
}
