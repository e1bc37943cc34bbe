//! `kiln workspace files`: the entries of a revision, as they are read.

use clap::Args;
use futures_util::TryStreamExt as _;
use jiff::Timestamp;

use super::view::EntryView;
use crate::base::ErrorKind;
use crate::cli::failure::CommandError;
use crate::cli::invocation::Invocation;
use crate::store::{Entry, EntryKind, EntryOwner, FileTime};
use crate::toolkit::Toolkit;
use crate::workspace::{self, RevisionReference};

/// Examples for the help.
pub(super) const EXAMPLES: &str = "\
Examples:
  kiln workspace files app
  kiln workspace files app --long
  kiln workspace files app --json | jq -r 'select(.size > 1000000) | .path'

With --json every entry is a JSON document on a line of its own. A path that is not printable UTF-8 is shown with escapes; \
its bytes then stand beside it as path_base64.";

/// Bytes of lines that are printed together.
const BATCH_BYTES: usize = 64 << 10;

/// Arguments of `kiln workspace files`.
#[derive(Debug, Args)]
pub(in crate::cli) struct FilesArgs {
    /// The revision
    #[arg(value_name = "REF")]
    reference: RevisionReference,
    /// Show type and mode, owner, size and time, too
    #[arg(long, short)]
    long: bool,
}

/// Lists the entries of a revision.
pub(super) async fn run(
    invocation: &Invocation,
    toolkit: &Toolkit,
    arguments: &FilesArgs,
) -> Result<(), CommandError> {
    let depot = toolkit.depot();
    let revision = workspace::find(&depot, &arguments.reference).await?;
    let record = workspace::show(&depot, &revision).await?;
    let mut entries = workspace::files(&depot, &record).await?;
    let mut batch = Vec::new();
    while let Some(entry) = entries.try_next().await? {
        if invocation.output.json() {
            serde_json::to_writer(&mut batch, &EntryView::new(&entry)).map_err(|error| {
                CommandError::of(ErrorKind::Internal, format!("cannot write an entry as JSON: {error}"))
            })?;
        } else if arguments.long {
            batch.extend_from_slice(long(&entry).as_bytes());
        } else {
            batch.extend_from_slice(entry.path.to_string().as_bytes());
        }
        batch.push(b'\n');
        if batch.len() >= BATCH_BYTES {
            invocation.output.raw(&batch)?;
            batch.clear();
            if invocation.output.closed() {
                return Ok(());
            }
        }
    }
    invocation.output.raw(&batch)
}

/// Returns an entry as `ls -l` would show it, in UTC.
fn long(entry: &Entry) -> String {
    let EntryOwner { uid, gid, user, group } = &entry.attributes.owner;
    let named = |name: &[u8], id: u32| match std::str::from_utf8(name) {
        Ok(name) if !name.is_empty() => name.escape_debug().to_string(),
        Ok(_) | Err(_) => id.to_string(),
    };
    let owner = format!("{}/{}", named(user, *uid), named(group, *gid));
    let (size, target) = match &entry.kind {
        EntryKind::File { size, .. } => (size.to_string(), String::new()),
        EntryKind::Symlink { target } => ("0".to_owned(), format!(" -> {}", target.escape_ascii())),
        EntryKind::HardLink { target } => ("0".to_owned(), format!(" link to {target}")),
        EntryKind::CharDevice { major, minor } | EntryKind::BlockDevice { major, minor } => {
            (format!("{major},{minor}"), String::new())
        }
        EntryKind::Directory | EntryKind::Fifo | EntryKind::Socket => ("0".to_owned(), String::new()),
    };
    let mode = mode(&entry.kind, entry.attributes.mode);
    format!("{mode} {owner:<17} {size:>12} {} {}{target}", time(entry.attributes.mtime), entry.path)
}

/// Returns the ten characters of `ls`: the type, and three bits for user, group and others.
fn mode(kind: &EntryKind, mode: u16) -> String {
    let letter = match kind {
        EntryKind::Directory => 'd',
        EntryKind::File { .. } => '-',
        EntryKind::HardLink { .. } => 'h',
        EntryKind::Symlink { .. } => 'l',
        EntryKind::CharDevice { .. } => 'c',
        EntryKind::BlockDevice { .. } => 'b',
        EntryKind::Fifo => 'p',
        EntryKind::Socket => 's',
    };
    let mut text = String::from(letter);
    for (shift, special, lower, upper) in
        [(6, 0o4000, 's', 'S'), (3, 0o2000, 's', 'S'), (0, 0o1000, 't', 'T')]
    {
        let bits = mode >> shift;
        text.push(if bits & 4 == 0 { '-' } else { 'r' });
        text.push(if bits & 2 == 0 { '-' } else { 'w' });
        text.push(match (bits & 1 != 0, mode & special != 0) {
            (true, true) => lower,
            (false, true) => upper,
            (true, false) => 'x',
            (false, false) => '-',
        });
    }
    text
}

fn time(time: FileTime) -> String {
    match Timestamp::from_second(time.seconds) {
        Ok(at) => at.strftime("%Y-%m-%d %H:%M").to_string(),
        // Before year -9999 or after 9999: file systems hold such times.
        Err(_) => time.seconds.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Attributes, Content, EntryPath};

    fn entry(path: &str, kind: EntryKind, mode: u16, user: &str) -> Entry {
        let owner = EntryOwner { uid: 1000, gid: 100, user: user.as_bytes().into(), group: Box::default() };
        let mtime = FileTime { seconds: 1_700_000_000, nanoseconds: 5 };
        let attributes = Attributes { mode, owner, mtime, xattrs: vec![] };
        Entry { path: EntryPath::new(path).unwrap(), kind, attributes }
    }

    #[test]
    fn a_long_line_reads_like_that_of_ls() {
        let file = EntryKind::File { size: 12, content: Content { level: 0, refs: vec![] }, extents: None };
        let link = EntryKind::Symlink { target: b"../x\n".as_slice().into() };
        let lines = [
            entry("", EntryKind::Directory, 0o1777, "user"),
            entry("bin/run", file, 0o4755, "user"),
            entry("dev/null", EntryKind::CharDevice { major: 1, minor: 3 }, 0o2646, ""),
            entry("link", link, 0o777, "user"),
        ];
        let text: String = lines.iter().map(|entry| long(entry) + "\n").collect();
        insta::assert_snapshot!(text, @r"
        drwxrwxrwt user/100                     0 2023-11-14 22:13 .
        -rwsr-xr-x user/100                    12 2023-11-14 22:13 bin/run
        crw-r-Srw- 1000/100                   1,3 2023-11-14 22:13 dev/null
        lrwxrwxrwx user/100                     0 2023-11-14 22:13 link -> ../x\n
        ");
    }
}
