//! The paths of all layers, each once.

use std::collections::HashMap;
use std::io;

/// More paths than any image has that a sandbox starts from; with them some GiB of memory would be needed.
const MOST_PATHS: usize = 8_000_000;

/// The root.
pub(super) const ROOT: u32 = 0;

/// A tree of paths. A parent always has a lower number than its children.
#[derive(Debug)]
pub(super) struct Paths {
    names: Vec<Box<[u8]>>,
    numbers: HashMap<Box<[u8]>, u32>,
    nodes: Vec<Node>,
    children: HashMap<(u32, u32), u32>,
}

#[derive(Debug, Clone, Copy)]
struct Node {
    parent: u32,
    name: u32,
}

impl Paths {
    pub(super) fn new() -> Self {
        let mut paths =
            Self { names: Vec::new(), numbers: HashMap::new(), nodes: Vec::new(), children: HashMap::new() };
        let name = paths.name(b"");
        paths.nodes.push(Node { parent: ROOT, name });
        paths
    }

    fn name(&mut self, name: &[u8]) -> u32 {
        if let Some(number) = self.numbers.get(name) {
            return *number;
        }
        let number = u32::try_from(self.names.len()).unwrap_or(u32::MAX);
        self.names.push(name.into());
        self.numbers.insert(name.into(), number);
        number
    }

    /// Returns the number of a path, as a layer's archive writes it; `None` of one that leads out of the image.
    ///
    /// # Errors
    ///
    /// Fails where there are too many.
    pub(super) fn node(&mut self, path: &[u8]) -> io::Result<Option<u32>> {
        let mut at = ROOT;
        for name in path.split(|byte| *byte == b'/').filter(|name| !name.is_empty() && *name != b".") {
            if name == b".." {
                return Ok(None);
            }
            at = self.child(at, name)?;
        }
        Ok(Some(at))
    }

    /// Returns the number of a name in a directory.
    ///
    /// # Errors
    ///
    /// Fails where there are too many.
    pub(super) fn child(&mut self, parent: u32, name: &[u8]) -> io::Result<u32> {
        let name = self.name(name);
        if let Some(node) = self.children.get(&(parent, name)) {
            return Ok(*node);
        }
        let full =
            || io::Error::new(io::ErrorKind::FileTooLarge, format!("it has more than {MOST_PATHS} paths"));
        let node = u32::try_from(self.nodes.len())
            .ok()
            .filter(|_| self.nodes.len() < MOST_PATHS)
            .ok_or_else(full)?;
        self.nodes.push(Node { parent, name });
        self.children.insert((parent, name), node);
        Ok(node)
    }

    /// Returns how many numbers there are.
    pub(super) fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Returns the directory that a path lies in; of the root itself.
    pub(super) fn parent(&self, node: u32) -> u32 {
        self.nodes.get(node as usize).map_or(ROOT, |node| node.parent)
    }

    /// Returns the last name of a path.
    pub(super) fn last(&self, node: u32) -> &[u8] {
        let name = self.nodes.get(node as usize).map_or(0, |node| node.name);
        self.names.get(name as usize).map_or(&[], |name| name)
    }

    /// Returns a path for people, absolute, with what is not text and what a terminal would act on escaped.
    pub(super) fn shown(&self, node: u32) -> String {
        let mut names = Vec::new();
        let mut at = node;
        while at != ROOT {
            names.push(shown(self.last(at)));
            at = self.parent(at);
        }
        names.reverse();
        format!("/{}", names.join("/"))
    }
}

/// Returns a name for people: what is not text, and what a terminal would act on, is escaped.
pub(super) fn shown(name: &[u8]) -> String {
    let mut text = String::new();
    for chunk in name.utf8_chunks() {
        for letter in chunk.valid().chars() {
            match letter {
                '"' | '\'' => text.push(letter),
                letter => text.extend(letter.escape_debug()),
            }
        }
        for byte in chunk.invalid() {
            text.push_str(&format!("\\x{byte:02x}"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_has_one_number_however_it_is_written() {
        let mut paths = Paths::new();
        let number = paths.node(b"usr/lib/a").unwrap().unwrap();
        for same in [&b"./usr/lib/a"[..], b"/usr//lib/./a/", b"usr/lib/a"] {
            assert_eq!(paths.node(same).unwrap(), Some(number));
        }
        assert_eq!(paths.shown(number), "/usr/lib/a");
        assert_eq!((paths.node(b"../x").unwrap(), paths.node(b"a/../../b").unwrap()), (None, None));
        assert_eq!(paths.node(b"/").unwrap(), Some(ROOT));
        assert_eq!(paths.shown(ROOT), "/");
        let lib = paths.node(b"usr/lib").unwrap().unwrap();
        assert!(lib < number && paths.parent(number) == lib);
    }

    #[test]
    fn what_a_terminal_would_act_on_is_escaped() {
        assert_eq!(shown(b"a\x1b[31m\n\xff"), "a\\u{1b}[31m\\n\\xff");
        assert_eq!(shown("ä\u{202e}b\"'".as_bytes()), "ä\\u{202e}b\"'");
    }
}
