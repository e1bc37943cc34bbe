//! What lies in an image, as a table, as JSON and as a page.

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use crate::base::fs::{Existing, write_durably};
use crate::base::{ByteSize, ErrorKind};
use crate::catalog::{CatalogError, SnapshotRef};
use crate::cli::failure::CommandError;
use crate::cli::invocation::Invocation;
use crate::cli::paint::Paint;
use crate::cli::text::{cut, table};
use crate::cli::watched::watched_to_the_end;
use crate::docker::ImageInfo;
use crate::image::contents::{HeavyPath, ImageContents, MapNode, examine};
use crate::snapshot::BakeEvent;
use crate::toolkit::Toolkit;

/// Examples for the help.
pub(super) const EXAMPLES: &str = "\
Examples:
  kiln image layers litellm
  kiln image layers litellm:prod --html layers.html
  kiln image layers debian:bookworm-slim --json | jq '.wasted[] | {path, bytes}'

REF is a snapshot (name, name@id, name:channel or id) whose image is on this engine, or any image of the engine. The image is streamed \
and never unpacked. Wasted are files that a later layer overwrites or deletes: they stay in the image and nobody sees them. The page of \
--html needs nothing but a browser.";

/// Columns of an instruction: with what stands left of it, a line of 110.
const INSTRUCTION: usize = 70;

/// Arguments of `kiln image layers`.
#[derive(Debug, Args)]
pub(in crate::cli) struct LayersArgs {
    /// A snapshot, or an image of the engine
    #[arg(value_name = "REF")]
    reference: String,
    /// Also write a page with a map of the image
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// How many files, directories and wasted paths are named
    #[arg(long, value_name = "N", default_value_t = 15)]
    top: usize,
}

#[derive(Debug, Serialize)]
struct ContentsView {
    reference: String,
    image: String,
    bytes: u64,
    visible_bytes: u64,
    visible_files: u64,
    wasted_bytes: u64,
    wasted_base_bytes: u64,
    wasted_paths: u64,
    layers: Vec<LayerView>,
    wasted: Vec<WastedView>,
    directories: Vec<HeavyView>,
    files: Vec<HeavyView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    html: Option<String>,
}

#[derive(Debug, Serialize)]
struct LayerView {
    instruction: String,
    diff_id: String,
    bytes: u64,
    files: u64,
    wasted_bytes: u64,
    base: Option<bool>,
}

#[derive(Debug, Serialize)]
struct WastedView {
    path: String,
    bytes: u64,
    times: u64,
    deleted: bool,
}

#[derive(Debug, Serialize)]
struct HeavyView {
    path: String,
    bytes: u64,
    files: u64,
    /// Counted from 0, as in `layers`.
    layer: u16,
}

/// What the page draws.
#[derive(Serialize)]
struct PageView<'a> {
    #[serde(flatten)]
    contents: &'a ContentsView,
    map: MapView<'a>,
}

#[derive(Serialize)]
struct MapView<'a> {
    name: &'a str,
    bytes: u64,
    files: u64,
    layer: u16,
    together: u64,
    parts: Vec<Self>,
}

/// An image of the engine, and the layers of what it was built on, where that is known.
struct Chosen {
    reference: String,
    tag: String,
    image: ImageInfo,
    base: Option<Vec<String>>,
}

/// Examines an image, and prints what lies in it.
pub(super) async fn run(invocation: &Invocation, arguments: &LayersArgs) -> Result<(), CommandError> {
    let toolkit = invocation.toolkit().await?;
    let chosen = choose(&toolkit, &arguments.reference).await?;
    let engine = toolkit.workbench()?.engine;
    let contents = watched_to_the_end::<BakeEvent, _, _>(invocation, async |_, cancel| {
        examine(&*engine, &chosen.tag, chosen.base.as_deref(), arguments.top, cancel).await
    })
    .await?;
    let mut view = ContentsView::new(&chosen, &contents);
    if let Some(file) = &arguments.html {
        let page = page(&view, &contents.map)?;
        write_durably(file, page.as_bytes(), Existing::Replace).map_err(|error| {
            CommandError::io(ErrorKind::Internal, format!("cannot write `{}`", file.display()), &error)
        })?;
        view.html = Some(file.display().to_string());
    }
    if contents.outside > 0 {
        invocation
            .note(&format!("{} names in layers lead out of the image and are not counted", contents.outside));
    }
    invocation.output.answer(&view, |paint| human(&view, paint))
}

/// Finds a snapshot's image, or an image of the engine.
async fn choose(toolkit: &Toolkit, text: &str) -> Result<Chosen, CommandError> {
    let workbench = toolkit.workbench()?;
    let mut lacking = None;
    if let Ok(reference) = text.parse::<SnapshotRef>() {
        match toolkit.catalog().resolve(&reference).await {
            Ok(snapshot) => {
                let tag = format!("kiln/{}:{}", snapshot.record.name, snapshot.id());
                if let Some(image) = workbench.engine.image(&tag).await? {
                    let base = match snapshot.record.base.image {
                        Some(id) => workbench.engine.image(&id.to_string()).await?.map(|base| base.layers),
                        None if snapshot.record.base.origin == "scratch" => Some(Vec::new()),
                        None => None,
                    };
                    return Ok(Chosen { reference: snapshot.reference(), tag, image, base });
                }
                lacking = Some(snapshot.reference());
            }
            Err(CatalogError::NotFound { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    match (workbench.engine.image(text).await?, lacking) {
        (Some(image), _) => {
            Ok(Chosen { reference: text.to_owned(), tag: text.to_owned(), image, base: None })
        }
        (None, Some(reference)) => {
            let message = format!("the image of {reference} is not on this engine");
            Err(CommandError::of(ErrorKind::NotFound, message)
                .with_hint("`kiln snapshot ensure` brings it back"))
        }
        (None, None) => {
            let message = format!("there is no snapshot and no image `{}`", text.escape_debug());
            Err(CommandError::of(ErrorKind::NotFound, message)
                .with_hint("`kiln snapshot list` and `docker images` show what there is"))
        }
    }
}

impl ContentsView {
    fn new(chosen: &Chosen, contents: &ImageContents) -> Self {
        let (wasted_base_bytes, wasted_bytes) = contents.wasted_bytes();
        let heavy = |paths: &[HeavyPath]| {
            let told = paths.iter().map(|path| HeavyView {
                path: path.path.clone(),
                bytes: path.bytes,
                files: path.files,
                layer: path.layer,
            });
            told.collect::<Vec<_>>()
        };
        let layers = contents.layers.iter().map(|layer| LayerView {
            instruction: layer.instruction.clone(),
            diff_id: layer.diff_id.clone(),
            bytes: layer.bytes,
            files: layer.files,
            wasted_bytes: layer.wasted_bytes,
            base: layer.is_of_base,
        });
        let wasted = contents.wasted.iter().map(|path| WastedView {
            path: path.path.clone(),
            bytes: path.bytes,
            times: path.times,
            deleted: path.is_deleted,
        });
        Self {
            reference: chosen.reference.clone(),
            image: chosen.image.id.to_string(),
            bytes: contents.bytes,
            visible_bytes: contents.visible_bytes,
            visible_files: contents.visible_files,
            wasted_bytes,
            wasted_base_bytes,
            wasted_paths: contents.wasted_paths,
            layers: layers.collect(),
            wasted: wasted.collect(),
            directories: heavy(&contents.directories),
            files: heavy(&contents.files),
            html: None,
        }
    }
}

impl<'a> MapView<'a> {
    fn new(node: &'a MapNode) -> Self {
        let MapNode { name, bytes, files, layer, together, parts } = node;
        Self {
            name,
            bytes: *bytes,
            files: *files,
            layer: *layer,
            together: *together,
            parts: parts.iter().map(Self::new).collect(),
        }
    }
}

/// Makes the page. Nothing in the data can end the script that it stands in.
fn page(contents: &ContentsView, map: &MapNode) -> Result<String, CommandError> {
    let view = PageView { contents, map: MapView::new(map) };
    let data = serde_json::to_string(&view).map_err(|error| {
        CommandError::of(ErrorKind::Internal, format!("the page cannot be made: {error}"))
    })?;
    let data = data.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026");
    Ok(include_str!("page.html").replace("__DATA__", &data))
}

fn human(view: &ContentsView, paint: Paint) -> String {
    let size = |bytes: u64| ByteSize(bytes).to_string();
    let percent = (view.wasted_bytes + view.wasted_base_bytes).saturating_mul(100) / view.bytes.max(1);
    let mut text = format!("{}  {}\n", paint.bold(&view.reference), paint.dim(&view.image));
    text.push_str(&format!(
        "{} in {} layers; a container sees {} in {} files; {} wasted ({percent} %)",
        size(view.bytes),
        view.layers.len(),
        size(view.visible_bytes),
        view.visible_files,
        size(view.wasted_bytes + view.wasted_base_bytes),
    ));
    if view.wasted_base_bytes > 0 {
        text.push_str(&format!(", {} of it in the base image", size(view.wasted_base_bytes)));
    }
    text.push_str("\n\n");
    let head = |titles: &[&str]| titles.iter().map(|title| paint.bold(title)).collect::<Vec<_>>();
    let mut rows = vec![head(&["LAYER", "SIZE", "FILES", "WASTED", "INSTRUCTION"])];
    rows.extend(view.layers.iter().enumerate().map(|(number, layer)| {
        let instruction = if layer.instruction.is_empty() { "unknown" } else { &layer.instruction };
        vec![
            format!("{}{}", number + 1, if layer.base == Some(true) { " base" } else { "" }),
            size(layer.bytes),
            layer.files.to_string(),
            if layer.wasted_bytes > 0 { size(layer.wasted_bytes) } else { "-".to_owned() },
            cut(instruction, INSTRUCTION),
        ]
    }));
    text.push_str(&table(&rows));
    if !view.wasted.is_empty() {
        let mut rows = vec![head(&["WASTED", "TIMES", "", "PATH"])];
        rows.extend(view.wasted.iter().map(|path| {
            let what = if path.deleted { "deleted" } else { "overwritten" };
            vec![size(path.bytes), path.times.to_string(), what.to_owned(), path.path.clone()]
        }));
        text.push_str(&format!("\n{}", table(&rows)));
    }
    for (title, paths) in [("DIRECTORY", &view.directories), ("FILE", &view.files)] {
        if paths.is_empty() {
            continue;
        }
        let mut rows = vec![head(&["SIZE", "FILES", "LAYER", title])];
        rows.extend(paths.iter().map(|path| {
            vec![size(path.bytes), path.files.to_string(), (path.layer + 1).to_string(), path.path.clone()]
        }));
        text.push_str(&format!("\n{}", table(&rows)));
    }
    if let Some(html) = &view.html {
        text.push_str(&format!("\nThe map is in {html}"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(name: &str, bytes: u64) -> MapNode {
        MapNode { name: name.to_owned(), bytes, files: 1, layer: 0, together: 0, parts: Vec::new() }
    }

    fn view() -> ContentsView {
        ContentsView {
            reference: "a@1".to_owned(),
            image: "sha256:1".to_owned(),
            bytes: 3_000,
            visible_bytes: 2_000,
            visible_files: 2,
            wasted_bytes: 900,
            wasted_base_bytes: 100,
            wasted_paths: 1,
            layers: vec![LayerView {
                instruction: "RUN make".to_owned(),
                diff_id: "sha256:2".to_owned(),
                bytes: 3_000,
                files: 3,
                wasted_bytes: 900,
                base: Some(true),
            }],
            wasted: vec![WastedView { path: "/w".to_owned(), bytes: 900, times: 1, deleted: true }],
            directories: Vec::new(),
            files: vec![HeavyView { path: "/f".to_owned(), bytes: 1_500, files: 1, layer: 0 }],
            html: None,
        }
    }

    #[test]
    fn people_read_tables() {
        insta::assert_snapshot!(human(&view(), Paint::new(false)));
    }

    #[test]
    fn no_name_ends_the_script_that_it_stands_in() {
        let evil = "</script><script>alert(1)</script>&";
        let map = MapNode { parts: vec![part(evil, 1)], ..part("", 1) };
        let page = page(&view(), &map).unwrap();
        assert!(!page.contains("<script>alert"));
        assert!(!page.contains("__DATA__"));
        let from = page.find("id=\"data\">").unwrap() + "id=\"data\">".len();
        let data = &page[from..from + page[from..].find("</script>").unwrap()];
        let data: serde_json::Value = serde_json::from_str(data).unwrap();
        assert_eq!(data["map"]["parts"][0]["name"], evil);
    }
}
