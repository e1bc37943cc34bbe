//! How people name revisions, and finding what they mean.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use super::depot::Depot;
use super::error::WorkspaceError;
use crate::base::WorkspaceName;
use crate::store::revision::{self, RevisionRef};

/// A name for a revision: `name`, `name@id` or `id`; ids may be shortened to six characters or more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RevisionReference {
    /// The newest revision of a workspace. An id is also taken here, when no workspace has that name.
    Name(WorkspaceName),
    /// A revision of a workspace, by (the beginning of) its id.
    NameId(WorkspaceName, IdPrefix),
}

/// The beginning of a revision's id, six characters or more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdPrefix(String);

impl IdPrefix {
    const LEAST: usize = 6;
    const WHOLE: usize = 26;

    /// Takes `text` as the beginning of an id, if it can be one.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.to_ascii_lowercase();
        // Crockford's base 32 has no i, l, o, u.
        let valid = (Self::LEAST..=Self::WHOLE).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_digit() || (b.is_ascii_lowercase() && !b"ilou".contains(&b)));
        valid.then_some(Self(text))
    }

    fn fits(&self, revision: &RevisionRef) -> bool {
        revision.id.to_string().starts_with(&self.0)
    }
}

impl fmt::Display for IdPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for RevisionReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => write!(f, "{name}"),
            Self::NameId(name, id) => write!(f, "{name}@{id}"),
        }
    }
}

impl RevisionReference {
    /// Returns the only one of these revisions that this means by its id; a bare name may be one.
    pub(super) fn only_by_id(&self, of: &[RevisionRef]) -> Result<Option<RevisionRef>, WorkspaceError> {
        match self {
            Self::Name(name) => IdPrefix::parse(name.as_str()).map_or(Ok(None), |id| only(of, &id)),
            Self::NameId(_, id) => only(of, id),
        }
    }
}

impl FromStr for RevisionReference {
    type Err = WorkspaceError;

    fn from_str(text: &str) -> Result<Self, WorkspaceError> {
        let parsed = match text.split_once('@') {
            Some((name, id)) => {
                name.parse().ok().zip(IdPrefix::parse(id)).map(|(name, id)| Self::NameId(name, id))
            }
            None => text.parse().ok().map(Self::Name),
        };
        parsed.ok_or_else(|| WorkspaceError::Invalid {
            reason: format!("`{}` is not a revision (name, name@id or id)", text.escape_debug()),
        })
    }
}

/// Finds the revision that is meant. Removed revisions and those that do not count are not found.
///
/// # Errors
///
/// Fails where there is none, saying what is there and looks like it; where the beginning of an id fits several; and where the store
/// does not answer.
pub async fn find(depot: &Depot, reference: &RevisionReference) -> Result<RevisionRef, WorkspaceError> {
    match reference {
        RevisionReference::Name(name) => {
            // For a bare name only its own revisions are listed: they are few, whatever the store holds.
            if let Some(newest) = revision::list(&*depot.objects, Some(name)).await?.pop() {
                return Ok(newest);
            }
            let all = revision::list(&*depot.objects, None).await?;
            if let Some(id) = IdPrefix::parse(name.as_str())
                && let Some(found) = only(&all, &id)?
            {
                return Ok(found);
            }
            Err(WorkspaceError::NotFound {
                what: "workspace or revision",
                name: name.to_string(),
                nearest: nearest_name(&all, name),
            })
        }
        RevisionReference::NameId(name, id) => {
            let of_name = revision::list(&*depot.objects, Some(name)).await?;
            if let Some(found) = only(&of_name, id)? {
                return Ok(found);
            }
            let nearest = match of_name.last() {
                Some(newest) => Some(format!("{name}@{}", newest.id)),
                None => nearest_name(&revision::list(&*depot.objects, None).await?, name),
            };
            Err(WorkspaceError::NotFound { what: "revision", name: reference.to_string(), nearest })
        }
    }
}

/// Returns the only revision that an id fits.
fn only(revisions: &[RevisionRef], id: &IdPrefix) -> Result<Option<RevisionRef>, WorkspaceError> {
    let fitting: Vec<&RevisionRef> = revisions.iter().filter(|revision| id.fits(revision)).collect();
    match fitting.as_slice() {
        [] => Ok(None),
        [one] => Ok(Some((*one).clone())),
        [first, second, ..] => Err(WorkspaceError::Ambiguous {
            id: id.to_string(),
            count: fitting.len(),
            first: format!("{}@{}", first.workspace, first.id),
            second: format!("{}@{}", second.workspace, second.id),
        }),
    }
}

/// Returns the workspace whose name is most like `name`, if one is alike at all.
fn nearest_name(revisions: &[RevisionRef], name: &WorkspaceName) -> Option<String> {
    let names: BTreeSet<&str> = revisions.iter().map(|revision| revision.workspace.as_str()).collect();
    nearest(names.into_iter(), name.as_str())
}

/// Returns what of `candidates` is most like `word`: at most a third of its characters differ.
pub(super) fn nearest<'a>(candidates: impl Iterator<Item = &'a str>, word: &str) -> Option<String> {
    let most = (word.chars().count() / 3).max(1);
    candidates
        .map(|candidate| (strsim::damerau_levenshtein(word, candidate), candidate))
        .filter(|(distance, _)| *distance <= most)
        .min()
        .map(|(_, candidate)| candidate.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{Classify as _, ErrorKind};
    use crate::workspace::tests::Place;

    #[test]
    fn references_read_what_they_print() {
        for text in ["w", "my-app", "w@01jdab", "01jdabcd00", "Some.Name_1"] {
            assert_eq!(text.parse::<RevisionReference>().unwrap().to_string(), text);
        }
        for wrong in ["", "a@b", "a@", "@01jdabcd", "a b", "a@01jdabu", "a@01jdab@1", "-a"] {
            assert!(wrong.parse::<RevisionReference>().is_err(), "{wrong}");
        }
        assert_eq!("w@01JDAB".parse::<RevisionReference>().unwrap().to_string(), "w@01jdab");
    }

    async fn found(place: &Place, text: &str) -> Result<RevisionRef, WorkspaceError> {
        find(&place.depot, &text.parse().unwrap()).await
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_name_means_its_newest_revision_and_an_id_that_one() {
        let place = Place::new();
        place.write("tree/a", "1");
        let first = place.save("tree").await.revision;
        let second = place.save("tree").await.revision;
        assert_eq!(found(&place, "w").await.unwrap().id, second);
        assert_eq!(found(&place, &format!("w@{first}")).await.unwrap().id, first);
        assert_eq!(found(&place, &first.to_string()).await.unwrap().id, first);
        assert_eq!(found(&place, &first.to_string().to_uppercase()).await.unwrap().id, first);
        let (first, second) = (first.to_string(), second.to_string());
        let common = first.bytes().zip(second.bytes()).take_while(|(a, b)| a == b).count();
        assert_eq!(
            found(&place, &first[..=common.max(IdPrefix::LEAST)]).await.unwrap().id.to_string(),
            first
        );
        // What both have in common means neither. Where it is too short it is no id.
        for text in [first[..common].to_owned(), format!("w@{}", &first[..common])] {
            if common >= IdPrefix::LEAST {
                let error = found(&place, &text).await.unwrap_err();
                assert!(matches!(error, WorkspaceError::Ambiguous { count: 2, .. }), "{error}");
            }
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_is_not_there_is_told_with_what_looks_like_it() {
        let place = Place::new();
        place.write("tree/a", "1");
        let spec = crate::workspace::SaveSpec::new("backend".parse().unwrap());
        let saved = place.try_save("tree", &spec).await.unwrap().revision;
        for (text, hint) in [
            ("backedn".to_owned(), "backend".to_owned()),
            ("backend@000000".to_owned(), format!("backend@{saved}")),
            (format!("bakend@{saved}"), "backend".to_owned()),
        ] {
            let error = found(&place, &text).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::NotFound);
            assert_eq!(error.hint(), Some(format!("did you mean `{hint}`?")), "{text}");
        }
        let error = found(&place, "entirely-other").await.unwrap_err();
        assert!(matches!(error, WorkspaceError::NotFound { nearest: None, .. }), "{error:?}");
    }
}
