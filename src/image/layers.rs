//! The layers of images: which are the same, what each takes, and what is freed when images go.
//!
//! An engine says the sizes of an image's instructions and the digests of its layers, and not which is which: instructions that only
//! change the configuration have no layer. Here the two lists are laid beside each other.

use std::collections::{BTreeMap, BTreeSet};

use crate::base::{ImageId, Sha256Digest};
use crate::docker::{CacheRecord, HistoryEntry};

/// The digest of a layer without entries, which the builders make of steps that write nothing.
const EMPTY: &str = "sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef";

/// 4 KiB: by so much the build cache's count of a layer may differ from the image's; mount points of secrets are in one of them only.
const SAME_WITHIN_BYTES: u64 = 4096;

/// A layer on top of those below it: engines keep it once, whatever images it is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LayerId(Sha256Digest);

impl LayerId {
    /// Returns the ids of an image's layers, lowest first.
    #[must_use]
    pub fn chain(digests: &[String]) -> Vec<Self> {
        let mut below = String::new();
        let chain = digests.iter().map(|digest| {
            let id = Sha256Digest::of(format!("{below} {digest}").as_bytes());
            below = id.to_string();
            Self(id)
        });
        chain.collect()
    }
}

/// What is known of a layer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Layer {
    /// Its bytes. Zero for those of images that are not ours, which are only counted as holders.
    pub bytes: u64,
    /// The images that have it, whosever they are.
    pub holders: BTreeSet<ImageId>,
    /// Whether the build cache has it too, so that its bytes stay when the images go.
    pub is_cached: bool,
}

/// An instruction's share of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Share {
    /// Its bytes.
    pub(super) bytes: u64,
    /// The instruction.
    pub(super) created_by: String,
}

/// Lays a history beside an image's layers, lowest first; `None` where they do not tell which belongs to which.
pub(super) fn shares(history: &[HistoryEntry], digests: &[String]) -> Option<Vec<Share>> {
    let share =
        |entry: &HistoryEntry| Share { bytes: entry.size_bytes, created_by: entry.created_by.clone() };
    let heavy: Vec<&HistoryEntry> = history.iter().filter(|entry| entry.size_bytes > 0).collect();
    let filled = digests.iter().filter(|digest| *digest != EMPTY).count();
    if heavy.len() == filled {
        let mut heavy = heavy.into_iter();
        let nothing = || Share { bytes: 0, created_by: String::new() };
        let of = |digest: &String| if digest == EMPTY { None } else { heavy.next().map(share) };
        return Some(digests.iter().map(of).map(|share| share.unwrap_or_else(nothing)).collect());
    }
    // Layers of folders and links alone have entries and no bytes.
    let writing: Vec<Share> =
        history.iter().filter(|entry| entry.size_bytes > 0 || writes(&entry.created_by)).map(share).collect();
    (writing.len() == digests.len()).then_some(writing)
}

/// Returns whether an instruction makes a layer, whatever it writes.
fn writes(created_by: &str) -> bool {
    let instruction = created_by.trim_start_matches("/bin/sh -c #(nop) ").trim_start();
    ["RUN ", "COPY ", "ADD ", "WORKDIR ", "/bin/sh -c "].iter().any(|word| instruction.starts_with(word))
}

/// Returns whether the build cache holds what an instruction wrote.
///
/// The engine does not say which record is which layer, only that an image has the same one. So what an instruction of the same kind
/// and size left counts; where several did, bytes may be taken for held that are not, and never the other way around.
pub(super) fn is_cached(share: &Share, cache: &[CacheRecord]) -> bool {
    let Some(instruction) = share.created_by.strip_suffix("# buildkit") else { return false };
    let within = SAME_WITHIN_BYTES.max(share.bytes / 100);
    cache.iter().any(|record| {
        let same_kind = match record.description.split_once(" from exec ") {
            Some((_, command)) => {
                let command = command.trim_start_matches("/bin/sh -c ").trim();
                !command.is_empty() && instruction.contains(command)
            }
            None => !instruction.starts_with("RUN "),
        };
        record.shared && same_kind && record.size_bytes.abs_diff(share.bytes) <= within
    })
}

/// Bytes, told twice.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Freed {
    /// Freed at once.
    pub now_bytes: u64,
    /// Freed when the build cache lets go of the same layers, those at once included.
    pub with_cache_bytes: u64,
}

impl std::ops::AddAssign for Freed {
    fn add_assign(&mut self, other: Self) {
        self.now_bytes = self.now_bytes.saturating_add(other.now_bytes);
        self.with_cache_bytes = self.with_cache_bytes.saturating_add(other.with_cache_bytes);
    }
}

/// Counts what is freed while references go one after the other: an image goes with its last one, a layer with its last image.
#[derive(Debug, Clone)]
pub struct Ledger<'a> {
    layers: &'a BTreeMap<LayerId, Layer>,
    /// By image: how many references it has left. An image without any has one here.
    references: BTreeMap<ImageId, usize>,
    gone: BTreeSet<ImageId>,
}

impl<'a> Ledger<'a> {
    /// Begins to count: all layers, and how many references the images have that may go.
    #[must_use]
    pub fn new(layers: &'a BTreeMap<LayerId, Layer>, references: BTreeMap<ImageId, usize>) -> Self {
        Self { layers, references, gone: BTreeSet::new() }
    }

    /// Takes a reference of an image with these layers away; returns what that frees.
    pub fn take(&mut self, image: ImageId, layers: &[LayerId]) -> Freed {
        let left = self.references.entry(image).or_insert(1);
        *left = left.saturating_sub(1);
        let mut freed = Freed::default();
        if *left > 0 || !self.gone.insert(image) {
            return freed;
        }
        let own: BTreeSet<&LayerId> = layers.iter().collect();
        for layer in own.into_iter().filter_map(|id| self.layers.get(id)) {
            if layer.holders.iter().all(|holder| self.gone.contains(holder)) {
                freed.with_cache_bytes += layer.bytes;
                freed.now_bytes += if layer.is_cached { 0 } else { layer.bytes };
            }
        }
        freed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(created_by: &str, size_bytes: u64) -> HistoryEntry {
        HistoryEntry { created_by: created_by.into(), size_bytes, created: None }
    }

    fn bytes(history: &[HistoryEntry], digests: &[&str]) -> Option<Vec<u64>> {
        let digests: Vec<String> = digests.iter().map(|digest| (*digest).to_owned()).collect();
        Some(shares(history, &digests)?.iter().map(|share| share.bytes).collect())
    }

    #[test]
    fn instructions_are_laid_beside_layers() {
        let base = entry("", 70);
        let env = entry("ENV A=b", 0);
        let run = entry("RUN /bin/sh -c make # buildkit", 5);
        let nothing = entry("RUN /bin/sh -c true # buildkit", 0);
        let folder = entry("WORKDIR /app", 0);
        let history = |entries: &[&HistoryEntry]| entries.iter().map(|it| (*it).clone()).collect::<Vec<_>>();
        let all = history(&[&base, &env, &run]);
        assert_eq!(bytes(&all, &["a", "b"]), Some(vec![70, 5]));
        // A step that wrote nothing has a layer whose digest is known, wherever it stands.
        let all = history(&[&base, &nothing, &env, &run, &folder]);
        assert_eq!(bytes(&all, &["a", EMPTY, "b", EMPTY]), Some(vec![70, 0, 5, 0]));
        // A folder has a digest of its own and no bytes; its instruction tells.
        let all = history(&[&base, &env, &folder, &run]);
        assert_eq!(bytes(&all, &["a", "b", "c"]), Some(vec![70, 0, 5]));
        let classic = [base.clone(), entry("/bin/sh -c #(nop)  ENV A=b", 0), entry("/bin/sh -c mkdir /x", 0)];
        assert_eq!(bytes(&classic, &["a", "b"]), Some(vec![70, 0]));
        // What does not add up is not guessed.
        assert_eq!(bytes(&history(&[&base, &env]), &["a", "b"]), None);
        assert_eq!(bytes(&history(&[&base, &run]), &["a"]), None);
    }

    #[test]
    fn a_layer_is_cached_where_a_record_of_its_kind_and_size_is_shared() {
        let record = |description: &str, size_bytes, shared| CacheRecord {
            id: "x".into(),
            parents: vec![],
            kind: "regular".into(),
            description: description.into(),
            in_use: false,
            shared,
            size_bytes,
            created: None,
            last_used: None,
        };
        let share = |created_by: &str, bytes| Share { bytes, created_by: created_by.into() };
        let run = share("RUN /bin/sh -c make all # buildkit", 1_000_000);
        let copy = share("COPY a /b # buildkit", 300);
        let exec = record("mount / from exec /bin/sh -c make all", 1_000_016, true);
        let file = record("fileop target", 300, true);
        let cache = [exec.clone(), file.clone()];
        assert!(is_cached(&run, &cache) && is_cached(&copy, &cache));
        assert!(!is_cached(&run, &[CacheRecord { shared: false, ..exec.clone() }]));
        assert!(!is_cached(&run, &[CacheRecord { size_bytes: 900_000, ..exec.clone() }]));
        assert!(!is_cached(&run, &[record("mount / from exec /bin/sh -c make it", 1_000_000, true)]));
        assert!(!is_cached(&copy, &[exec]) && !is_cached(&run, &[record("fileop target", 1_000_000, true)]));
        assert!(
            !is_cached(&share("/bin/sh -c make all", 1_000_000), &cache),
            "the classic builder's are no records"
        );
    }

    #[test]
    fn a_layer_is_freed_once_by_the_last_that_holds_it() {
        let image = |name: &str| ImageId::new(Sha256Digest::of(name.as_bytes()));
        let chain = |digests: &[&str]| {
            LayerId::chain(&digests.iter().map(|digest| (*digest).to_owned()).collect::<Vec<_>>())
        };
        let (one, two) = (chain(&["base", "a"]), chain(&["base", "b"]));
        assert_eq!(one[0], two[0]);
        assert_ne!(chain(&["x", "a"])[1], one[1]);
        let layer = |bytes, holders: &[&str], is_cached| Layer {
            bytes,
            holders: holders.iter().map(|name| image(name)).collect(),
            is_cached,
        };
        let layers = BTreeMap::from([
            (one[0], layer(100, &["one", "two"], false)),
            (one[1], layer(10, &["one"], true)),
            (two[1], layer(1, &["two"], false)),
        ]);
        let mut ledger = Ledger::new(&layers, BTreeMap::from([(image("one"), 1), (image("two"), 2)]));
        assert_eq!(ledger.take(image("one"), &one), Freed { now_bytes: 0, with_cache_bytes: 10 });
        assert_eq!(ledger.take(image("two"), &two), Freed::default(), "another reference holds it");
        assert_eq!(ledger.take(image("two"), &two), Freed { now_bytes: 101, with_cache_bytes: 101 });
        assert_eq!(ledger.take(image("two"), &two), Freed::default());
    }
}
