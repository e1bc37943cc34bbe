//! One snapshot on one screen.

use std::collections::BTreeMap;
use std::time::Duration;

use clap::Args;
use jiff::Timestamp;

use super::{channels_of_name, painted_state};
use crate::base::{ByteSize, human_duration, now};
use crate::catalog::SnapshotRef;
use crate::cli::failure::CommandError;
use crate::cli::invocation::Invocation;
use crate::cli::paint::Paint;
use crate::cli::text::{age, cut, date, moment, table, until};
use crate::cli::view::{CaView, CheckView, SnapshotView};
use crate::toolkit::Toolkit;

/// Examples for the help.
pub(super) const EXAMPLES: &str = "\
Examples:
  kiln snapshot show litellm
  kiln snapshot show litellm:prod --packages
  kiln snapshot show litellm --dockerfile > Dockerfile
  kiln snapshot show litellm --json | jq '.checks[] | {name, passed}'";

/// Layers that are shown: more are rarely worth a look, and the screen ends.
const HEAVIEST: usize = 5;

/// Columns of an instruction or a reason: with what stands left of it, a line of 110.
const INSTRUCTION: usize = 84;

/// Arguments of `kiln snapshot show`.
#[derive(Debug, Args)]
pub(in crate::cli) struct ShowArgs {
    /// The snapshot
    #[arg(value_name = "REF")]
    reference: SnapshotRef,
    /// Show every package with its version
    #[arg(long)]
    packages: bool,
    /// Print the rendered Dockerfile, and nothing else
    #[arg(long)]
    dockerfile: bool,
}

/// Shows a snapshot.
pub(super) async fn run(
    invocation: &Invocation,
    toolkit: &Toolkit,
    arguments: &ShowArgs,
) -> Result<(), CommandError> {
    let snapshot = toolkit.catalog().resolve(&arguments.reference).await?;
    let channels = channels_of_name(toolkit.catalog(), &snapshot.record.name).await?;
    let view = SnapshotView::new(&snapshot, &channels);
    invocation.output.answer(&view, |paint| match arguments {
        ShowArgs { dockerfile: true, .. } => view.dockerfile.clone(),
        ShowArgs { packages, .. } => human(&view, *packages, now(), paint),
    })
}

fn human(view: &SnapshotView, packages: bool, now: Timestamp, paint: Paint) -> String {
    let mut screen = Screen { text: String::new(), paint };
    let reason = view.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
    screen.text.push_str(&format!(
        "{} {}{reason}\n",
        paint.bold(&view.reference),
        painted_state(view.state, paint)
    ));
    if !view.description.is_empty() {
        screen.text.push_str(&format!("{}\n", view.description));
    }
    screen.text.push('\n');
    identity(view, now, &mut screen);
    baked(view, now, &mut screen);
    places(view, now, &mut screen);
    layers(view, &mut screen);
    inventory(view, packages, &mut screen);
    checks(&view.checks, &mut screen);
    timings(view, &mut screen);
    if let Some(failure) = &view.failure {
        screen.rows("failure", failure.messages.iter().map(|message| paint.bad(message)));
    }
    screen.text
}

/// Lines of a name and a value each.
struct Screen {
    text: String,
    paint: Paint,
}

impl Screen {
    /// Adds a line; an empty value adds none.
    fn row(&mut self, name: &str, value: &str) {
        if !value.is_empty() {
            let name = self.paint.dim(&format!("{name:<12}"));
            self.text.push_str(&format!("{name}{value}\n"));
        }
    }

    /// Adds lines of which the first has the name.
    fn rows(&mut self, name: &str, values: impl IntoIterator<Item = String>) {
        for (index, value) in values.into_iter().enumerate() {
            self.row(if index == 0 { name } else { "" }, &value);
        }
    }
}

fn identity(view: &SnapshotView, now: Timestamp, screen: &mut Screen) {
    let size = view.size_bytes.map(|bytes| format!("  {}", ByteSize(bytes))).unwrap_or_default();
    screen.row("image", &view.image.as_ref().map(|image| format!("{image}{size}")).unwrap_or_default());
    screen.row("created", &format!("{} ({})", moment(view.created), age(now, view.created)));
    screen.row("template", &format!("{} ({})", view.template, view.components.join(", ")).replace(" ()", ""));
    screen.row("channels", &view.channels.join(", "));
    screen.row("pinned", if view.pinned { "yes" } else { "" });
    screen.row(
        "expires",
        &view.expires.map(|at| format!("{} ({})", moment(at), until(now, at))).unwrap_or_default(),
    );
    screen.row("labels", &pairs(&view.labels));
    screen.row("key", &view.snapshot_key);
}

fn baked(view: &SnapshotView, now: Timestamp, screen: &mut Screen) {
    let base = &view.base;
    let distro = view.distro.as_ref().map(|distro| {
        format!(", {} {} {}, Python {}", distro.family, distro.version, distro.codename, distro.python)
    });
    screen.row("base", &format!("{} ({}{})", base.reference, base.origin, distro.unwrap_or_default()));
    screen.row("", base.digest.as_deref().or(base.image.as_deref()).unwrap_or_default());
    screen.row("parameters", &pairs(&view.parameters));
    screen.row("build args", &pairs(&view.build_args));
    screen.row("secrets", &view.secret_ids.join(", "));
    if let Some(checkout) = &view.checkout {
        screen.row("checkout", &format!("{} at {} ({})", checkout.url, checkout.commit, checkout.reference));
    }
    screen.rows("CAs baked", view.baked_cas.iter().map(|ca| certificate(ca, now)));
    screen.rows("build CAs", view.build_cas.iter().map(|ca| certificate(ca, now)));
    let runtime = &view.runtime;
    let ports: Vec<String> = runtime.ports.iter().map(u16::to_string).collect();
    let ports = if ports.is_empty() { String::new() } else { format!(", ports {}", ports.join(" ")) };
    screen.row(
        "runtime",
        &format!("user {}, folder {}{ports}", or_image(&runtime.user), or_image(&runtime.workdir)),
    );
    screen.row("entrypoint", &runtime.entrypoint.join(" "));
    let resources = &view.resources;
    let profile = view.profile.as_ref().map(|profile| format!(" (profile {profile})")).unwrap_or_default();
    screen.row(
        "resources",
        &format!(
            "{} CPU, {} memory, {} disk{profile}",
            resources.cpu,
            ByteSize(resources.memory_bytes),
            ByteSize(resources.disk_bytes)
        ),
    );
}

fn certificate(ca: &CaView, now: Timestamp) -> String {
    format!(
        "{}, expires {} ({}), sha256 {}",
        ca.subject,
        date(ca.expires),
        until(now, ca.expires),
        ca.fingerprint
    )
}

fn places(view: &SnapshotView, now: Timestamp, screen: &mut Screen) {
    screen.rows(
        "places",
        view.places.iter().map(|place| {
            let used = place.last_used.map(|at| format!(", used {}", age(now, at))).unwrap_or_default();
            format!(
                "{} {} at {}, seen {}{used}",
                place.tag,
                place.state,
                place.endpoint,
                age(now, place.verified_at)
            )
        }),
    );
}

fn layers(view: &SnapshotView, screen: &mut Screen) {
    let mut layers: Vec<_> = view.layers.iter().filter(|layer| layer.size_bytes > 0).collect();
    layers.sort_by_key(|layer| std::cmp::Reverse(layer.size_bytes));
    let rest = layers.len().saturating_sub(HEAVIEST);
    screen.rows(
        "layers",
        layers.iter().take(HEAVIEST).map(|layer| {
            let instruction =
                if layer.instruction.is_empty() { "(the base)" } else { layer.instruction.as_str() };
            format!("{:>10}  {}", ByteSize(layer.size_bytes), cut(instruction, INSTRUCTION))
        }),
    );
    if rest > 0 {
        screen.row("", &format!("{:>10}  {rest} more", ""));
    }
}

fn inventory(view: &SnapshotView, all: bool, screen: &mut Screen) {
    let kinds = [("dpkg", &view.packages.dpkg), ("pip", &view.packages.pip), ("npm", &view.packages.npm)];
    let counts: Vec<String> = kinds
        .iter()
        .filter(|(_, packages)| !packages.is_empty())
        .map(|(kind, packages)| format!("{} {kind}", packages.len()))
        .collect();
    screen.row("packages", &counts.join(", "));
    if all {
        let rows: Vec<Vec<String>> = kinds
            .iter()
            .flat_map(|(kind, packages)| {
                let kind = format!("  {kind}");
                packages.iter().map(move |(name, version)| vec![kind.clone(), name.clone(), version.clone()])
            })
            .collect();
        screen.text.push_str(&table(&rows));
    }
}

fn checks(checks: &[CheckView], screen: &mut Screen) {
    let paint = screen.paint;
    screen.rows(
        "checks",
        checks.iter().map(|check| {
            let mark = match check.passed {
                Some(true) => paint.good("✓"),
                Some(false) => paint.bad("✗"),
                None => paint.dim("-"),
            };
            let took = check.ms.map(|ms| human_duration(Duration::from_millis(ms))).unwrap_or_default();
            let why = check
                .reason
                .as_ref()
                .map(|reason| format!(": {}", cut(reason, INSTRUCTION)))
                .unwrap_or_default();
            format!("{mark} {took:>6}  {}{why}", check.name)
        }),
    );
}

fn timings(view: &SnapshotView, screen: &mut Screen) {
    let Some(timings) = &view.timings else { return };
    let phases = [
        ("prepare", timings.prepare_ms),
        ("build", timings.build_ms),
        ("gate", timings.gate_ms),
        ("check", timings.check_ms),
        ("inventory", timings.inventory_ms),
    ];
    let human = |ms| human_duration(Duration::from_millis(ms));
    let phases: Vec<String> = phases.iter().map(|(name, ms)| format!("{name} {}", human(*ms))).collect();
    screen.row("time", &format!("{} ({})", human(timings.total_ms), phases.join(", ")));
}

fn pairs(map: &BTreeMap<String, String>) -> String {
    map.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(" ")
}

fn or_image(text: &str) -> &str {
    if text.is_empty() { "as the image has it" } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::view::tests::{sample, sample_channels, sample_now};

    #[test]
    fn a_snapshot_fits_one_screen() {
        let view = SnapshotView::new(&sample(), &sample_channels());
        let screen = human(&view, false, sample_now(), Paint::new(false));
        assert!(screen.lines().count() <= 40, "{screen}");
        insta::assert_snapshot!(screen, @r"
        litellm@01jqzzzzzzzzzzzzzzzzzzzzzz active
        LiteLLM with Postgres

        image       sha256:af2bdbe1aa9b6ec1e2ade1d694f41fc71a831d0268e9891562113d8a62add1bf  1.3 GiB
        created     2026-03-01 09:00:00 UTC (3h ago)
        template    litellm (apt, postgres)
        channels    prod
        pinned      yes
        expires     2026-03-03 14:00:00 UTC (in 2d)
        labels      team=ml
        key         af2bdbe1aa9b6ec1e2ade1d694f41fc71a831d0268e9891562113d8a62add1bf
        base        debian:bookworm-slim (local debootstrap, debian 12 bookworm, Python 3.11)
                    sha256:af2bdbe1aa9b6ec1e2ade1d694f41fc71a831d0268e9891562113d8a62add1bf
        parameters  prisma=false
        CAs baked   CN=Corp, expires 2030-01-02 (in 1402d), sha256 abababababababababababababababababababababababababababababababab
        runtime     user user, folder /home/user, ports 4000
        entrypoint  /usr/local/bin/kiln-entrypoint
        resources   2 CPU, 4.0 GiB memory, 10.0 GiB disk (profile daytona)
        places      kiln/litellm:01jqzzzzzz present at unix:///var/run/docker.sock, seen 2h ago, used 1h ago
        layers         1.2 GiB  RUN apt-get update
                     100.0 MiB  FROM debian
        packages    2 dpkg, 1 pip
        checks      ✓   0.1s  postgres-query
                    ✓   2.3s  litellm
                    ✓   0.9s  boot
        time        2m 14s (prepare 0.1s, build 2m 05s, gate 0.9s, check 8.0s, inventory 0.7s)
        ");
    }

    #[test]
    fn every_package_is_shown_when_asked_for() {
        let view = SnapshotView::new(&sample(), &[]);
        let screen = human(&view, true, sample_now(), Paint::new(false));
        assert!(screen.contains("  pip   litellm        1.60.0\n"), "{screen}");
    }
}
