//! What an engine holds: images, build cache, containers; and one record of the build cache less.
//!
//! `/system/df` has two schemas: lists at the top up to API 1.51, and from 1.52 on one object for each kind, whose items come only
//! when they are asked for. Both are read, whatever version is spoken: an engine may send both.

use std::collections::BTreeMap;

use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};
use hyper::Method;
use serde::Deserialize;

use super::EngineError;
use super::http::{Answer, Endpoint, Http, HttpError, empty, query};
use super::types::{CacheRecord, ContainerAction, ContainerEvent, ContainerUse, DiskUsage, ImageUsage};
use crate::base::ImageId;

/// From this API version on, `/system/df` can be asked for some kinds alone; before, containers and volumes are measured too.
const DF_BY_TYPE_SINCE: u32 = 42;

/// From this API version on, the items of a kind come only when they are asked for.
const DF_VERBOSE_SINCE: u32 = 52;

/// Where an engine is asked, and in which version.
#[derive(Debug, Clone, Copy)]
pub(super) struct Holdings<'a> {
    /// The engine.
    pub(super) http: &'a Http,
    /// Begins every path.
    pub(super) prefix: &'a str,
    /// The minor number of the API version that is spoken.
    pub(super) api_minor: u32,
}

/// What a stream says of an error after it has begun.
#[derive(Debug, Clone)]
pub(super) struct Refusal {
    /// What was asked for.
    pub(super) action: &'static str,
    /// The engine.
    pub(super) endpoint: Endpoint,
}

impl Refusal {
    /// Says what an error means.
    pub(super) fn of(&self, error: HttpError) -> EngineError {
        error.while_doing(self.action, &self.endpoint)
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct UsageWire {
    layers_size: i64,
    images: Option<Vec<ImageWire>>,
    build_cache: Option<Vec<RecordWire>>,
    image_usage: Option<KindWire<ImageWire>>,
    build_cache_usage: Option<KindWire<RecordWire>>,
}

/// One kind in the schema of API 1.52 and later.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct KindWire<T> {
    #[serde(default)]
    total_size: i64,
    #[serde(default = "Option::default")]
    items: Option<Vec<T>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ImageWire {
    id: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    labels: Option<BTreeMap<String, String>>,
    #[serde(default)]
    size: i64,
    #[serde(default = "unknown")]
    shared_size: i64,
}

/// How the engine writes that it did not count.
fn unknown() -> i64 {
    -1
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RecordWire {
    #[serde(rename = "ID")]
    id: String,
    #[serde(default)]
    parent: String,
    #[serde(default)]
    parents: Option<Vec<String>>,
    #[serde(default)]
    r#type: String,
    #[serde(default)]
    description: String,
    #[serde(default)]
    in_use: bool,
    #[serde(default)]
    shared: bool,
    #[serde(default)]
    size: i64,
    created_at: Option<jiff::Timestamp>,
    #[serde(default)]
    last_used_at: Option<jiff::Timestamp>,
}

impl From<RecordWire> for CacheRecord {
    fn from(wire: RecordWire) -> Self {
        let mut parents = wire.parents.unwrap_or_default();
        if !wire.parent.is_empty() && !parents.contains(&wire.parent) {
            parents.push(wire.parent);
        }
        Self {
            id: wire.id,
            parents,
            kind: wire.r#type,
            description: wire.description,
            in_use: wire.in_use,
            shared: wire.shared,
            size_bytes: u64::try_from(wire.size).unwrap_or(0),
            created: wire.created_at,
            last_used: wire.last_used_at,
        }
    }
}

fn image_usage(wire: ImageWire) -> Result<ImageUsage, HttpError> {
    let id: ImageId = wire.id.parse().map_err(|error| HttpError::Answer(format!("{error}")))?;
    Ok(ImageUsage {
        id,
        // An image without a name has this one on old engines.
        tags: wire.repo_tags.unwrap_or_default().into_iter().filter(|tag| tag != "<none>:<none>").collect(),
        labels: wire.labels.unwrap_or_default(),
        size_bytes: u64::try_from(wire.size).unwrap_or(0),
        shared_bytes: u64::try_from(wire.shared_size).ok(),
    })
}

fn disk_usage(wire: UsageWire) -> Result<DiskUsage, HttpError> {
    let (mut total, mut images) = (wire.layers_size, wire.images);
    if let Some(kind) = wire.image_usage {
        total = total.max(kind.total_size);
        images = images.or(kind.items);
    }
    let records = wire.build_cache.or_else(|| wire.build_cache_usage.and_then(|kind| kind.items));
    Ok(DiskUsage {
        layers_bytes: u64::try_from(total).unwrap_or(0),
        images: images.unwrap_or_default().into_iter().map(image_usage).collect::<Result<_, _>>()?,
        cache: records.unwrap_or_default().into_iter().map(CacheRecord::from).collect(),
    })
}

#[derive(Debug, Deserialize)]
struct ContainerWire {
    #[serde(rename = "Id")]
    id: String,
    #[serde(rename = "Names", default)]
    names: Option<Vec<String>>,
    #[serde(rename = "Image", default)]
    image: String,
    #[serde(rename = "ImageID", default)]
    image_id: String,
    #[serde(rename = "State", default)]
    state: String,
}

/// One event as the engine writes it.
#[derive(Debug, Deserialize)]
struct EventWire {
    #[serde(rename = "Action", default)]
    action: String,
    #[serde(rename = "Actor")]
    actor: ActorWire,
    #[serde(rename = "timeNano", default)]
    time_nano: i64,
}

#[derive(Debug, Deserialize)]
struct ActorWire {
    #[serde(rename = "ID", default)]
    id: String,
    #[serde(rename = "Attributes", default)]
    attributes: BTreeMap<String, String>,
}

/// Reads one event; `None` for one of another kind.
fn event(line: &[u8]) -> Result<Option<ContainerEvent>, HttpError> {
    let wire: EventWire =
        serde_json::from_slice(line).map_err(|error| HttpError::Answer(error.to_string()))?;
    let action = match wire.action.as_str() {
        "create" => ContainerAction::Created,
        "start" => ContainerAction::Started,
        "die" => ContainerAction::Ended,
        "destroy" => ContainerAction::Removed,
        _ => return Ok(None),
    };
    let mut labels = wire.actor.attributes;
    let image = labels.remove("image").unwrap_or_default();
    let name = labels.remove("name").unwrap_or_default();
    let at = jiff::Timestamp::from_nanosecond(i128::from(wire.time_nano))
        .map_err(|error| HttpError::Answer(error.to_string()))?;
    Ok(Some(ContainerEvent { at, action, container: wire.actor.id, name, image, labels }))
}

impl Holdings<'_> {
    /// Returns what takes space: images and build cache.
    pub(super) async fn disk_usage(&self) -> Result<DiskUsage, HttpError> {
        self.usage(&["image", "build-cache"]).await
    }

    /// Returns the records of the build cache.
    pub(super) async fn cache(&self) -> Result<Vec<CacheRecord>, HttpError> {
        Ok(self.usage(&["build-cache"]).await?.cache)
    }

    async fn usage(&self, kinds: &[&str]) -> Result<DiskUsage, HttpError> {
        let path = format!("{}/system/df?{}", self.prefix, usage_query(self.api_minor, kinds));
        disk_usage(self.http.json(Method::GET, &path).await?)
    }

    /// Returns all containers, whatever their state.
    pub(super) async fn containers(&self) -> Result<Vec<ContainerUse>, HttpError> {
        let path = format!("{}/containers/json?all=1", self.prefix);
        let wires: Vec<ContainerWire> = self.http.json(Method::GET, &path).await?;
        let container = |wire: ContainerWire| ContainerUse {
            id: wire.id,
            name: wire
                .names
                .and_then(|names| names.into_iter().next())
                .map_or_else(String::new, |name| name.trim_start_matches('/').to_owned()),
            image: wire.image_id.parse().ok(),
            reference: wire.image,
            running: matches!(wire.state.as_str(), "running" | "paused" | "restarting"),
        };
        Ok(wires.into_iter().map(container).collect())
    }

    /// Deletes one record of the build cache, unless it is in use; returns the bytes that it had, `None` where it stays or is gone.
    ///
    /// The record is named by its exact id, and no size is sent: which parameter an engine honours (`keep-storage` before API 1.48,
    /// `reserved-space` and others after) depends on its version, and an engine that does not know one deletes everything.
    pub(super) async fn delete_record(&self, id: &str) -> Result<Option<u64>, HttpError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Pruned {
            #[serde(default = "Option::default")]
            caches_deleted: Option<Vec<String>>,
            #[serde(default)]
            space_reclaimed: u64,
        }
        // Engines read the id as the beginning of one, or as a regular expression.
        if id.len() < 20 || !id.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Err(HttpError::Answer(format!("`{}` is no id of a record", id.escape_debug())));
        }
        let filter = serde_json::json!({ "id": [id] }).to_string();
        let path =
            format!("{}/build/prune?{}", self.prefix, query(&[("all", "1".into()), ("filters", filter)]));
        let pruned: Pruned = self.http.json(Method::POST, &path).await?;
        let deleted = pruned.caches_deleted.unwrap_or_default();
        if deleted.iter().any(|other| other != id) {
            return Err(HttpError::Answer(format!(
                "it deleted {} records where one was named",
                deleted.len()
            )));
        }
        Ok((!deleted.is_empty()).then_some(pruned.space_reclaimed))
    }

    /// Follows what becomes of containers, from `since` on or from now on.
    pub(super) async fn events(
        &self,
        since: Option<jiff::Timestamp>,
        refusal: Refusal,
    ) -> Result<BoxStream<'static, Result<ContainerEvent, EngineError>>, HttpError> {
        let filters = serde_json::json!({
            "type": ["container"], "event": ["create", "start", "die", "destroy"],
        });
        let mut pairs = vec![("filters", filters.to_string())];
        if let Some(since) = since {
            pairs.push(("since", format!("{}.{:09}", since.as_second(), since.subsec_nanosecond())));
        }
        let path = format!("{}/events?{}", self.prefix, query(&pairs));
        let answer = self.http.send(Method::GET, &path, &[], empty()).await?.accepted().await?;
        let events = stream::try_unfold(answer, |mut answer: Answer| async move {
            while let Some(line) = answer.line().await? {
                if line.iter().all(u8::is_ascii_whitespace) {
                    continue;
                }
                if let Some(event) = event(&line)? {
                    return Ok(Some((event, answer)));
                }
            }
            Ok::<_, HttpError>(None)
        });
        Ok(events.map(move |event| event.map_err(|error| refusal.of(error))).boxed())
    }
}

/// Writes what `/system/df` is asked for.
fn usage_query(api_minor: u32, kinds: &[&str]) -> String {
    let mut pairs = Vec::new();
    if api_minor >= DF_BY_TYPE_SINCE {
        pairs.extend(kinds.iter().map(|kind| ("type", (*kind).to_owned())));
    }
    if api_minor >= DF_VERBOSE_SINCE {
        pairs.push(("verbose", "1".to_owned()));
    }
    query(&pairs)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "sha256:32c4fbbb6862c0071594e5fad2dd863191ff2fbc4eca9ff34b491964394b1d36";

    fn read(json: &serde_json::Value) -> DiskUsage {
        disk_usage(serde_json::from_value(json.clone()).unwrap()).unwrap()
    }

    #[test]
    fn both_schemas_say_the_same() {
        let image = serde_json::json!({
            "Id": ID, "RepoTags": ["kiln/app:1"], "Labels": {"kiln.store": "s"}, "Size": 100, "SharedSize": 60,
        });
        let record = serde_json::json!({
            "ID": "a", "Type": "regular", "Description": "d", "InUse": false, "Shared": true, "Size": 9,
            "CreatedAt": "2026-01-01T00:00:00Z", "LastUsedAt": null,
        });
        let with = |name: &str, value: serde_json::Value| {
            let mut record = record.clone();
            record[name] = value;
            record
        };
        let old = read(&serde_json::json!({
            "LayersSize": 100, "Images": [image], "BuildCache": [with("Parent", "b".into())],
        }));
        let new = read(&serde_json::json!({
            "ImageUsage": {"TotalSize": 100, "Items": [image]},
            "BuildCacheUsage": {"TotalSize": 9, "Items": [with("Parents", serde_json::json!(["b"]))]},
        }));
        assert_eq!(old, new);
        assert_eq!((old.layers_bytes, old.images[0].shared_bytes), (100, Some(60)));
        assert_eq!(
            (old.cache[0].parents.as_slice(), old.cache[0].shared),
            (["b".to_owned()].as_slice(), true)
        );
        let bare = read(&serde_json::json!({
            "LayersSize": 0, "Images": [{"Id": ID, "RepoTags": ["<none>:<none>"], "Labels": null, "Size": 1, "SharedSize": -1}],
            "BuildCache": null,
        }));
        assert_eq!((bare.images[0].shared_bytes, bare.images[0].tags.len(), bare.cache.len()), (None, 0, 0));
        assert_eq!(read(&serde_json::json!({})), DiskUsage::default());
    }

    #[test]
    fn usage_is_asked_for_as_the_version_has_it() {
        assert_eq!(usage_query(41, &["image"]), "");
        assert_eq!(usage_query(51, &["image", "build-cache"]), "type=image&type=build-cache");
        assert_eq!(usage_query(52, &["build-cache"]), "type=build-cache&verbose=1");
    }

    #[test]
    fn events_of_containers_are_read_and_others_left_out() {
        let line = br#"{"status":"start","id":"c1","from":"kiln/app:1","Type":"container","Action":"start","Actor":{"ID":"c1","Attributes":{"image":"kiln/app:1","name":"box","kiln.snapshot":"x"}},"scope":"local","time":1795442699,"timeNano":1795442699000000001}"#;
        let read = event(line).unwrap().unwrap();
        assert_eq!(
            (read.action, read.image.as_str(), read.name.as_str()),
            (ContainerAction::Started, "kiln/app:1", "box")
        );
        assert_eq!(read.labels.get("kiln.snapshot").map(String::as_str), Some("x"));
        assert_eq!(read.at.as_second(), 1_795_442_699);
        let exec =
            String::from_utf8_lossy(line).replace(r#""Action":"start""#, r#""Action":"exec_start: ls""#);
        assert!(event(exec.as_bytes()).unwrap().is_none());
        assert!(event(b"nonsense").is_err());
    }
}
