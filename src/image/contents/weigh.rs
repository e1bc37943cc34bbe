//! What weighs most in an image, and a map of it.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use super::merge::Merged;
use super::paths::{Paths, ROOT, shown};

/// A directory is left out of the heaviest where one in it has this share of its bytes: that one says more.
const TELLING_PERCENT: u64 = 95;
/// What has less than one part in so many of the image's bytes is put together with its like in a map.
const FINEST: u64 = 3_000;
/// Most boxes of one directory in a map.
const BOXES: usize = 60;

/// A file or directory that weighs much.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeavyPath {
    /// The path.
    pub path: String,
    /// Its bytes, or those of all files below it.
    pub bytes: u64,
    /// How many files that is.
    pub files: u64,
    /// The layer that it is of, or that most of its bytes are of: 0 is the lowest.
    pub layer: u16,
}

/// A part of the map of an image: a directory with its parts, a file, or many small things together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MapNode {
    /// Its name in the directory above; empty of the root.
    pub name: String,
    /// Bytes of all files in it.
    pub bytes: u64,
    /// How many files that is.
    pub files: u64,
    /// The layer that most of its bytes are of.
    pub layer: u16,
    /// How many files and directories were put together here; 0 of what is one.
    pub together: u64,
    /// Its parts, the heaviest first; empty of what is not told apart further.
    pub parts: Vec<Self>,
}

/// The weights of all paths of an image.
#[derive(Debug)]
pub(super) struct Weights<'a> {
    paths: &'a Paths,
    merged: &'a Merged,
    bytes: Vec<u64>,
    files: Vec<u64>,
}

impl<'a> Weights<'a> {
    pub(super) fn of(paths: &'a Paths, merged: &'a Merged) -> Self {
        let (mut bytes, mut files) = (vec![0; paths.len()], vec![0; paths.len()]);
        for at in (0..paths.len()).rev() {
            let node = u32::try_from(at).unwrap_or(ROOT);
            let own = merged.bytes(node);
            let is_file = own > 0 && merged.layer(node).is_some();
            if let (Some(bytes), Some(files)) = (bytes.get_mut(at), files.get_mut(at)) {
                *bytes += own;
                *files += u64::from(is_file);
            }
            let (sum, count) = (bytes[at], files[at]);
            if node != ROOT {
                let parent = paths.parent(node) as usize;
                bytes[parent] += sum;
                files[parent] += count;
            }
        }
        Self { paths, merged, bytes, files }
    }

    /// Returns the bytes of all files at and below a path.
    pub(super) fn bytes(&self, node: u32) -> u64 {
        self.bytes.get(node as usize).copied().unwrap_or(0)
    }

    /// Returns how many files with content there are at and below a path.
    pub(super) fn files(&self, node: u32) -> u64 {
        self.files.get(node as usize).copied().unwrap_or(0)
    }

    fn is_file(&self, node: u32) -> bool {
        self.merged.bytes(node) > 0
    }

    /// Returns the heaviest files, and the heaviest directories that say something.
    pub(super) fn heaviest(&self, most: usize) -> (Vec<HeavyPath>, Vec<HeavyPath>) {
        let (mut files, mut directories) = (Vec::new(), Vec::new());
        for at in 1..self.paths.len() {
            let node = u32::try_from(at).unwrap_or(ROOT);
            if self.bytes(node) == 0 {
                continue;
            }
            if self.is_file(node) {
                keep_heaviest(&mut files, most, (self.bytes(node), Reverse(node)));
            } else if self.says_something(node) {
                keep_heaviest(&mut directories, most, (self.bytes(node), Reverse(node)));
            }
        }
        let told = |mut heaviest: Vec<(u64, Reverse<u32>)>| {
            heaviest.sort_unstable_by_key(|weight| Reverse(*weight));
            heaviest.truncate(most);
            let heavy = |(bytes, Reverse(node))| HeavyPath {
                path: self.paths.shown(node),
                bytes,
                files: self.files(node),
                layer: self.layer(&[node]),
            };
            heaviest.into_iter().map(heavy).collect()
        };
        (told(files), told(directories))
    }

    fn says_something(&self, directory: u32) -> bool {
        let whole = self.bytes(directory);
        let heaviest = self.merged.children(directory).filter(|child| !self.is_file(*child));
        let heaviest = heaviest.map(|child| self.bytes(child)).max().unwrap_or(0);
        heaviest.saturating_mul(100) < whole.saturating_mul(TELLING_PERCENT)
    }

    /// Returns the layer that most of the bytes at and below some paths are of.
    fn layer(&self, nodes: &[u32]) -> u16 {
        let mut by_layer: BTreeMap<u16, u64> = BTreeMap::new();
        let mut left = nodes.to_vec();
        while let Some(node) = left.pop() {
            if let Some(layer) = self.merged.layer(node) {
                *by_layer.entry(layer).or_default() += self.merged.bytes(node);
            }
            left.extend(self.merged.children(node).filter(|child| self.bytes(*child) > 0));
        }
        by_layer
            .into_iter()
            .max_by_key(|(layer, bytes)| (*bytes, Reverse(*layer)))
            .map_or(0, |(layer, _)| layer)
    }

    /// Returns the map of the image.
    pub(super) fn map(&self) -> MapNode {
        self.mapped(ROOT, (self.bytes(ROOT) / FINEST).max(1))
    }

    fn mapped(&self, node: u32, finest: u64) -> MapNode {
        let mut children: Vec<u32> =
            self.merged.children(node).filter(|child| self.bytes(*child) > 0).collect();
        children.sort_unstable_by_key(|child| (Reverse(self.bytes(*child)), *child));
        let large = children.iter().take(BOXES).take_while(|child| self.bytes(**child) >= finest).count();
        let (large, small) = children.split_at(large);
        let mut parts: Vec<MapNode> = large.iter().map(|child| self.mapped(*child, finest)).collect();
        // A directory of nothing but small things is one box.
        if !parts.is_empty() && !small.is_empty() {
            parts.push(MapNode {
                name: String::new(),
                bytes: small.iter().map(|child| self.bytes(*child)).sum(),
                files: small.iter().map(|child| self.files(*child)).sum(),
                layer: self.layer(small),
                together: small.len() as u64,
                parts: Vec::new(),
            });
        }
        MapNode {
            name: shown(self.paths.last(node)),
            bytes: self.bytes(node),
            files: self.files(node),
            layer: if parts.is_empty() { self.layer(&[node]) } else { 0 },
            together: 0,
            parts,
        }
    }
}

/// Keeps about the heaviest of what it is given.
fn keep_heaviest(kept: &mut Vec<(u64, Reverse<u32>)>, most: usize, weight: (u64, Reverse<u32>)) {
    kept.push(weight);
    if kept.len() >= most.saturating_mul(4).max(64) {
        kept.sort_unstable_by_key(|weight| Reverse(*weight));
        kept.truncate(most);
    }
}
