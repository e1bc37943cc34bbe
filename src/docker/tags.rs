//! The tags that a build will set, as they were before it: for the build that is stopped when its image is already there.

use hyper::Method;
use serde::Deserialize;

use super::http::{Http, HttpError, empty, percent_encoded, query};
use super::steps::Steps;

/// Tags with the images that they named before the build.
#[derive(Debug)]
pub(super) struct Tags(Vec<(String, Option<String>)>);

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Image {
    id: String,
}

impl Tags {
    /// Looks where the tags are now.
    pub(super) async fn look(http: &Http, prefix: &str, tags: &[String]) -> Result<Self, HttpError> {
        let mut seen = Vec::with_capacity(tags.len());
        for tag in tags {
            seen.push((tag.clone(), named(http, prefix, tag).await?));
        }
        Ok(Self(seen))
    }

    /// Puts tags that have moved back to where they were, and removes what has lost its last tag by it.
    pub(super) async fn put_back(&self, http: &Http, prefix: &str, steps: &Steps<'_>) {
        for (tag, before) in &self.0 {
            let back = async {
                let Some(now) = named(http, prefix, tag).await?.filter(|now| Some(now) != before.as_ref())
                else {
                    return Ok(());
                };
                let remove = match before {
                    None => tag,
                    Some(before) => {
                        let (repository, name) = split(tag);
                        let to = query(&[("repo", repository.to_owned()), ("tag", name.to_owned())]);
                        let path = format!("{prefix}/images/{before}/tag?{to}");
                        http.send(Method::POST, &path, &[], empty()).await?.accepted().await?;
                        &now
                    }
                };
                let path = format!("{prefix}/images/{}", encoded(remove));
                http.send(Method::DELETE, &path, &[], empty()).await?.accepted().await.map(drop)
            };
            match back.await {
                // An engine that is gone is reported as that, once.
                Ok(()) | Err(HttpError::Connect(_) | HttpError::Broken(_)) => {}
                Err(error @ (HttpError::Request(_) | HttpError::Status { .. } | HttpError::Answer(_))) => {
                    steps.warn("tag_moved", &format!("the stopped build's image stays as `{tag}`: {error}"));
                }
            }
        }
    }
}

/// Returns the image that a tag names.
async fn named(http: &Http, prefix: &str, tag: &str) -> Result<Option<String>, HttpError> {
    match http.json::<Image>(Method::GET, &format!("{prefix}/images/{}/json", encoded(tag))).await {
        Ok(image) => Ok(Some(image.id)),
        // A reference that is none is refused by the build, with better words.
        Err(HttpError::Status { status: 400 | 404, .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Splits a reference into repository and tag.
pub(super) fn split(reference: &str) -> (&str, &str) {
    match reference.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => (repository, tag),
        Some(_) | None => (reference, "latest"),
    }
}

/// Writes a reference into a path: its slashes and colons stay.
fn encoded(reference: &str) -> String {
    percent_encoded(reference.as_bytes()).replace("%2F", "/").replace("%3A", ":").replace("%40", "@")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_split_at_their_tag() {
        for (reference, parts) in [
            ("a", ("a", "latest")),
            ("a:1", ("a", "1")),
            ("host:5000/a", ("host:5000/a", "latest")),
            ("host:5000/a:1", ("host:5000/a", "1")),
        ] {
            assert_eq!(split(reference), parts);
        }
    }
}
