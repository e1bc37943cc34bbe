//! The git repository whose files become part of a template's context.

use minijinja::Value;
use minijinja::value::Serde;

use super::expand::Expander;
use super::parameter::Missing;
use super::source::Kind;
use super::{RenderRequest, Template, TemplateError, merge};

/// A git repository that a build needs, and where its files go. Fetching it is the work of a job above, which gives what it
/// found out back in [`RenderRequest::computed`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckoutSpec {
    /// Where the repository is: a URL or a path.
    pub url: String,
    /// Which branch, tag or commit; the repository's own choice when empty.
    pub reference: String,
    /// The folder of the context that the files go to.
    pub prefix: String,
    /// The id of the secret that opens the repository, if it needs one.
    pub secret: Option<String>,
}

impl Template {
    /// Returns the repository that the template checks out with these parameters; `None` when it has none or its URL is empty.
    ///
    /// # Errors
    ///
    /// Fails when a parameter is wrong.
    pub fn checkout(&self, request: &RenderRequest) -> Result<Option<CheckoutSpec>, TemplateError> {
        if matches!(self.kind, Kind::Plain { .. }) {
            return Ok(None);
        }
        let merged = merge::merge(self, request, Missing::Refuse)?;
        let Some(checkout) = &merged.checkout else { return Ok(None) };
        let context =
            Value::from(Serde(serde_json::json!({ "params": merged.params(), "template": self.name })));
        let expander = Expander::new();
        let expand = |text: &str| expander.text(&merged.place(text), text, &context);
        let url = expand(&checkout.url)?;
        if url.is_empty() {
            return Ok(None);
        }
        Ok(Some(CheckoutSpec {
            url,
            reference: expand(&checkout.reference)?,
            prefix: checkout.prefix.clone(),
            secret: checkout.secret.clone(),
        }))
    }
}
