//! `kiln build`, which is also `build-snapshot`: a template becomes a snapshot.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use clap::{Args, ValueEnum};

use super::args::{ArgumentError, KeyValue, SecretArg, SecretSource, by_name};
use super::failure::CommandError;
use super::invocation::Invocation;
use super::paint::Paint;
use super::text::nearest;
use super::view::SnapshotView;
use super::{signals, summary};
use crate::base::config::{Config, Environment, Profile};
use crate::base::{ByteSize, ChannelName, ErrorKind, Length, SnapshotName, human_duration};
use crate::catalog::SnapshotRef;
use crate::docker::{Builder, NetworkMode, SecretValue};
use crate::snapshot::{
    BakeEvent, BakeReport, BakeSpec, BaseChoice, BuilderChoice, PullPolicy, Sizing, built_in_profile,
    built_in_profiles,
};
use crate::toolkit::Toolkit;

/// Examples for the help.
pub(super) const EXAMPLES: &str = "\
Examples:
  kiln build litellm
  kiln build litellm --base debian:trixie-slim --channel latest
  kiln build opencode --build-ca /usr/local/share/ca-certificates
  kiln build repo --set url=https://example.org/app.git --secret id=git_token,env=GIT_TOKEN
  kiln build ./my-template --profile daytona --cpu 2 --memory 4GiB --disk 8GiB
  kiln build litellm --json --log plain --output snapshot.env

In CI: --output FILE writes snapshot=, id=, name=, image=, tag=, digest= (where a registry has one), state= and reused= \
as KEY=VALUE lines, and takes away a file of an earlier run first. Where GITHUB_STEP_SUMMARY names a file, a summary in \
Markdown is added to it.

Defaults of --min-free, --profile, --build-ca, --ca-cert and --timeout may stand in the table [build] of kiln.toml.";

/// Arguments of `kiln build`.
#[derive(Debug, Clone, Args)]
pub(super) struct BuildArgs {
    /// A shipped template's name, a template folder, or a folder with a Dockerfile (a path contains a / or a .)
    #[arg(value_name = "TEMPLATE")]
    template: String,
    /// The snapshot's name [default: the template's]
    #[arg(long, value_name = "NAME")]
    name: Option<SnapshotName>,
    /// Give a parameter of the template a value; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    parameters: Vec<KeyValue>,
    /// Build on this image, or on a snapshot [default: the template's]
    #[arg(long, value_name = "IMAGE|snapshot:REF")]
    base: Option<BaseArg>,
    /// When to pull the base image
    #[arg(long, value_enum, value_name = "WHEN", default_value_t)]
    pull: PullArg,
    /// Build for this platform, such as linux/amd64 [default: the engine's]
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<String>,
    /// Bake CA certificates into the image; may be repeated
    #[arg(long = "ca-cert", value_name = "FILE|DIR", help_heading = "Certificates and secrets")]
    ca_certs: Vec<PathBuf>,
    /// Trust CA certificates while building and not in the image; may be repeated
    #[arg(long = "build-ca", value_name = "FILE|DIR", help_heading = "Certificates and secrets")]
    build_cas: Vec<PathBuf>,
    /// Give the build a secret from a file or a variable; may be repeated
    #[arg(
        long = "secret",
        value_name = "id=ID,src=FILE|env=NAME",
        help_heading = "Certificates and secrets"
    )]
    secrets: Vec<SecretArg>,
    /// Give an ARG of the Dockerfile a value; may be repeated
    #[arg(long = "build-arg", value_name = "KEY=VALUE", help_heading = "Dockerfile folders")]
    build_args: Vec<KeyValue>,
    /// Build up to this stage [default: the last one]
    #[arg(long, value_name = "STAGE", help_heading = "Dockerfile folders")]
    target: Option<String>,
    /// Send this folder as the build context, in place of the template's own
    #[arg(long, value_name = "DIR", help_heading = "Dockerfile folders")]
    context: Option<PathBuf>,
    /// The Dockerfile's path in its folder [default: Dockerfile]
    #[arg(long, value_name = "DOCKERFILE", help_heading = "Dockerfile folders")]
    file: Option<PathBuf>,
    /// Hold resources and image to a provider's ceilings: daytona, e2b, or one of kiln.toml
    #[arg(long, value_name = "PROFILE", help_heading = "Resources and limits")]
    profile: Option<String>,
    /// CPUs of a sandbox
    #[arg(long, value_name = "N", help_heading = "Resources and limits")]
    cpu: Option<u32>,
    /// Memory of a sandbox, such as 4GiB
    #[arg(long, value_name = "SIZE", help_heading = "Resources and limits")]
    memory: Option<ByteSize>,
    /// Disk of a sandbox, such as 10GiB
    #[arg(long, value_name = "SIZE", help_heading = "Resources and limits")]
    disk: Option<ByteSize>,
    /// Largest image
    #[arg(long, value_name = "SIZE", help_heading = "Resources and limits")]
    max_image: Option<ByteSize>,
    /// Largest build context
    #[arg(long, value_name = "SIZE", help_heading = "Resources and limits")]
    max_context: Option<ByteSize>,
    /// Most that the build's steps may write together
    #[arg(long, value_name = "SIZE", help_heading = "Resources and limits")]
    max_build_write: Option<ByteSize>,
    /// Free space that must stay on the engine's disk
    #[arg(long, value_name = "SIZE", help_heading = "Resources and limits")]
    min_free: Option<ByteSize>,
    /// Longest build, such as 30m
    #[arg(long, value_name = "DURATION", help_heading = "Resources and limits")]
    timeout: Option<Length>,
    /// Which builder of the engine builds
    #[arg(long, value_enum, value_name = "BUILDER", default_value_t)]
    builder: BuilderArg,
    /// The network of the build's steps
    #[arg(long, value_enum, value_name = "MODE", default_value_t)]
    network: NetworkArg,
    /// Bake also when there is an active snapshot, without the engine's cache
    #[arg(long)]
    rebuild: bool,
    /// Bake anew when the snapshot is older, such as 7d [default: the template's]
    #[arg(long, value_name = "DURATION")]
    max_age: Option<Length>,
    /// Register the image as unchecked, without booting it; an unchecked snapshot is never promoted
    #[arg(long)]
    skip_checks: bool,
    /// Let a channel of the name hold the snapshot, such as latest; may be repeated
    #[arg(long = "channel", value_name = "CHANNEL", help_heading = "Registration")]
    channels: Vec<ChannelName>,
    /// Say that the snapshot is not needed after this time, such as 30d
    #[arg(long, value_name = "DURATION", help_heading = "Registration")]
    ttl: Option<Length>,
    /// Give the snapshot a label; may be repeated
    #[arg(long = "label", value_name = "KEY=VALUE", help_heading = "Registration")]
    labels: Vec<KeyValue>,
    /// Write what was made to a file, as KEY=VALUE lines
    #[arg(long, value_name = "FILE", help_heading = "Registration")]
    output: Option<PathBuf>,
}

/// `IMAGE` or `snapshot:REF`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct BaseArg(pub(super) BaseChoice);

impl FromStr for BaseArg {
    type Err = ArgumentError;

    fn from_str(text: &str) -> Result<Self, ArgumentError> {
        match text.strip_prefix("snapshot:") {
            Some(reference) => SnapshotRef::from_str(reference)
                .map(|reference| Self(BaseChoice::Snapshot(reference)))
                .map_err(|error| ArgumentError(error.to_string())),
            None if text.is_empty() => Err(ArgumentError("the image has no name".to_owned())),
            None => Ok(Self(BaseChoice::Image(text.to_owned()))),
        }
    }
}

/// Words of `--pull`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum PullArg {
    /// When it is not on the engine.
    #[default]
    Missing,
    /// Before every bake.
    Always,
    /// Never.
    Never,
}

/// Words of `--builder`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum BuilderArg {
    /// BuildKit where the engine has it, else the classic builder if it can do what the Dockerfile needs.
    #[default]
    Auto,
    /// BuildKit, or a refusal.
    Buildkit,
    /// The classic builder, or a refusal.
    Classic,
}

/// Words of `--network`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum NetworkArg {
    /// The engine's bridge.
    #[default]
    Default,
    /// The engine host's own network.
    Host,
    /// Loopback only.
    None,
}

/// Bakes, and prints the record.
pub(super) async fn run(invocation: &Invocation, arguments: &BuildArgs) -> Result<(), CommandError> {
    let toolkit = invocation.toolkit().await?;
    let spec = spec(arguments, toolkit.config(), &invocation.environment)?;
    let workbench = toolkit.workbench()?;
    if let Some(file) = &arguments.output {
        summary::clear_outputs(file)?;
    }
    let progress = Arc::new(invocation.progress::<BakeEvent>());
    let cancel = signals::watch({
        let progress = Arc::clone(&progress);
        move || progress.notice("cancelling", "cancelling; press Ctrl-C again to stop at once")
    })?;
    let baked = Box::pin(workbench.bake(&spec, progress.as_ref(), &cancel)).await;
    progress.finish();
    let report = baked?;
    let view = view(&toolkit, &report).await?;
    if let Some(file) = &arguments.output {
        let image = workbench.engine.image(&report.image.to_string()).await?;
        let digest = image.and_then(|image| image.repo_digests.into_iter().next());
        summary::write_outputs(file, &view, digest.as_deref())?;
    }
    if let Err(error) = summary::add_to_job(&invocation.environment, &view) {
        // The snapshot is registered; that a service could not be told is no reason to call it failed.
        progress.notice("job_summary", &format!("{}: {}", error.message, error.causes.join(": ")));
    }
    invocation.output.answer(&view, |paint| human(&view, &report, paint))
}

/// Makes what is printed of a bake.
pub(super) async fn view(toolkit: &Toolkit, report: &BakeReport) -> Result<SnapshotView, CommandError> {
    let channels = super::snapshot::channels_of_name(toolkit.catalog(), &report.snapshot.record.name).await?;
    let mut view = SnapshotView::new(&report.snapshot, &channels);
    view.reused = report.reused;
    // The first place may be another engine's; what counts here is where this bake put it.
    view.image = Some(report.image.to_string());
    view.tag = Some(report.tag.clone());
    view.notices.clone_from(&report.notices);
    Ok(view)
}

/// Tells a bake to people.
pub(super) fn human(view: &SnapshotView, report: &BakeReport, paint: Paint) -> String {
    let state = super::snapshot::painted_state(view.state, paint);
    let reused = if view.reused { " (reused)" } else { "" };
    let mut rows = vec![
        ("image", format!("{}  {}", report.image, ByteSize(view.size_bytes.unwrap_or(0)))),
        ("tag", report.tag.clone()),
        ("engine", report.engine.to_string()),
    ];
    let passed = view.checks.iter().filter(|check| check.passed == Some(true)).count();
    rows.push((
        "checks",
        match view.state {
            "unchecked" => "skipped".to_owned(),
            _ if view.checks.is_empty() => "none".to_owned(),
            _ => format!("{passed} passed"),
        },
    ));
    if let Some(timings) = view.timings.as_ref().filter(|_| !view.reused) {
        rows.push(("time", human_duration(std::time::Duration::from_millis(timings.total_ms))));
    }
    if !view.channels.is_empty() {
        rows.push(("channels", view.channels.join(", ")));
    }
    rows.extend(view.notices.iter().map(|notice| ("note", notice.clone())));
    let mut text = format!("{} {state}{reused}\n", paint.bold(&view.reference));
    for (name, value) in rows {
        text.push_str(&format!("  {name:<9} {value}\n"));
    }
    text
}

/// Makes a specification of arguments, defaults of the configuration, files and variables.
fn spec(arguments: &BuildArgs, config: &Config, environment: &Environment) -> Result<BakeSpec, CommandError> {
    let defaults = &config.build;
    let or_default = |given: &[PathBuf], default: &[PathBuf]| {
        if given.is_empty() { default.to_vec() } else { given.to_vec() }
    };
    let profile = match arguments.profile.as_ref().or(defaults.profile.as_ref()) {
        Some(name) => Some((name.clone(), profile(name, config)?)),
        None => None,
    };
    Ok(BakeSpec {
        template: arguments.template.clone(),
        name: arguments.name.clone(),
        parameters: by_name(&arguments.parameters),
        base: arguments.base.clone().map(|base| base.0),
        pull: match arguments.pull {
            PullArg::Missing => PullPolicy::Missing,
            PullArg::Always => PullPolicy::Always,
            PullArg::Never => PullPolicy::Never,
        },
        platform: arguments.platform.clone(),
        ca_certs: or_default(&arguments.ca_certs, &defaults.ca_cert),
        build_cas: or_default(&arguments.build_cas, &defaults.build_ca),
        secrets: secrets(&arguments.secrets, environment)?,
        build_args: by_name(&arguments.build_args),
        target: arguments.target.clone(),
        context: arguments.context.clone(),
        file: arguments.file.clone(),
        profile,
        sizing: Sizing {
            cpu: arguments.cpu,
            memory: arguments.memory,
            disk: arguments.disk,
            max_image: arguments.max_image,
            max_context: arguments.max_context,
            max_build_write: arguments.max_build_write,
            timeout: arguments.timeout.or(defaults.timeout),
        },
        min_free: arguments.min_free.or(defaults.min_free),
        builder: match arguments.builder {
            BuilderArg::Auto => BuilderChoice::Auto,
            BuilderArg::Buildkit => BuilderChoice::Only(Builder::Buildkit),
            BuilderArg::Classic => BuilderChoice::Only(Builder::Classic),
        },
        network: match arguments.network {
            NetworkArg::Default => NetworkMode::Default,
            NetworkArg::Host => NetworkMode::Host,
            NetworkArg::None => NetworkMode::None,
        },
        rebuild: arguments.rebuild,
        max_age: arguments.max_age,
        skip_checks: arguments.skip_checks,
        channels: arguments.channels.clone(),
        ttl: arguments.ttl,
        labels: by_name(&arguments.labels),
    })
}

/// Returns a profile by name: one of the configuration, which may take the place of a built-in one, or a built-in one.
pub(super) fn profile(name: &str, config: &Config) -> Result<Profile, CommandError> {
    if let Some(profile) = config.profile.get(name).cloned().or_else(|| built_in_profile(name)) {
        return Ok(profile);
    }
    let built_in = built_in_profiles();
    let known: Vec<&str> =
        config.profile.keys().map(String::as_str).chain(built_in.iter().map(|(name, _)| *name)).collect();
    let hint = match nearest(name, known.iter().copied()) {
        Some(nearest) => format!("did you mean `{nearest}`?"),
        None => format!("profiles are {}; own ones stand in kiln.toml", known.join(", ")),
    };
    Err(CommandError::invalid(format!("there is no profile `{}`", name.escape_debug())).with_hint(hint))
}

fn secrets(
    arguments: &[SecretArg],
    environment: &Environment,
) -> Result<BTreeMap<String, SecretValue>, CommandError> {
    let mut secrets = BTreeMap::new();
    for secret in arguments {
        let value = match &secret.source {
            SecretSource::File(path) => read_secret(&secret.id, path)?,
            SecretSource::Variable(name) => {
                environment.get(name).map(|value| value.as_bytes().to_vec()).ok_or_else(|| {
                    CommandError::invalid(format!(
                        "the variable `{name}` of the secret `{}` is not set",
                        secret.id
                    ))
                })?
            }
        };
        if secrets.insert(secret.id.clone(), SecretValue::new(value)).is_some() {
            return Err(CommandError::invalid(format!("the secret `{}` is given twice", secret.id)));
        }
    }
    Ok(secrets)
}

/// Reads a secret's file as it is: a line break at its end belongs to it, as it does for `docker build`.
fn read_secret(id: &str, path: &Path) -> Result<Vec<u8>, CommandError> {
    std::fs::read(path).map_err(|error| {
        let message = format!("cannot read `{}`, the file of the secret `{id}`", path.display());
        CommandError::io(ErrorKind::Invalid, message, &error)
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(Debug, clap::Parser)]
    struct Line {
        #[command(flatten)]
        build: BuildArgs,
    }

    fn spec_of(words: &[&str], config: &Config, environment: &Environment) -> Result<BakeSpec, CommandError> {
        let line = Line::try_parse_from(["build", "litellm"].iter().chain(words)).unwrap();
        spec(&line.build, config, environment)
    }

    fn config(text: &str) -> Config {
        toml::from_str(text).unwrap()
    }

    #[test]
    fn the_configuration_fills_in_what_was_not_given() {
        let config = config(
            "[build]\nmin_free = \"3GiB\"\nprofile = \"e2b\"\nbuild_ca = [\"/cas\"]\nca_cert = [\"/own.crt\"]\ntimeout = \"5m\"",
        );
        let none = Environment::default();
        let filled = spec_of(&[], &config, &none).unwrap();
        assert_eq!(filled.min_free, Some(ByteSize(3 * ByteSize::GIB)));
        assert_eq!(filled.profile.unwrap().0, "e2b");
        assert_eq!(filled.build_cas, [PathBuf::from("/cas")]);
        assert_eq!(filled.ca_certs, [PathBuf::from("/own.crt")]);
        assert_eq!(filled.sizing.timeout, Some(Length::seconds(300)));
        let words = ["--min-free", "1GiB", "--profile", "daytona", "--build-ca", "/x", "--timeout", "1m"];
        let given = spec_of(&words, &config, &none).unwrap();
        assert_eq!(given.min_free, Some(ByteSize(ByteSize::GIB)));
        assert_eq!(given.profile.unwrap().0, "daytona");
        assert_eq!(given.build_cas, [PathBuf::from("/x")]);
        assert_eq!(given.sizing.timeout, Some(Length::seconds(60)));
    }

    #[test]
    fn an_own_profile_takes_the_place_of_a_built_in_one_and_an_unknown_one_is_refused_with_the_nearest() {
        let own = config("[profile.daytona]\nmax_cpu = 16\n[profile.house]\nmax_cpu = 2");
        assert_eq!(profile("daytona", &own).unwrap().max_cpu, Some(16));
        assert_eq!(profile("house", &own).unwrap().max_cpu, Some(2));
        let error = profile("daytna", &Config::default()).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Invalid);
        assert_eq!(error.hint.as_deref(), Some("did you mean `daytona`?"));
    }

    #[test]
    fn secrets_come_from_files_byte_by_byte_and_from_variables() {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("token");
        crate::base::fs::write_durably(&file, b"of a file\n", crate::base::fs::Existing::Keep).unwrap();
        let environment = Environment::of([("TOKEN", "of a variable")]);
        let source = format!("id=a,src={}", file.display());
        let words = ["--secret", &source, "--secret", "id=b,env=TOKEN"];
        let spec = spec_of(&words, &Config::default(), &environment).unwrap();
        assert_eq!(spec.secrets["a"].expose(), b"of a file\n");
        assert_eq!(spec.secrets["b"].expose(), b"of a variable");
    }

    #[test]
    fn a_secret_that_cannot_be_read_is_named() {
        let environment = Environment::of([("TOKEN", "value of it")]);
        for (secrets, message) in [
            (
                &["id=a,src=/nonexistent/token"][..],
                "cannot read `/nonexistent/token`, the file of the secret `a`",
            ),
            (&["id=a,env=MISSING"][..], "the variable `MISSING` of the secret `a` is not set"),
            (&["id=a,env=TOKEN", "id=a,env=TOKEN"][..], "the secret `a` is given twice"),
        ] {
            let words: Vec<&str> = secrets.iter().flat_map(|secret| ["--secret", *secret]).collect();
            let error = spec_of(&words, &Config::default(), &environment).unwrap_err();
            assert_eq!((error.kind, error.message.as_str()), (ErrorKind::Invalid, message));
        }
    }

    #[test]
    fn a_base_is_an_image_or_a_snapshot() {
        let image = BaseChoice::Image("debian:12".into());
        assert_eq!("debian:12".parse::<BaseArg>().unwrap().0, image);
        let snapshot = BaseChoice::Snapshot("litellm:prod".parse().unwrap());
        assert_eq!("snapshot:litellm:prod".parse::<BaseArg>().unwrap().0, snapshot);
        assert!("snapshot:?".parse::<BaseArg>().is_err());
        assert!("".parse::<BaseArg>().is_err());
    }
}
