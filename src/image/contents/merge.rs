//! One layer on top of another: what is left, and what is wasted.

use std::collections::HashMap;

use super::export::{Deed, Scanned};
use super::paths::{Paths, ROOT};

/// Of a path that no layer has, or no longer.
const NONE: u16 = u16::MAX;

/// A path of which a later layer holds another version, or none: what lower layers hold of it is of no use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WastedPath {
    /// The path.
    pub path: String,
    /// Bytes that are of no use, of all lower layers.
    pub bytes: u64,
    /// In how many lower layers they lie.
    pub times: u64,
    /// Whether it is not in the image in the end.
    pub is_deleted: bool,
}

/// What becomes of all layers together.
#[derive(Debug)]
pub(super) struct Merged {
    /// For each path the bytes of the file there.
    bytes: Vec<u64>,
    /// For each path the layer that it is of.
    layers: Vec<u16>,
    /// For each layer the bytes of it that are of no use.
    pub(super) wasted_bytes: Vec<u64>,
    wasted: HashMap<u32, (u64, u64)>,
    first_child: Vec<u32>,
    next_sibling: Vec<u32>,
}

impl Merged {
    /// Puts the layers on top of each other, lowest first.
    pub(super) fn of<'a>(paths: &Paths, layers: impl Iterator<Item = &'a Scanned>) -> Self {
        let count = paths.len();
        let mut merged = Self {
            bytes: vec![0; count],
            layers: vec![NONE; count],
            wasted_bytes: Vec::new(),
            wasted: HashMap::new(),
            first_child: vec![ROOT; count],
            next_sibling: vec![ROOT; count],
        };
        for node in (1..count).rev() {
            let number = u32::try_from(node).unwrap_or(ROOT);
            let parent = paths.parent(number) as usize;
            if let (Some(first), Some(next)) =
                (merged.first_child.get_mut(parent), merged.next_sibling.get_mut(node))
            {
                *next = std::mem::replace(first, number);
            }
        }
        for (number, layer) in layers.enumerate() {
            let number = u16::try_from(number).unwrap_or(NONE - 1);
            merged.wasted_bytes.push(0);
            // Whiteouts are of lower layers, wherever in the layer they stand.
            for put in &layer.puts {
                match put.deed {
                    Deed::Whiteout => merged.drop_tree(put.node, true),
                    Deed::Opaque => merged.drop_tree(put.node, false),
                    Deed::File | Deed::Other | Deed::Directory => {}
                }
            }
            for put in &layer.puts {
                match put.deed {
                    Deed::Whiteout | Deed::Opaque => {}
                    // What lies in a directory stays when it is named again.
                    Deed::Directory => merged.take(put.node, number, 0),
                    Deed::File | Deed::Other => {
                        merged.drop_below(put.node, number);
                        merged.take(put.node, number, put.bytes);
                    }
                }
            }
        }
        merged
    }

    fn take(&mut self, node: u32, layer: u16, bytes: u64) {
        if self.layer(node) != Some(layer) {
            self.waste(node);
        }
        let at = node as usize;
        if let (Some(layer_of), Some(bytes_of)) = (self.layers.get_mut(at), self.bytes.get_mut(at)) {
            (*layer_of, *bytes_of) = (layer, bytes);
        }
    }

    /// Counts what is at a path as of no use.
    fn waste(&mut self, node: u32) {
        let Some(layer) = self.layer(node) else { return };
        let bytes = self.bytes(node);
        if let Some(layer_of) = self.layers.get_mut(node as usize) {
            *layer_of = NONE;
        }
        if bytes == 0 {
            return;
        }
        if let Some(bytes_of) = self.bytes.get_mut(node as usize) {
            *bytes_of = 0;
        }
        if let Some(sum) = self.wasted_bytes.get_mut(usize::from(layer)) {
            *sum += bytes;
        }
        let (sum, times) = self.wasted.entry(node).or_default();
        *sum += bytes;
        *times += 1;
    }

    /// Drops what is at and below a path.
    fn drop_tree(&mut self, node: u32, with_itself: bool) {
        let mut left = vec![node];
        while let Some(at) = left.pop() {
            if at != node || with_itself {
                self.waste(at);
            }
            left.extend(self.children(at));
        }
    }

    /// Drops what lower layers have below a path that is no directory any more.
    fn drop_below(&mut self, node: u32, layer: u16) {
        let mut left: Vec<u32> = self.children(node).collect();
        while let Some(at) = left.pop() {
            if self.layer(at).is_some_and(|of| of < layer) {
                self.waste(at);
            }
            left.extend(self.children(at));
        }
    }

    /// Returns the layer that the path is of; `None` where it is not there.
    pub(super) fn layer(&self, node: u32) -> Option<u16> {
        self.layers.get(node as usize).copied().filter(|layer| *layer != NONE)
    }

    /// Returns the bytes of the file at the path; 0 of everything else.
    pub(super) fn bytes(&self, node: u32) -> u64 {
        self.bytes.get(node as usize).copied().unwrap_or(0)
    }

    /// Returns what lies in a directory, or did in one of the layers.
    pub(super) fn children(&self, node: u32) -> impl Iterator<Item = u32> + use<> {
        let next =
            |node: u32, siblings: &[u32]| siblings.get(node as usize).copied().filter(|at| *at != ROOT);
        let mut children = Vec::new();
        let mut at = next(node, &self.first_child);
        while let Some(child) = at {
            children.push(child);
            at = next(child, &self.next_sibling);
        }
        children.into_iter()
    }

    /// Returns the paths of which most is of no use, and of how many some is.
    pub(super) fn wasted(&self, paths: &Paths, most: usize) -> (Vec<WastedPath>, u64) {
        let mut heaviest: Vec<(u32, (u64, u64))> =
            self.wasted.iter().map(|(node, waste)| (*node, *waste)).collect();
        let count = heaviest.len() as u64;
        heaviest.sort_unstable_by_key(|(node, (bytes, _))| (std::cmp::Reverse(*bytes), *node));
        heaviest.truncate(most);
        let told = heaviest.into_iter().map(|(node, (bytes, times))| WastedPath {
            path: paths.shown(node),
            bytes,
            times,
            is_deleted: self.layer(node).is_none(),
        });
        (told.collect(), count)
    }
}
