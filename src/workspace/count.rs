//! Counting a tree beside the save that reads it, so that people see how much is left.

use std::collections::HashSet;
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::event::WorkspaceEvent;
use super::tree::{Excludes, SourceTree, StatKind, WalkItem, WalkOptions, walk};
use crate::base::{Monotonic, Sink};

/// 500 ms: a save that is done by then has nothing to foretell, and pays nothing for it.
const AFTER: Duration = Duration::from_millis(500);
/// How often the thread looks whether it is still wanted.
const PAUSE: Duration = Duration::from_millis(20);

/// A count in work. Dropping it stops it.
#[derive(Debug)]
pub(super) struct Counting {
    stop: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

impl Counting {
    /// Begins to count what a save of this tree would read. Costs one look at each entry, some 2 µs.
    pub(super) fn start(
        tree: &SourceTree,
        excludes: Option<Arc<Excludes>>,
        one_file_system: bool,
        sink: Arc<dyn Sink<WorkspaceEvent>>,
    ) -> Self {
        let stop = CancellationToken::new();
        let options = WalkOptions { threads: 0, excludes, one_file_system };
        let (tree, stopped) = (tree.clone(), stop.clone());
        let count = move || {
            if let Some((files, bytes)) = wanted(&stopped).then(|| count(&tree, options, &stopped)).flatten()
            {
                sink.emit(WorkspaceEvent::Totals { files, bytes });
            }
        };
        // Without a thread nothing is foretold.
        Self { stop, thread: Builder::new().name("count".to_owned()).spawn(count).ok() }
    }
}

impl Drop for Counting {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            // A sink that panics is the caller's; the save itself goes on.
            thread.join().unwrap_or_default();
        }
    }
}

/// Waits until the save has taken a while; returns whether it still runs then.
fn wanted(stopped: &CancellationToken) -> bool {
    let clock = Monotonic::start();
    while clock.elapsed() < AFTER {
        if stopped.is_cancelled() {
            return false;
        }
        std::thread::sleep(PAUSE);
    }
    !stopped.is_cancelled()
}

/// Counts files and their bytes, those with several names once; `None` where it was stopped.
fn count(tree: &SourceTree, options: WalkOptions, stopped: &CancellationToken) -> Option<(u64, u64)> {
    let (mut files, mut bytes, mut seen) = (0, 0_u64, HashSet::new());
    for item in walk(tree, options) {
        if stopped.is_cancelled() {
            return None;
        }
        let WalkItem::Found(found) = item else { continue };
        let stat = found.stat;
        if stat.kind == StatKind::File && (stat.nlink < 2 || seen.insert((stat.dev, stat.ino))) {
            files += 1;
            bytes = bytes.saturating_add(stat.size);
        }
    }
    Some((files, bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::tests::Place;

    #[test]
    fn what_a_save_reads_is_counted_once() {
        let place = Place::new();
        place.write("tree/a", "12345");
        place.write("tree/b/c", "1234567");
        place.write("tree/b/left-out", "1");
        std::fs::hard_link(place.path("tree/a"), place.path("tree/b/again")).unwrap();
        let tree = SourceTree::open(&place.path("tree")).unwrap();
        let excludes = Some(Arc::new(Excludes::new(&["left-out".to_owned()]).unwrap()));
        let options = WalkOptions { threads: 0, excludes, one_file_system: false };
        let stop = CancellationToken::new();
        assert_eq!(count(&tree, options.clone(), &stop), Some((2, 12)));
        stop.cancel();
        assert_eq!(count(&tree, options, &stop), None);
    }

    #[test]
    fn a_count_ends_when_it_is_dropped_and_else_tells_the_totals() {
        #[derive(Debug, Default)]
        struct Told(std::sync::Mutex<Vec<WorkspaceEvent>>);
        impl Sink<WorkspaceEvent> for Told {
            fn emit(&self, event: WorkspaceEvent) {
                self.0.lock().unwrap().push(event);
            }
        }
        let place = Place::new();
        place.write("tree/a", "12345");
        let (tree, told) = (SourceTree::open(&place.path("tree")).unwrap(), Arc::new(Told::default()));
        drop(Counting::start(&tree, None, false, Arc::clone(&told) as _));
        assert_eq!(*told.0.lock().unwrap(), []);
        let counting = Counting::start(&tree, None, false, Arc::clone(&told) as _);
        while told.0.lock().unwrap().is_empty() {
            std::thread::sleep(PAUSE);
        }
        drop(counting);
        assert_eq!(*told.0.lock().unwrap(), [WorkspaceEvent::Totals { files: 1, bytes: 5 }]);
    }
}
