//! `kiln workspace remove`: revisions that nobody finds any more.

use clap::Args;

use super::view::RemovedView;
use crate::base::WorkspaceName;
use crate::cli::failure::CommandError;
use crate::cli::invocation::Invocation;
use crate::toolkit::Toolkit;
use crate::workspace::{self, Depot, RevisionReference, Selection};

/// Examples for the help.
pub(super) const EXAMPLES: &str = "\
Examples:
  kiln workspace remove app@01jqz3k5p8
  kiln workspace remove --all app

REF is name@id or an id; ids may be shortened. A bare name is refused, because it is not said which revision is meant. One that \
is pinned is refused, too (exit code 5). What is removed is found no more; its bytes stay until `kiln gc` takes them, \
and until then `kiln workspace undo` brings it back.";

/// Arguments of `kiln workspace remove`.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(in crate::cli) struct RemoveArgs {
    /// The revision
    #[arg(value_name = "REF")]
    reference: Option<RevisionReference>,
    /// Remove every revision of this workspace
    #[arg(long, value_name = "NAME")]
    all: Option<WorkspaceName>,
}

/// Removes revisions, and prints which.
pub(super) async fn run(
    invocation: &Invocation,
    toolkit: &Toolkit,
    arguments: &RemoveArgs,
) -> Result<(), CommandError> {
    let depot = toolkit.depot();
    let selection = match (&arguments.all, &arguments.reference) {
        (Some(name), _) => Selection::All(name.clone()),
        (None, Some(reference)) => one(&depot, reference).await?,
        (None, None) => return Err(CommandError::invalid("nothing is said to be removed")),
    };
    let removed = workspace::remove(&depot, &selection).await?;
    let view = RemovedView::new(&removed);
    invocation
        .output
        .answer(&view, |_| view.removed.iter().map(|reference| format!("{reference} removed\n")).collect())
}

/// Finds the one revision that is meant. A workspace's name means its newest one elsewhere; here it may as well mean all.
async fn one(depot: &Depot, reference: &RevisionReference) -> Result<Selection, CommandError> {
    let found = workspace::find(depot, reference).await?;
    match reference {
        RevisionReference::Name(name) if found.workspace == *name => {
            Err(CommandError::invalid(format!("`{name}` is a workspace and does not say which revision"))
                .with_hint(format!(
                    "`kiln workspace remove {name}@{}` removes the newest, `kiln workspace remove --all {name}` every one",
                    found.id
                )))
        }
        RevisionReference::Name(_) | RevisionReference::NameId(..) => Ok(Selection::One(found)),
    }
}
