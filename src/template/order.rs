//! The order of components: what is required comes first, the listing decides the rest.

use super::TemplateError;

/// Returns `listed` and all that they require, each once, every one after what it requires.
///
/// `requires` gives what a component requires, or fails when there is no such component; its second argument is who asks.
pub(super) fn order<F>(asker: &str, listed: &[String], mut requires: F) -> Result<Vec<String>, TemplateError>
where
    F: FnMut(&str, &str) -> Result<Vec<String>, TemplateError>,
{
    let mut ordered = Vec::new();
    let mut open = Vec::new();
    for name in listed {
        visit(asker, name, &mut requires, &mut open, &mut ordered)?;
    }
    Ok(ordered)
}

fn visit<F>(
    asker: &str,
    name: &str,
    requires: &mut F,
    open: &mut Vec<String>,
    ordered: &mut Vec<String>,
) -> Result<(), TemplateError>
where
    F: FnMut(&str, &str) -> Result<Vec<String>, TemplateError>,
{
    if ordered.iter().any(|done| done == name) {
        return Ok(());
    }
    if let Some(start) = open.iter().position(|waiting| waiting == name) {
        let circle = open.iter().skip(start).cloned().chain([name.to_owned()]).collect();
        return Err(TemplateError::Cycle { what: "components", circle });
    }
    let required = requires(name, asker)?;
    open.push(name.to_owned());
    for needed in &required {
        visit(name, needed, requires, open, ordered)?;
    }
    open.pop();
    ordered.push(name.to_owned());
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn run(listed: &[&str], edges: &[(&str, &[&str])]) -> Result<Vec<String>, TemplateError> {
        let listed: Vec<String> = listed.iter().map(|name| (*name).to_owned()).collect();
        order("t", &listed, |name, _asker| {
            let required = edges.iter().find(|(from, _)| *from == name).map_or(&[][..], |(_, to)| to);
            Ok(required.iter().map(|name| (*name).to_owned()).collect())
        })
    }

    #[test]
    fn the_listing_decides_where_nothing_is_required() {
        assert_eq!(run(&["c", "a", "b"], &[]).unwrap(), ["c", "a", "b"]);
        assert_eq!(run(&["c", "a"], &[("c", &["b", "a"])]).unwrap(), ["b", "a", "c"]);
    }

    #[test]
    fn a_circle_is_named() {
        let error = run(&["a"], &[("a", &["b"]), ("b", &["c"]), ("c", &["b"])]).unwrap_err();
        assert_eq!(error.to_string(), "components need each other in a circle: b → c → b");
        assert!(run(&["a"], &[("a", &["a"])]).is_err());
    }

    proptest! {
        #[test]
        fn everything_stands_once_and_after_what_it_requires(
            listed in prop::collection::vec(0_u8..12, 1..6),
            edges in prop::collection::vec((0_u8..12, 0_u8..12), 0..30),
        ) {
            // An edge to a lower number only: no circles.
            let edges: Vec<_> = edges.into_iter().filter(|(from, to)| to < from).collect();
            let listed: Vec<String> = listed.iter().map(u8::to_string).collect();
            let ordered = order("t", &listed, |name, _asker| {
                Ok(edges.iter().filter(|(from, _)| from.to_string() == name).map(|(_, to)| to.to_string()).collect())
            }).unwrap();
            let place = |name: &str| ordered.iter().position(|other| other == name);
            for name in &listed {
                prop_assert!(place(name).is_some());
            }
            for (from, to) in &edges {
                if let Some(from) = place(&from.to_string()) {
                    prop_assert!(place(&to.to_string()).is_some_and(|to| to < from));
                }
            }
            let mut unique = ordered.clone();
            unique.sort();
            unique.dedup();
            prop_assert_eq!(unique.len(), ordered.len());
        }
    }
}
