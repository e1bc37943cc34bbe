//! The Dockerfile that a template becomes, and its context.

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use crate::base::now;
use crate::cli::args::{KeyValue, by_name};
use crate::cli::failure::CommandError;
use crate::cli::invocation::Invocation;
use crate::template::{self, CaCertificate, CaSet, Library, RenderRequest, Rendered};

/// Examples for the help.
pub(super) const EXAMPLES: &str = "\
Examples:
  kiln template render litellm
  kiln template render litellm --base debian:trixie-slim -o out && docker build out
  kiln template render ./my-template --set python=3.12

Without -o the Dockerfile is printed; with it the whole context is written to a folder that is empty or holds an \
earlier render of the same template.";

/// What a template is rendered with, as `lint` takes it too.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct RequestArgs {
    /// Give a parameter of the template a value; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    parameters: Vec<KeyValue>,
    /// Build on this image [default: the template's]
    #[arg(long, value_name = "IMAGE")]
    base: Option<String>,
    /// Bake CA certificates into the image; may be repeated
    #[arg(long = "ca-cert", value_name = "FILE|DIR")]
    ca_certs: Vec<PathBuf>,
    /// Trust CA certificates while building and not in the image; may be repeated
    #[arg(long = "build-ca", value_name = "FILE|DIR")]
    build_cas: Vec<PathBuf>,
}

/// Arguments of `kiln template render`.
#[derive(Debug, Args)]
pub(in crate::cli) struct RenderArgs {
    /// A shipped template's name, a template folder, or a folder with a Dockerfile (a path contains a / or a .)
    #[arg(value_name = "TEMPLATE")]
    template: String,
    #[command(flatten)]
    request: RequestArgs,
    /// Write the Dockerfile and its context to this folder
    #[arg(long, short, value_name = "DIR")]
    output: Option<PathBuf>,
}

/// What was rendered.
#[derive(Debug, Serialize)]
struct RenderedView {
    template: String,
    base: String,
    dockerfile: String,
    /// Paths in the context, the Dockerfile not among them.
    files: Vec<String>,
    /// What was written.
    written: Vec<PathBuf>,
}

impl RequestArgs {
    /// Renders a template.
    pub(super) fn render(&self, name: &str) -> Result<Rendered, CommandError> {
        let template = Library::shipped().locate(name)?;
        Ok(template::render(&template, &self.request()?)?)
    }

    fn request(&self) -> Result<RenderRequest, CommandError> {
        if self.base.as_ref().is_some_and(|base| base.starts_with("snapshot:")) {
            return Err(CommandError::invalid(
                "a snapshot as base is known to an engine only, and nothing is built here",
            )
            .with_hint("give an image, or use `kiln build`"));
        }
        Ok(RenderRequest {
            parameters: by_name(&self.parameters),
            base: self.base.clone(),
            baked_cas: certificates(&self.ca_certs)?,
            build_cas: certificates(&self.build_cas)?,
            ..RenderRequest::default()
        })
    }
}

fn certificates(paths: &[PathBuf]) -> Result<Vec<CaCertificate>, CommandError> {
    if paths.is_empty() { Ok(Vec::new()) } else { Ok(CaSet::load(paths, now())?) }
}

/// Renders a template.
pub(super) fn run(invocation: &Invocation, arguments: &RenderArgs) -> Result<(), CommandError> {
    let rendered = arguments.request.render(&arguments.template)?;
    let written = match &arguments.output {
        Some(folder) => template::export(&rendered, folder)?,
        None => Vec::new(),
    };
    let view = RenderedView {
        files: rendered.files.iter().map(|file| file.path.clone()).collect(),
        template: rendered.template,
        base: rendered.base,
        dockerfile: rendered.dockerfile,
        written,
    };
    invocation.output.answer(&view, |_| match &arguments.output {
        Some(folder) => format!("{} files written to {}", view.written.len(), folder.display()),
        None => view.dockerfile.clone(),
    })
}
