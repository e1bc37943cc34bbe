//! Build key and snapshot key: what goes in decides what comes out.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::base::{BuildKey, Sha256Digest, SnapshotKey};
use crate::docker::NetworkMode;
use crate::template::{CheckSpec, Limits, Resources, Runtime};

/// What goes into a build. Two builds of equal inputs give interchangeable images.
///
/// The builder is not among them: both give the same result for a Dockerfile that both can build. Neither are values of secrets,
/// which may rotate; their ids are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BuildInputs {
    /// Version of this list: 1. A new one makes every key new.
    pub version: u32,
    /// The Dockerfile, without comments and trailing blanks.
    pub dockerfile: String,
    /// Digest of the context.
    pub context: Sha256Digest,
    /// Base images: reference → repository digest, image id, or the build key of a snapshot.
    pub bases: BTreeMap<String, String>,
    /// The platform.
    pub platform: Option<String>,
    /// Build arguments.
    pub build_args: BTreeMap<String, String>,
    /// The stage.
    pub target: Option<String>,
    /// The network of steps.
    pub network: NetworkMode,
    /// Ids of secrets.
    pub secret_ids: Vec<String>,
}

impl BuildInputs {
    /// Returns the build key: SHA-256 of the canonical JSON of the inputs.
    #[must_use]
    pub fn build_key(&self) -> BuildKey {
        BuildKey::new(digest(self))
    }

    /// Returns the key of the snapshot that adds to this build how it runs and what must hold.
    #[must_use]
    pub fn snapshot_key(
        &self,
        runtime: &Runtime,
        resources: &Resources,
        limits: &Limits,
        checks: &[CheckSpec],
    ) -> SnapshotKey {
        #[derive(Serialize)]
        struct SnapshotInputs<'a> {
            build: BuildKey,
            runtime: &'a Runtime,
            resources: &'a Resources,
            limits: &'a Limits,
            checks: &'a [CheckSpec],
        }
        SnapshotKey::new(digest(&SnapshotInputs {
            build: self.build_key(),
            runtime,
            resources,
            limits,
            checks,
        }))
    }
}

/// Digests the JSON of `value`. Structs keep the order of their fields and maps are sorted, so it is canonical.
fn digest(value: &impl Serialize) -> Sha256Digest {
    let json = serde_json::to_vec(value).expect("plain data with string keys always serialises");
    Sha256Digest::of(&json)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inputs() -> BuildInputs {
        BuildInputs {
            version: 1,
            dockerfile: "FROM a\n".into(),
            context: Sha256Digest::of(b""),
            bases: [("a".to_owned(), "sha256:1".to_owned())].into(),
            platform: None,
            build_args: BTreeMap::new(),
            target: None,
            network: NetworkMode::Default,
            secret_ids: vec![],
        }
    }

    #[test]
    fn every_input_changes_the_key() {
        let mut all = vec![inputs(); 9];
        all[1].dockerfile.push('x');
        all[2].context = Sha256Digest::of(b"x");
        all[3].bases.insert("a".into(), "sha256:2".into());
        all[4].platform = Some("linux/amd64".into());
        all[5].build_args.insert("a".into(), "b".into());
        all[6].target = Some("t".into());
        all[7].network = NetworkMode::None;
        all[8].secret_ids.push("s".into());
        let keys: std::collections::BTreeSet<BuildKey> = all.iter().map(BuildInputs::build_key).collect();
        assert_eq!(keys.len(), all.len());
    }

    #[test]
    fn the_snapshot_key_covers_what_surrounds_the_build() {
        let (runtime, resources, limits) = (Runtime::default(), Resources::default(), Limits::default());
        let plain = inputs().snapshot_key(&runtime, &resources, &limits, &[]);
        let other_user = Runtime { user: "x".into(), ..runtime.clone() };
        let more_cpu = Resources { cpu: 99, ..resources };
        assert_ne!(plain, inputs().snapshot_key(&other_user, &resources, &limits, &[]));
        assert_ne!(plain, inputs().snapshot_key(&runtime, &more_cpu, &limits, &[]));
        assert_eq!(plain, inputs().snapshot_key(&runtime, &resources, &limits, &[]));
    }
}
