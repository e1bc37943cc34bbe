//! What a running build writes, and what stays free on the engine's disk.
//!
//! | builder and host | how writes are seen |
//! |---|---|
//! | BuildKit, this host, as root | `du` of the upper folders of its steps' overlay mounts |
//! | classic, this host, as root | `du` of the upper folder of the step's container; finished steps by their image's size |
//! | classic, elsewhere | the container's size as the engine counts it |
//! | BuildKit, this host, not as root | what free space went down by |
//! | BuildKit, elsewhere | not at all |
//!
//! All of it is best effort: between two looks a step may write what it likes. Cache mounts and what `COPY` writes are not
//! seen in BuildKit's mounts; the latter is bounded by the context's own limit.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::time::Duration;

use hyper::Method;
use serde::Deserialize;

use super::http::{Http, HttpError};
use super::{Builder, DiskSpace, usage};

/// 50 ms: how often to look whether a stopped step is gone.
const GONE_EVERY: Duration = Duration::from_millis(50);

/// 5 s: how long to wait for a stopped step at most.
const GONE_WITHIN: Duration = Duration::from_secs(5);

/// Returns the space of the file system that holds `root`.
pub(super) fn space(root: &Path) -> std::io::Result<DiskSpace> {
    let stat = rustix::fs::statvfs(root)?;
    let used = stat.f_blocks.saturating_sub(stat.f_bfree);
    Ok(DiskSpace {
        total_bytes: used.saturating_add(stat.f_bavail).saturating_mul(stat.f_frsize),
        free_bytes: stat.f_bavail.saturating_mul(stat.f_frsize),
    })
}

/// The engine's disk, as seen from here.
#[derive(Debug)]
pub(super) struct Watch {
    http: Http,
    prefix: String,
    root: PathBuf,
    sight: Sight,
    /// What was free at the start.
    free_at_start: Option<u64>,
    /// Whether less than a hundredth was free at some look.
    was_full: Option<bool>,
    /// BuildKit's steps by their upper folder.
    uppers: BTreeMap<PathBuf, Upper>,
    /// The classic builder's running container: its id, its upper folder where it can be read, its bytes.
    container: Option<(String, Option<PathBuf>, u64)>,
    /// Bytes of each image that the classic builder made.
    made: HashMap<String, u64>,
}

/// How a build's writes are seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sight {
    Overlays,
    Containers,
    FreeSpace,
    Nothing,
}

/// The upper folder of a BuildKit step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Upper {
    ours: bool,
    /// Whether it was there when the build began, so that it is another's for good.
    before: bool,
    mounted: bool,
    bytes: u64,
}

/// What the build is at, for a look.
#[derive(Debug, Default)]
pub(super) struct At {
    /// Names of the steps that run.
    pub(super) running: Vec<String>,
    /// The classic builder's container.
    pub(super) container: Option<String>,
    /// What the classic builder made: images below and made.
    pub(super) made: Vec<(String, String)>,
}

/// What a look saw.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Look {
    /// Bytes free.
    pub(super) free_bytes: Option<u64>,
    /// Bytes that this build wrote.
    pub(super) written_bytes: Option<u64>,
    /// Whether these were written by this build for sure, and not by whoever uses the disk.
    pub(super) attributed: bool,
}

impl Watch {
    /// Begins to watch.
    pub(super) fn start(http: Http, prefix: String, root: PathBuf, local: bool, builder: Builder) -> Self {
        let mut watch = Self {
            http,
            prefix,
            sight: match (builder, local) {
                (Builder::Classic, _) => Sight::Containers,
                (Builder::Buildkit, false) => Sight::Nothing,
                (Builder::Buildkit, true) if may_read(&root) => Sight::Overlays,
                (Builder::Buildkit, true) => Sight::FreeSpace,
            },
            root,
            free_at_start: None,
            was_full: None,
            uppers: BTreeMap::new(),
            container: None,
            made: HashMap::new(),
        };
        if local {
            watch.free_at_start = watch.free();
        }
        if watch.sight == Sight::Overlays {
            for (upper, _) in watch.mounts() {
                watch.uppers.insert(upper, Upper { ours: false, before: true, mounted: true, bytes: 0 });
            }
        }
        watch
    }

    /// Returns why the watch sees less than it should, if it does.
    pub(super) fn degraded(&self) -> Option<&'static str> {
        match self.sight {
            Sight::Overlays | Sight::Containers => None,
            Sight::FreeSpace => Some(
                "the steps' folders cannot be read (that needs root): what the build writes is taken from the free space, which others use too",
            ),
            Sight::Nothing => Some(
                "the engine is on another host: what the build writes, and its free space, cannot be seen",
            ),
        }
    }

    /// Says whether steps of another build were seen.
    pub(super) fn foreign(&self) -> bool {
        self.uppers.values().any(|upper| !upper.ours)
    }

    /// Says whether the engine's disk was full at some look; `None` where it cannot be seen.
    pub(super) fn was_full(&mut self) -> Option<bool> {
        self.free_at_start?;
        self.free();
        self.was_full
    }

    /// Returns the engine's data folder.
    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// Looks once.
    pub(super) async fn look(mut self, at: At) -> (Self, Look) {
        if self.sight == Sight::Containers {
            self.look_at_containers(&at).await;
        }
        // Counting files blocks, for seconds where there are many.
        let looked = tokio::task::spawn_blocking(move || {
            let look = self.measure(&at);
            (self, look)
        });
        match looked.await {
            Ok(looked) => looked,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }

    fn measure(&mut self, at: &At) -> Look {
        let free_bytes = self.free_at_start.and_then(|_| self.free());
        let written_bytes = match self.sight {
            Sight::Overlays => {
                self.scan(at);
                for (path, upper) in &mut self.uppers {
                    if upper.ours && upper.mounted {
                        upper.bytes = upper.bytes.max(usage::of(path).unwrap_or(0));
                    }
                }
                Some(self.uppers.values().filter(|upper| upper.ours).map(|upper| upper.bytes).sum())
            }
            Sight::Containers => {
                let mut running = 0;
                if let Some((_, upper, bytes)) = &mut self.container {
                    if let Some(seen) = upper.as_ref().and_then(|upper| usage::of(upper).ok()) {
                        *bytes = seen;
                    }
                    running = *bytes;
                }
                let made = at.made.iter().map(|(below, made)| {
                    self.made
                        .get(made)
                        .unwrap_or(&0)
                        .saturating_sub(*self.made.get(below).unwrap_or(&u64::MAX))
                });
                Some(made.sum::<u64>() + running)
            }
            Sight::FreeSpace => {
                self.free_at_start.zip(free_bytes).map(|(before, now)| before.saturating_sub(now))
            }
            Sight::Nothing => None,
        };
        Look { free_bytes, written_bytes, attributed: self.sight != Sight::FreeSpace }
    }

    fn free(&mut self) -> Option<u64> {
        let stat = rustix::fs::statvfs(&self.root).ok()?;
        let full = stat.f_bavail.saturating_mul(100) < stat.f_blocks;
        self.was_full = Some(self.was_full.unwrap_or(false) || full);
        Some(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    /// Notes which steps have come, without measuring them: a step shorter than the time between two looks is measured when
    /// it has gone.
    pub(super) fn glance(&mut self, at: &At) {
        if self.sight == Sight::Overlays {
            let mounts = self.mounts();
            self.note(mounts, at);
        }
    }

    /// Notes which steps have come and which have gone.
    fn scan(&mut self, at: &At) {
        let mounts = self.mounts();
        for (path, upper) in &mut self.uppers {
            if upper.mounted && !mounts.contains_key(path) {
                upper.mounted = false;
                // The folder of a step that succeeded stays as its layer: now its whole size can be seen.
                if upper.ours {
                    upper.bytes = upper.bytes.max(usage::of(path).unwrap_or(0));
                }
            }
        }
        self.note(mounts, at);
    }

    fn note(&mut self, mounts: BTreeMap<PathBuf, PathBuf>, at: &At) {
        for (path, executor) in mounts {
            // One that was seen before its step was announced may turn out to be ours at a later look.
            let settled = self.uppers.get(&path).is_some_and(|upper| upper.ours || upper.before);
            if settled || at.running.is_empty() {
                continue;
            }
            let ours = command(&executor)
                .is_none_or(|command| at.running.iter().any(|name| may_be_run_by(&command, name)));
            self.uppers.insert(path, Upper { ours, before: false, mounted: true, bytes: 0 });
        }
    }

    /// Returns the upper folders of the steps that BuildKit runs now, each with the step's own folder.
    fn mounts(&self) -> BTreeMap<PathBuf, PathBuf> {
        let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        steps_in(&table, &self.root.join("buildkit/executor"))
    }

    /// Asks the engine about the classic builder's container and images.
    async fn look_at_containers(&mut self, at: &At) {
        if at.container.is_none()
            && let Some(id) = self.container.as_ref().map(|(id, ..)| id.clone())
            && self.inspect(&id, "").await.is_ok()
        {
            // The log says that it has ended, and it is still there: a step may have printed that. It is measured on.
        } else if self.container.as_ref().map(|(id, ..)| id) != at.container.as_ref() {
            self.container = None;
            if let Some(id) = &at.container {
                let readable = self.free_at_start.is_some() && may_read(&self.root);
                let upper = match self.inspect(id, "").await {
                    Ok(container) => container.graph_driver.and_then(|driver| driver.data?.upper_dir),
                    Err(_gone) => None,
                };
                self.container = Some((id.clone(), upper.filter(|_| readable), 0));
            }
        }
        if let Some((id, None, _)) = &self.container {
            let id = id.clone();
            // A container that has just gone says nothing; its image will.
            if let (Ok(container), Some((.., bytes))) =
                (self.inspect(&id, "?size=1").await, &mut self.container)
            {
                *bytes = u64::try_from(container.size_rw.unwrap_or(0)).unwrap_or(0);
            }
        }
        for id in at.made.iter().flat_map(|(below, made)| [below, made]) {
            if !self.made.contains_key(id) {
                let path = format!("{}/images/{id}/json", self.prefix);
                if let Ok(image) = self.http.json::<Image>(Method::GET, &path).await {
                    self.made.insert(id.clone(), image.size);
                }
            }
        }
    }

    async fn inspect(&self, id: &str, query: &str) -> Result<Container, HttpError> {
        self.http.json(Method::GET, &format!("{}/containers/{id}/json{query}", self.prefix)).await
    }

    /// Returns the folders that the running steps of this build wrote most into.
    pub(super) async fn heaviest(&self) -> Vec<(String, u64)> {
        let mut running: Vec<(PathBuf, u64)> = self
            .uppers
            .iter()
            .filter(|(_, upper)| upper.ours && upper.mounted)
            .map(|(path, upper)| (path.clone(), upper.bytes))
            .chain(self.container.iter().filter_map(|(_, upper, bytes)| Some((upper.clone()?, *bytes))))
            .collect();
        running.sort_by_key(|(_, bytes)| std::cmp::Reverse(*bytes));
        let Some((path, _)) = running.into_iter().next() else { return Vec::new() };
        tokio::task::spawn_blocking(move || usage::heaviest(&path)).await.unwrap_or_default()
    }

    /// Waits until a stopped build's steps are gone, and says whether they are. The engine removes its container itself: its id is
    /// known from the log alone, where a step can write what it likes, so nothing is removed by that id from here.
    pub(super) async fn wait_until_gone(&mut self, at: &At) -> bool {
        let began = tokio::time::Instant::now();
        loop {
            let gone = match (self.sight, &at.container) {
                (Sight::Overlays, _) => {
                    self.scan(at);
                    !self.uppers.values().any(|upper| upper.ours && upper.mounted)
                }
                (Sight::Containers, Some(id)) => match self.inspect(id, "").await {
                    Ok(_) => false,
                    Err(HttpError::Status { status: 404, .. }) => true,
                    // An engine that is gone has no container that runs for us.
                    Err(_unreachable) => return false,
                },
                (Sight::Containers | Sight::FreeSpace | Sight::Nothing, _) => true,
            };
            if gone || began.elapsed() > GONE_WITHIN {
                return gone;
            }
            tokio::time::sleep(GONE_EVERY).await;
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Container {
    graph_driver: Option<GraphDriver>,
    size_rw: Option<i64>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct GraphDriver {
    data: Option<GraphData>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct GraphData {
    upper_dir: Option<PathBuf>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Image {
    size: u64,
}

/// Says whether this user may look into the engine's data folder.
fn may_read(root: &Path) -> bool {
    std::fs::read_dir(root).is_ok()
}

/// Returns the upper folders of overlays mounted at `<executor>/<id>/rootfs`, each with `<executor>/<id>`.
fn steps_in(table: &str, executor: &Path) -> BTreeMap<PathBuf, PathBuf> {
    table
        .lines()
        .filter_map(|line| {
            let point = Path::new(line.split(' ').nth(4)?);
            let step = point.parent()?;
            if step.parent()? != executor || point.file_name()? != "rootfs" {
                return None;
            }
            let options = line.rsplit(' ').next()?;
            let upper = options.split(',').find_map(|option| option.strip_prefix("upperdir="))?;
            Some((PathBuf::from(upper), step.to_owned()))
        })
        .collect()
}

/// Returns the shell command that a BuildKit step runs, where it is one and can be read.
fn command(executor: &Path) -> Option<String> {
    #[derive(Deserialize)]
    struct Config {
        process: Process,
    }
    #[derive(Deserialize)]
    struct Process {
        args: Vec<String>,
    }
    let config: Config = serde_json::from_slice(&std::fs::read(executor.join("config.json")).ok()?).ok()?;
    match config.process.args.as_slice() {
        [_shell, flag, command] if flag.starts_with('-') => Some(command.clone()),
        _ => None,
    }
}

/// Says whether the step called `name` may be what runs `command`.
///
/// In names, variables stand expanded and secrets redacted, so only what comes before the first of these is compared.
fn may_be_run_by(command: &str, name: &str) -> bool {
    let flat = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let Some((_, mut said)) = name.split_once("RUN ") else { return false };
    while let Some((_, rest)) = said.trim_start().strip_prefix("--").and_then(|flag| flag.split_once(' ')) {
        said = rest;
    }
    // Exec form and here-documents are shown as they are written, which cannot be compared with what runs: counted, rather than not.
    if said.trim_start().starts_with(['[', '<']) {
        return true;
    }
    let command = flat(command);
    let literal = command.split(['$', '\\', '"', '\'']).next().unwrap_or_default().trim_end();
    let said = flat(said);
    let shown = said.split("***").next().unwrap_or_default().trim_end_matches('…');
    literal.starts_with(shown) || shown.starts_with(literal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mounts_of_steps_are_told_from_others() {
        let table = "\
86 42 0:50 / /data/buildkit/executor/abc/rootfs rw - overlay overlay rw,lowerdir=/l,upperdir=/data/overlay2/x/diff,workdir=/w\n\
87 42 0:51 / /data/overlay2/q/merged rw - overlay overlay rw,lowerdir=/l,upperdir=/data/overlay2/q/diff,workdir=/w\n\
88 42 0:52 / /other/buildkit/executor/abc/rootfs rw - overlay overlay rw,upperdir=/other/diff\n\
short line\n";
        let steps = steps_in(table, Path::new("/data/buildkit/executor"));
        let expected = (PathBuf::from("/data/overlay2/x/diff"), PathBuf::from("/data/buildkit/executor/abc"));
        assert_eq!(steps.into_iter().collect::<Vec<_>>(), [expected]);
    }

    #[test]
    fn a_step_is_known_by_its_command() {
        for (command, name, ours) in [
            ("make all", "[2/3] RUN make all", true),
            ("make   all", "[2/3] RUN --network=none --mount=type=cache,target=/x make all", true),
            ("echo $HOME done", "[2/3] RUN echo /root done", true),
            ("echo hunter2 x", "[2/3] RUN echo *** x", true),
            ("$X", "[2/3] RUN anything", true),
            ("make all", "[2/3] RUN npm install", false),
            ("make all", "[2/3] COPY a b", false),
            ("dd if=/dev/zero", r#"[2/3] RUN ["bash","-c","dd if=/dev/zero"]"#, true),
        ] {
            assert_eq!(may_be_run_by(command, name), ours, "{command} / {name}");
        }
    }
}
