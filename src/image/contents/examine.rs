//! Examines an image.

use futures_util::StreamExt as _;
use tokio::sync::mpsc::channel;
use tokio_util::sync::CancellationToken;

use super::error::ContentsError;
use super::export::{self, Export};
use super::merge::{Merged, WastedPath};
use super::paths::ROOT;
use super::pieces::{Piece, Pieces};
use super::weigh::{HeavyPath, MapNode, Weights};
use crate::docker::Engine;

/// Pieces of the stream that wait to be read.
const AHEAD: usize = 16;

/// A layer of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerContents {
    /// The instruction that made it; empty where the image does not say.
    pub instruction: String,
    /// Digest of the layer, uncompressed.
    pub diff_id: String,
    /// The sum of its files' lengths.
    pub bytes: u64,
    /// How many files it has.
    pub files: u64,
    /// Bytes of its files that later layers overwrote or deleted.
    pub wasted_bytes: u64,
    /// Whether it is of the base image; `None` where nobody knows.
    pub is_of_base: Option<bool>,
}

/// What lies in an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageContents {
    /// Layers, lowest first. Instructions that made none are left out.
    pub layers: Vec<LayerContents>,
    /// The sum of all layers.
    pub bytes: u64,
    /// Bytes of the files that a container sees.
    pub visible_bytes: u64,
    /// How many files that is, without empty ones.
    pub visible_files: u64,
    /// The paths of which lower layers hold most that is of no use, heaviest first.
    pub wasted: Vec<WastedPath>,
    /// How many such paths there are.
    pub wasted_paths: u64,
    /// The heaviest files.
    pub files: Vec<HeavyPath>,
    /// The heaviest directories; one is left out where a directory in it has nearly all of its bytes.
    pub directories: Vec<HeavyPath>,
    /// All of it.
    pub map: MapNode,
    /// Names in layers that lead out of the image, and are not counted.
    pub outside: u64,
}

impl ImageContents {
    /// Returns the bytes that are of no use: of the base image, and of what was built on it. Where nobody knows which layers are the
    /// base's, all count as built.
    #[must_use]
    pub fn wasted_bytes(&self) -> (u64, u64) {
        let sum = |of_base: bool| {
            let layers = self.layers.iter().filter(|layer| layer.is_of_base.unwrap_or(false) == of_base);
            layers.map(|layer| layer.wasted_bytes).sum()
        };
        (sum(true), sum(false))
    }
}

/// Examines an image of an engine. Its export is streamed and never unpacked; the memory is some hundred bytes for each path. `base` are
/// the digests of the layers of the image that it was built on, lowest first; `most` is how many paths of each kind are named.
///
/// # Errors
///
/// Fails where there is no such image, where the engine goes away in the middle, where what it sends is no image or has more than eight
/// million paths, and when `cancel` is cancelled.
pub async fn examine(
    engine: &dyn Engine,
    reference: &str,
    base: Option<&[String]>,
    most: usize,
    cancel: &CancellationToken,
) -> Result<ImageContents, ContentsError> {
    let mut stream = engine.save(reference).await?;
    let (send, pieces) = channel(AHEAD);
    let reading = tokio::task::spawn_blocking(move || export::read(Pieces::new(pieces)));
    let mut ended = Ok(());
    loop {
        let piece = tokio::select! {
            () = cancel.cancelled() => {
                ended = Err(ContentsError::Cancelled);
                break;
            }
            piece = stream.next() => piece,
        };
        let piece = match piece {
            Some(Ok(bytes)) => Piece::Bytes(bytes),
            Some(Err(error)) => {
                ended = Err(error.into());
                break;
            }
            None => Piece::End,
        };
        let is_over = matches!(piece, Piece::End);
        // A reader that has failed, or has seen the end, says so below.
        if send.send(piece).await.is_err() || is_over {
            break;
        }
    }
    drop(send);
    let archive = |source| ContentsError::Archive { reference: reference.to_owned(), source };
    let read = reading.await.map_err(|stopped| archive(std::io::Error::other(stopped)))?;
    ended?;
    Ok(contents(&read.map_err(archive)?, base, most))
}

/// Makes the report of an image that was read.
pub(super) fn contents(export: &Export, base: Option<&[String]>, most: usize) -> ImageContents {
    let Export { paths, layers } = export;
    let merged = Merged::of(paths, layers.iter().map(|(_, scanned)| scanned));
    let weights = Weights::of(paths, &merged);
    let (files, directories) = weights.heaviest(most);
    let (wasted, wasted_paths) = merged.wasted(paths, most);
    // An image that is not built on that base begins with other layers.
    let of_base = base.map(|base| {
        let is_on_it =
            base.len() <= layers.len() && base.iter().zip(layers).all(|(id, (told, _))| *id == told.diff_id);
        if is_on_it { base.len() } else { 0 }
    });
    let told = layers.iter().zip(&merged.wasted_bytes).enumerate();
    let told = told.map(|(number, ((told, scanned), wasted_bytes))| LayerContents {
        instruction: told.instruction.clone(),
        diff_id: told.diff_id.clone(),
        bytes: scanned.bytes,
        files: scanned.files,
        wasted_bytes: *wasted_bytes,
        is_of_base: of_base.map(|count| number < count),
    });
    ImageContents {
        layers: told.collect(),
        bytes: layers.iter().map(|(_, scanned)| scanned.bytes).sum(),
        visible_bytes: weights.bytes(ROOT),
        visible_files: weights.files(ROOT),
        wasted,
        wasted_paths,
        files,
        directories,
        map: weights.map(),
        outside: layers.iter().map(|(_, scanned)| scanned.outside).sum(),
    }
}
