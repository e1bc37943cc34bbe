//! The events of a job, in the forms in which they can be told.

use std::fmt::Debug;

use jiff::Timestamp;
use serde::Serialize;

use super::collection::{CollectionBar, CollectionLines};
use super::lines::{Lines, Telling};
use super::pruning::{self, PruneBar};
use super::transfer_bar::TransferBar;
use super::transfer_lines::TransferLines;
use super::tty::Tree;
use crate::cli::paint::Paint;
use crate::docker::EngineEvent;
use crate::image::PruneEvent;
use crate::snapshot::{BakeEvent, StageEvent};
use crate::store::gc::GcEvent;
use crate::workspace::WorkspaceEvent;

/// An event that can be told: as lines, on a screen, and as JSON.
pub(in crate::cli) trait Story: Debug + Serialize + Sized {
    /// Makes lines of events.
    type Lines: Debug + Send;
    /// Shows events on a terminal.
    type Screen: Debug + Send;

    /// Begins to tell lines.
    fn lines(telling: Telling) -> Self::Lines;

    /// Returns the lines that this event adds; often one, sometimes none.
    fn to_lines(&self, lines: &mut Self::Lines, at: Timestamp) -> Vec<String>;

    /// Takes the terminal.
    fn screen(paint: Paint) -> Self::Screen;

    /// Shows this event; returns whether the terminal is still there.
    fn to_screen(&self, screen: &mut Self::Screen, at: Timestamp) -> bool;

    /// Takes what is live off the screen.
    fn leave(screen: &mut Self::Screen);

    /// Returns whether this is told also to somebody who asked for quiet.
    fn is_warning(&self) -> bool;

    /// Returns an event that says something beside the job, such as that it is being cancelled.
    fn notice(code: &'static str, message: &str) -> Self;
}

impl Story for BakeEvent {
    type Lines = Lines;
    type Screen = Box<Tree>;

    fn lines(telling: Telling) -> Lines {
        Lines::new(telling)
    }

    fn to_lines(&self, lines: &mut Lines, at: Timestamp) -> Vec<String> {
        lines.tell(at, self)
    }

    fn screen(paint: Paint) -> Box<Tree> {
        Box::new(Tree::on_stderr(paint))
    }

    fn to_screen(&self, screen: &mut Box<Tree>, _at: Timestamp) -> bool {
        screen.tell(self)
    }

    fn leave(screen: &mut Box<Tree>) {
        screen.finish();
    }

    fn is_warning(&self) -> bool {
        matches!(self, Self::Engine(EngineEvent::Warning { .. }))
    }

    fn notice(code: &'static str, message: &str) -> Self {
        StageEvent::Notice { code: code.to_owned(), message: message.to_owned() }.into()
    }
}

impl Story for GcEvent {
    type Lines = CollectionLines;
    type Screen = Box<CollectionBar>;

    fn lines(telling: Telling) -> CollectionLines {
        CollectionLines::new(telling)
    }

    fn to_lines(&self, lines: &mut CollectionLines, at: Timestamp) -> Vec<String> {
        lines.tell(at, self)
    }

    fn screen(paint: Paint) -> Box<CollectionBar> {
        Box::new(CollectionBar::on_stderr(paint))
    }

    fn to_screen(&self, screen: &mut Box<CollectionBar>, _at: Timestamp) -> bool {
        screen.tell(self)
    }

    fn leave(screen: &mut Box<CollectionBar>) {
        screen.finish();
    }

    fn is_warning(&self) -> bool {
        matches!(self, Self::Warning { .. })
    }

    fn notice(code: &'static str, _message: &str) -> Self {
        Self::Step { name: code }
    }
}

impl Story for PruneEvent {
    type Lines = Telling;
    type Screen = Box<PruneBar>;

    fn lines(telling: Telling) -> Telling {
        telling
    }

    fn to_lines(&self, telling: &mut Telling, _at: Timestamp) -> Vec<String> {
        pruning::line(*telling, self).into_iter().collect()
    }

    fn screen(paint: Paint) -> Box<PruneBar> {
        Box::new(PruneBar::on_stderr(paint))
    }

    fn to_screen(&self, screen: &mut Box<PruneBar>, _at: Timestamp) -> bool {
        screen.tell(self)
    }

    fn leave(screen: &mut Box<PruneBar>) {
        screen.finish();
    }

    fn is_warning(&self) -> bool {
        matches!(self, Self::Warning { .. })
    }

    fn notice(code: &'static str, _message: &str) -> Self {
        Self::Step { name: code }
    }
}

impl Story for WorkspaceEvent {
    type Lines = TransferLines;
    type Screen = Box<TransferBar>;

    fn lines(telling: Telling) -> TransferLines {
        TransferLines::new(telling)
    }

    fn to_lines(&self, lines: &mut TransferLines, at: Timestamp) -> Vec<String> {
        lines.tell(at, self)
    }

    fn screen(paint: Paint) -> Box<TransferBar> {
        Box::new(TransferBar::on_stderr(paint))
    }

    fn to_screen(&self, screen: &mut Box<TransferBar>, at: Timestamp) -> bool {
        screen.tell(at, self)
    }

    fn leave(screen: &mut Box<TransferBar>) {
        screen.finish();
    }

    fn is_warning(&self) -> bool {
        matches!(self, Self::Warning { .. })
    }

    fn notice(code: &'static str, _message: &str) -> Self {
        Self::Step { name: code }
    }
}
