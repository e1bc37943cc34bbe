//! What JSON answers on workspaces look like. A field may be added; none is renamed or taken away.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde::Serialize;

use crate::store::revision::{Revision, RevisionRef};
use crate::store::{Entry, EntryKind, EntryPath, FileTime};
use crate::workspace::{
    self, Change, CopyReport, Difference, KindName, ListedRevision, PathNotes, Pin, RestoreReport,
    RevisionSummary, SaveReport, Side, UpdateReport,
};

/// A save.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct SaveView {
    revision: String,
    workspace: String,
    reference: String,
    parent: Option<String>,
    entries: u64,
    files: u64,
    directories: u64,
    bytes: u64,
    new_bytes: u64,
    stored_bytes: u64,
    packs: u64,
    seconds: f64,
    unsettled: NotesView,
    unreadable: NotesView,
}

/// Paths that something is to be said of: all are counted, the first hundred named.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct NotesView {
    count: u64,
    first: Vec<NoteView>,
}

/// A path, and what is to be said of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct NoteView {
    path: String,
    reason: String,
}

/// A restore.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct RestoreView {
    revision: String,
    workspace: String,
    reference: String,
    entries: u64,
    files: u64,
    directories: u64,
    bytes: u64,
    fetched_bytes: u64,
    seconds: f64,
    shortfalls: Vec<ShortfallView>,
}

/// An update of an existing directory.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct UpdateView {
    revision: String,
    workspace: String,
    reference: String,
    entries: u64,
    files: u64,
    directories: u64,
    bytes: u64,
    made: u64,
    patched: u64,
    adjusted: u64,
    removed: u64,
    fetched_bytes: u64,
    seconds: f64,
    shortfalls: Vec<ShortfallView>,
}

/// What entries could not be given.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct ShortfallView {
    what: String,
    count: u64,
    first: String,
}

/// What is recorded of a revision.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct RevisionView {
    pub(super) revision: String,
    pub(super) workspace: String,
    pub(super) reference: String,
    pub(super) parent: Option<String>,
    pub(super) created: Timestamp,
    pub(super) source: String,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) entries: u64,
    pub(super) files: u64,
    pub(super) directories: u64,
    /// The sum of the sizes of the files, holes included.
    pub(super) bytes: u64,
    /// The same without holes.
    pub(super) data_bytes: u64,
    /// Files that changed while they were read.
    pub(super) unsettled: u64,
    /// Packs that hold chunks of it, and maybe of other revisions.
    pub(super) packs: u64,
    pub(super) pack_bytes: u64,
    pub(super) pinned: bool,
    pub(super) pin_reason: Option<String>,
    /// When it was used last, as far as that was noted.
    pub(super) last_used: Option<Timestamp>,
}

/// What there is.
#[derive(Debug, Serialize)]
pub(super) struct ListView {
    /// By name.
    pub(super) workspaces: Vec<WorkspaceView>,
    /// By workspace, newest last.
    pub(super) revisions: Vec<ListedView>,
}

/// A workspace.
#[derive(Debug, Serialize)]
pub(super) struct WorkspaceView {
    pub(super) workspace: String,
    pub(super) revisions: u64,
    pub(super) newest: String,
    pub(super) newest_at: Timestamp,
    pub(super) pinned: u64,
    pub(super) damaged: u64,
    /// Of its newest readable revision.
    pub(super) files: u64,
    pub(super) bytes: u64,
}

/// A revision in a list.
#[derive(Debug, Serialize)]
pub(super) struct ListedView {
    pub(super) revision: String,
    pub(super) workspace: String,
    pub(super) reference: String,
    pub(super) pinned: bool,
    pub(super) pin_reason: Option<String>,
    /// Why its record cannot be read; the fields of the record are absent then.
    pub(super) damaged: Option<String>,
    #[serde(flatten)]
    pub(super) record: Option<RecordView>,
}

/// What the record of a revision says, in a list.
#[derive(Debug, Serialize)]
pub(super) struct RecordView {
    parent: Option<String>,
    pub(super) created: Timestamp,
    source: String,
    pub(super) labels: BTreeMap<String, String>,
    entries: u64,
    pub(super) files: u64,
    directories: u64,
    pub(super) bytes: u64,
    data_bytes: u64,
    unsettled: u64,
    packs: u64,
    pack_bytes: u64,
}

/// A copy.
#[derive(Debug, Serialize)]
pub(super) struct CopyView {
    revision: String,
    workspace: String,
    pub(super) reference: String,
    parent: String,
    entries: u64,
    files: u64,
    directories: u64,
    bytes: u64,
    uploaded_bytes: u64,
    seconds: f64,
}

/// What was removed.
#[derive(Debug, Serialize)]
pub(super) struct RemovedView {
    pub(super) removed: Vec<String>,
}

/// What differs between two revisions.
#[derive(Debug, Serialize)]
pub(super) struct DiffView {
    pub(super) from: String,
    pub(super) to: String,
    pub(super) added: usize,
    pub(super) removed: usize,
    pub(super) changed: usize,
    pub(super) changes: Vec<DifferenceView>,
}

/// An entry that differs.
#[derive(Debug, Serialize)]
pub(super) struct DifferenceView {
    pub(super) path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) path_base64: Option<String>,
    /// `added`, `removed` or `changed`.
    pub(super) change: &'static str,
    /// Whether it is of another type.
    pub(super) kind: bool,
    /// Whether a file's bytes, a link's target or a device's numbers are others.
    pub(super) content: bool,
    /// Whether mode, owner, time or extended attributes are others.
    pub(super) attributes: bool,
    pub(super) before: Option<SideView>,
    pub(super) after: Option<SideView>,
}

/// An entry as one revision has it.
#[derive(Debug, Serialize)]
pub(super) struct SideView {
    #[serde(rename = "type")]
    pub(super) kind: &'static str,
    pub(super) size: u64,
    pub(super) mode: String,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mtime: Option<Timestamp>,
}

/// An entry of a revision.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct EntryView {
    path: String,
    /// The path's bytes, where `path` has escapes in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    path_base64: Option<String>,
    #[serde(rename = "type")]
    kind: &'static str,
    size: u64,
    /// Four octal digits.
    mode: String,
    uid: u32,
    gid: u32,
    user: Option<String>,
    group: Option<String>,
    mtime: Option<Timestamp>,
    /// Where a symbolic link points to, or the entry that a hard link is another name of.
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target_base64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    device: Option<[u32; 2]>,
    /// Whether the file has holes.
    sparse: bool,
    xattrs: Vec<String>,
}

impl SaveView {
    /// Makes the view.
    pub(super) fn new(report: &SaveReport) -> Self {
        Self {
            revision: report.revision.to_string(),
            workspace: report.workspace.to_string(),
            reference: format!("{}@{}", report.workspace, report.revision),
            parent: report.parent.map(|parent| parent.to_string()),
            entries: report.counts.entries,
            files: report.counts.files,
            directories: report.counts.directories,
            bytes: report.counts.bytes,
            new_bytes: report.written.new_bytes,
            stored_bytes: report.written.stored_bytes,
            packs: report.written.packs,
            seconds: report.took.as_secs_f64(),
            unsettled: NotesView::new(&report.unsettled),
            unreadable: NotesView::new(&report.unreadable),
        }
    }
}

impl NotesView {
    fn new(notes: &PathNotes) -> Self {
        let first = notes
            .first
            .iter()
            .map(|note| NoteView { path: note.path.to_string(), reason: note.reason.clone() });
        Self { count: notes.count, first: first.collect() }
    }
}

impl RestoreView {
    /// Makes the view.
    pub(super) fn new(report: &RestoreReport) -> Self {
        Self {
            revision: report.revision.to_string(),
            workspace: report.workspace.to_string(),
            reference: format!("{}@{}", report.workspace, report.revision),
            entries: report.counts.entries,
            files: report.counts.files,
            directories: report.counts.directories,
            bytes: report.counts.bytes,
            fetched_bytes: report.fetched_bytes,
            seconds: report.took.as_secs_f64(),
            shortfalls: ShortfallView::all(&report.shortfalls),
        }
    }
}

impl UpdateView {
    /// Makes the view.
    pub(super) fn new(report: &UpdateReport) -> Self {
        Self {
            revision: report.revision.to_string(),
            workspace: report.workspace.to_string(),
            reference: format!("{}@{}", report.workspace, report.revision),
            entries: report.counts.entries,
            files: report.counts.files,
            directories: report.counts.directories,
            bytes: report.counts.bytes,
            made: report.made,
            patched: report.patched,
            adjusted: report.adjusted,
            removed: report.removed,
            fetched_bytes: report.fetched_bytes,
            seconds: report.took.as_secs_f64(),
            shortfalls: ShortfallView::all(&report.shortfalls),
        }
    }
}

impl ShortfallView {
    /// Makes a view of each.
    fn all(shortfalls: &[(String, u64, String)]) -> Vec<Self> {
        let view = |(what, count, first): &(String, u64, String)| Self {
            what: what.clone(),
            count: *count,
            first: first.clone(),
        };
        shortfalls.iter().map(view).collect()
    }
}

impl RevisionView {
    /// Makes the view.
    pub(super) fn new(record: &Revision, pin: Option<&Pin>, last_used: Option<Timestamp>) -> Self {
        Self {
            revision: record.id.to_string(),
            workspace: record.workspace.to_string(),
            reference: format!("{}@{}", record.workspace, record.id),
            parent: record.parent.map(|parent| parent.to_string()),
            created: record.created,
            source: record.source.clone(),
            labels: record.labels.clone(),
            entries: record.counts.entries,
            files: record.counts.files,
            directories: record.counts.directories,
            bytes: record.counts.bytes,
            data_bytes: record.counts.data_bytes,
            unsettled: record.unsettled,
            packs: record.packs.len() as u64,
            pack_bytes: record.packs.iter().map(|pack| pack.size).sum(),
            pinned: pin.is_some(),
            pin_reason: pin.map(|pin| pin.reason.clone()),
            last_used,
        }
    }
}

impl ListView {
    /// Makes the view.
    pub(super) fn new(listed: &[ListedRevision]) -> Self {
        let workspaces = workspace::summarize(listed).into_iter().map(|summary| WorkspaceView {
            workspace: summary.workspace.to_string(),
            revisions: summary.revisions,
            newest: summary.newest.id.to_string(),
            newest_at: summary.newest.id.timestamp(),
            pinned: summary.pinned,
            damaged: summary.damaged,
            files: summary.files,
            bytes: summary.bytes,
        });
        Self { workspaces: workspaces.collect(), revisions: listed.iter().map(ListedView::new).collect() }
    }
}

impl ListedView {
    fn new(listed: &ListedRevision) -> Self {
        let ListedRevision { revision, pin, record } = listed;
        Self {
            revision: revision.id.to_string(),
            workspace: revision.workspace.to_string(),
            reference: format!("{}@{}", revision.workspace, revision.id),
            pinned: pin.is_some(),
            pin_reason: pin.as_ref().map(|pin| pin.reason.clone()),
            damaged: record.as_ref().err().map(ToString::to_string),
            record: record.as_ref().ok().map(RecordView::new),
        }
    }
}

impl RecordView {
    fn new(record: &RevisionSummary) -> Self {
        Self {
            parent: record.parent.map(|parent| parent.to_string()),
            created: record.created,
            source: record.source.clone(),
            labels: record.labels.clone(),
            entries: record.counts.entries,
            files: record.counts.files,
            directories: record.counts.directories,
            bytes: record.counts.bytes,
            data_bytes: record.counts.data_bytes,
            unsettled: record.unsettled,
            packs: record.packs,
            pack_bytes: record.pack_bytes,
        }
    }
}

impl CopyView {
    /// Makes the view.
    pub(super) fn new(report: &CopyReport) -> Self {
        Self {
            revision: report.revision.to_string(),
            workspace: report.workspace.to_string(),
            reference: format!("{}@{}", report.workspace, report.revision),
            parent: report.parent.to_string(),
            entries: report.counts.entries,
            files: report.counts.files,
            directories: report.counts.directories,
            bytes: report.counts.bytes,
            uploaded_bytes: report.uploaded_bytes,
            seconds: report.took.as_secs_f64(),
        }
    }
}

impl RemovedView {
    /// Makes the view.
    pub(super) fn new(removed: &[RevisionRef]) -> Self {
        let reference = |revision: &RevisionRef| format!("{}@{}", revision.workspace, revision.id);
        Self { removed: removed.iter().map(reference).collect() }
    }
}

impl DiffView {
    /// Makes the view of what differs from `from` to `to`.
    pub(super) fn new(from: String, to: String, differences: &[Difference]) -> Self {
        let changes: Vec<DifferenceView> = differences.iter().map(DifferenceView::new).collect();
        let count = |word| changes.iter().filter(|change| change.change == word).count();
        Self {
            from,
            to,
            added: count("added"),
            removed: count("removed"),
            changed: count("changed"),
            changes,
        }
    }
}

impl DifferenceView {
    fn new(difference: &Difference) -> Self {
        let (change, kind, content, attributes) = match difference.change {
            Change::Added => ("added", false, false, false),
            Change::Removed => ("removed", false, false, false),
            Change::Changed { kind, content, attributes } => ("changed", kind, content, attributes),
        };
        Self {
            path: difference.path.to_string(),
            path_base64: encoded_path(&difference.path),
            change,
            kind,
            content,
            attributes,
            before: difference.before.as_ref().map(SideView::new),
            after: difference.after.as_ref().map(SideView::new),
        }
    }
}

impl SideView {
    fn new(side: &Side) -> Self {
        Self {
            kind: match side.kind {
                KindName::Directory => "directory",
                KindName::File => "file",
                KindName::Symlink => "symlink",
                KindName::HardLink => "hardlink",
                KindName::CharDevice => "char_device",
                KindName::BlockDevice => "block_device",
                KindName::Fifo => "fifo",
                KindName::Socket => "socket",
            },
            size: side.size,
            mode: format!("{:04o}", side.attributes.mode),
            uid: side.attributes.owner.uid,
            gid: side.attributes.owner.gid,
            mtime: moment(side.attributes.mtime),
        }
    }
}

impl EntryView {
    /// Makes the view.
    pub(super) fn new(entry: &Entry) -> Self {
        let attributes = &entry.attributes;
        let (mut target, mut target_base64, mut device, mut sparse) = (None, None, None, false);
        let kind = match &entry.kind {
            EntryKind::Directory => "directory",
            EntryKind::File { extents, .. } => {
                sparse = extents.is_some();
                "file"
            }
            EntryKind::Symlink { target: to } => {
                (target, target_base64) = (Some(text(to)), encoded(to));
                "symlink"
            }
            EntryKind::HardLink { target: to } => {
                (target, target_base64) = (Some(to.to_string()), encoded(to.as_bytes()));
                "hardlink"
            }
            EntryKind::CharDevice { major, minor } => {
                device = Some([*major, *minor]);
                "char_device"
            }
            EntryKind::BlockDevice { major, minor } => {
                device = Some([*major, *minor]);
                "block_device"
            }
            EntryKind::Fifo => "fifo",
            EntryKind::Socket => "socket",
        };
        Self {
            path: entry.path.to_string(),
            path_base64: encoded_path(&entry.path),
            kind,
            size: entry.size(),
            mode: format!("{:04o}", attributes.mode),
            uid: attributes.owner.uid,
            gid: attributes.owner.gid,
            user: Some(text(&attributes.owner.user)).filter(|name| !name.is_empty()),
            group: Some(text(&attributes.owner.group)).filter(|name| !name.is_empty()),
            mtime: moment(attributes.mtime),
            target,
            target_base64,
            device,
            sparse,
            xattrs: attributes.xattrs.iter().map(|xattr| text(&xattr.name)).collect(),
        }
    }
}

/// Returns bytes as text; what is no UTF-8 is replaced.
fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Returns the bytes of a path in base64, where its text does not say them as they are.
fn encoded_path(path: &EntryPath) -> Option<String> {
    let is_said = path.is_root() || path.to_string().as_bytes() == path.as_bytes();
    (!is_said).then(|| STANDARD.encode(path.as_bytes()))
}

fn encoded(bytes: &[u8]) -> Option<String> {
    std::str::from_utf8(bytes).is_err().then(|| STANDARD.encode(bytes))
}

fn moment(time: FileTime) -> Option<Timestamp> {
    Timestamp::new(time.seconds, i32::try_from(time.nanoseconds).ok()?).ok()
}
