//! The table of images.

use clap::Args;
use jiff::Timestamp;
use serde::Serialize;

use crate::base::{ByteSize, SnapshotName, now};
use crate::cli::failure::CommandError;
use crate::cli::invocation::Invocation;
use crate::cli::paint::Paint;
use crate::cli::text::{age, table};
use crate::image::{Hold, Inventory, Item, Use, Whose};

/// Examples for the help.
pub(super) const EXAMPLES: &str = "\
Examples:
  kiln image list
  kiln image list litellm
  kiln image list --json | jq '.images[] | select(.containers == []) | {tag, unique_bytes}'

UNIQUE is what no other image on the engine has; deleting an image frees no more than that, and less where the build cache has the \
same layers. An image of another store is listed as foreign, and never touched.";

/// Arguments of `kiln image list`.
#[derive(Debug, Args)]
pub(in crate::cli) struct ListArgs {
    /// Only images of these names
    #[arg(value_name = "NAME")]
    names: Vec<SnapshotName>,
}

/// The images on the wire.
#[derive(Debug, Serialize)]
struct ImagesView {
    engine: String,
    store: String,
    images: Vec<ImageView>,
    /// What this store's images take, each layer counted once.
    bytes: u64,
    /// What all images on the engine take, each layer counted once.
    engine_bytes: u64,
    /// What the build cache takes beside the layers that images have too.
    cache_bytes: u64,
    disk: Option<DiskView>,
    watched_since: Option<Timestamp>,
}

/// The engine's file system on the wire.
#[derive(Debug, Serialize)]
struct DiskView {
    total_bytes: u64,
    free_bytes: u64,
}

/// An image on the wire.
#[derive(Debug, Serialize)]
struct ImageView {
    /// The snapshot's id, or the image's where it is no snapshot's.
    id: String,
    name: String,
    /// The snapshot's state; `leftover` or `foreign` of images that are no snapshot's of this store.
    state: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    store: Option<String>,
    image: Option<String>,
    tag: Option<String>,
    other_tags: Vec<String>,
    size_bytes: Option<u64>,
    unique_bytes: Option<u64>,
    created: Option<Timestamp>,
    last_used: Option<Timestamp>,
    used_as: Option<Use>,
    pinned: bool,
    channels: Vec<ChannelView>,
    containers: Vec<String>,
    running: bool,
    expires: Option<Timestamp>,
}

/// A channel that holds an image, on the wire.
#[derive(Debug, Serialize)]
struct ChannelView {
    channel: String,
    hold: Hold,
}

impl ImageView {
    fn new(item: &Item) -> Self {
        let (facts, image) = (item.snapshot(), item.image.as_ref());
        let image_id = image.map(|image| image.id.to_string());
        let (state, store) = match &item.whose {
            Whose::Snapshot(facts) if image.is_none() => (format!("{}, vanished", facts.state), None),
            Whose::Snapshot(facts) => (facts.state.to_string(), None),
            Whose::Leftover { .. } => ("leftover".to_owned(), None),
            Whose::Foreign { store } => ("foreign".to_owned(), Some(store.clone())),
        };
        Self {
            id: facts.map(|facts| facts.id.to_string()).or_else(|| image_id.clone()).unwrap_or_default(),
            name: item.name.clone(),
            state,
            store,
            image: image_id,
            tag: image.and_then(|image| image.tag.clone()),
            other_tags: image.map(|image| image.beside.clone()).unwrap_or_default(),
            size_bytes: image.map(|image| image.size_bytes),
            unique_bytes: image.and_then(|image| image.unique_bytes),
            created: facts.map(|facts| facts.created).or_else(|| image.and_then(|image| image.created)),
            last_used: facts.map(|facts| facts.used),
            used_as: facts.map(|facts| facts.used_as),
            pinned: facts.is_some_and(|facts| facts.pinned),
            channels: facts
                .map_or(&[][..], |facts| &facts.channels)
                .iter()
                .map(|(channel, hold)| ChannelView { channel: channel.to_string(), hold: *hold })
                .collect(),
            containers: image.map(|image| image.containers.clone()).unwrap_or_default(),
            running: image.is_some_and(|image| image.runs),
            expires: facts.and_then(|facts| facts.expires),
        }
    }
}

impl ImagesView {
    fn new(inventory: &Inventory, names: &[SnapshotName]) -> Self {
        let mut images: Vec<ImageView> = inventory.items.iter().map(ImageView::new).collect();
        images.retain(|image| names.is_empty() || names.iter().any(|name| name.as_str() == image.name));
        images.sort_by(|a, b| (&a.name, b.created, &a.id).cmp(&(&b.name, a.created, &b.id)));
        let own_cache = inventory.cache.iter().filter(|record| !record.shared);
        Self {
            engine: inventory.engine.to_string(),
            store: inventory.store.to_string(),
            images,
            bytes: inventory.own_bytes(),
            engine_bytes: inventory.layers_bytes,
            cache_bytes: own_cache.map(|record| record.size_bytes).sum(),
            disk: inventory
                .disk
                .map(|disk| DiskView { total_bytes: disk.total_bytes, free_bytes: disk.free_bytes }),
            watched_since: inventory.watched_since,
        }
    }
}

/// Lists images.
pub(super) async fn run(invocation: &Invocation, arguments: &ListArgs) -> Result<(), CommandError> {
    let toolkit = invocation.toolkit().await?;
    let inventory = Box::pin(toolkit.images()?.look(now())).await?;
    let view = ImagesView::new(&inventory, &arguments.names);
    invocation.output.answer(&view, |paint| human(&view, now(), paint))
}

fn human(view: &ImagesView, now: Timestamp, paint: Paint) -> String {
    let mut text = String::new();
    if view.images.is_empty() {
        text.push_str("there is no image of any store\n");
    } else {
        let head = ["IMAGE", "STATE", "AGE", "USED", "SIZE", "UNIQUE", "HELD BY"];
        let mut rows = vec![head.map(|title| paint.bold(title)).to_vec()];
        rows.extend(view.images.iter().map(|image| row(image, now)));
        text.push_str(&table(&rows));
    }
    let free = view.disk.as_ref().map_or_else(String::new, |disk| {
        format!(", {} of {} free", ByteSize(disk.free_bytes), ByteSize(disk.total_bytes))
    });
    text.push_str(&format!(
        "{} in images of this store, {} in all images, {} in build cache{free}\n",
        ByteSize(view.bytes),
        ByteSize(view.engine_bytes),
        ByteSize(view.cache_bytes)
    ));
    text
}

fn row(image: &ImageView, now: Timestamp) -> Vec<String> {
    let dash = || "-".to_owned();
    let size = |bytes: Option<u64>| bytes.map_or_else(dash, |bytes| ByteSize(bytes).to_string());
    let time = |at: Option<Timestamp>| at.map_or_else(dash, |at| age(now, at));
    let mut held: Vec<String> = image.containers.iter().map(|name| format!("container {name}")).collect();
    if image.pinned {
        held.push("pin".to_owned());
    }
    held.extend(image.channels.iter().map(|it| match it.hold {
        Hold::Present => it.channel.clone(),
        Hold::Previous => format!("{} (before)", it.channel),
    }));
    held.extend(image.other_tags.iter().cloned());
    vec![
        short(&image.name, &image.id),
        image.state.clone(),
        time(image.created),
        time(image.last_used),
        size(image.size_bytes),
        size(image.unique_bytes),
        if held.is_empty() { dash() } else { held.join(", ") },
    ]
}

/// Returns a name with the beginning of an id.
pub(super) fn short(name: &str, id: &str) -> String {
    let id: String = id.trim_start_matches("sha256:").chars().take(10).collect();
    if name.is_empty() { id } else { format!("{name}@{id}") }
}
