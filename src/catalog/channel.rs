//! Channels: moving names of snapshots.

use serde::{Deserialize, Serialize};

use super::snapshots::next_key;
use super::{Catalog, CatalogError};
use crate::base::{ChannelName, SnapshotId, SnapshotName};
use crate::objects::Prefix;

/// A move of a channel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChannelMove {
    /// Version of this record: 1.
    pub version: u32,
    /// The snapshots' name.
    pub name: SnapshotName,
    /// The channel.
    pub channel: ChannelName,
    /// The snapshot that it holds from now on.
    pub snapshot: SnapshotId,
    /// The snapshot that it held before.
    pub previous: Option<SnapshotId>,
    /// Which way it went.
    #[serde(default)]
    pub way: Way,
    /// When.
    pub at: jiff::Timestamp,
}

/// Which way a channel moves.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Way {
    /// On, to a snapshot that somebody chose.
    #[default]
    On,
    /// Back, to where it had been.
    Back,
}

/// What a channel has held, oldest first, as a person would go back through it: a roll-back takes away what it left.
#[must_use]
pub fn held(moves: &[ChannelMove]) -> Vec<SnapshotId> {
    let mut held: Vec<SnapshotId> = Vec::new();
    for step in moves {
        match held.iter().rposition(|id| *id == step.snapshot) {
            Some(index) if step.way == Way::Back => held.truncate(index + 1),
            _ => held.push(step.snapshot),
        }
    }
    held
}

impl Catalog {
    /// Moves a channel to `snapshot`; returns the move. A channel that holds it already is left alone, and its last move returned.
    ///
    /// # Errors
    ///
    /// Fails when the store cannot be read or written.
    pub async fn move_channel(
        &self,
        name: &SnapshotName,
        channel: &ChannelName,
        snapshot: SnapshotId,
        way: Way,
        at: jiff::Timestamp,
    ) -> Result<ChannelMove, CatalogError> {
        let prefix = format!("chan/{name}/{channel}");
        let listed = self.objects().list(&Prefix::new(prefix.clone())?).await?;
        let last: Option<ChannelMove> = match listed.last() {
            Some(object) => self.read(&object.key).await?,
            None => None,
        };
        if let Some(last) = last.as_ref().filter(|last| last.snapshot == snapshot) {
            return Ok(last.clone());
        }
        let step = ChannelMove {
            version: 1,
            name: name.clone(),
            channel: channel.clone(),
            snapshot,
            previous: last.map(|last| last.snapshot),
            way,
            at,
        };
        let key = next_key(&prefix, &listed)?;
        self.write(&key, &step).await?;
        Ok(step)
    }

    /// Returns the last move of a channel; `None` when it was never moved.
    ///
    /// # Errors
    ///
    /// Fails when the store cannot be read.
    pub async fn channel(
        &self,
        name: &SnapshotName,
        channel: &ChannelName,
    ) -> Result<Option<ChannelMove>, CatalogError> {
        let listed = self.objects().list(&Prefix::new(format!("chan/{name}/{channel}"))?).await?;
        match listed.last() {
            Some(object) => self.read(&object.key).await,
            None => Ok(None),
        }
    }

    /// Returns the moves of one channel, or of all channels of a name, oldest first by channel.
    ///
    /// # Errors
    ///
    /// Fails when the store cannot be read.
    pub async fn channel_moves(
        &self,
        name: &SnapshotName,
        channel: Option<&ChannelName>,
    ) -> Result<Vec<ChannelMove>, CatalogError> {
        match channel {
            Some(channel) => self.read_below(format!("chan/{name}/{channel}")).await,
            None => self.read_below(format!("chan/{name}")).await,
        }
    }

    /// Returns what every channel of every name holds now.
    ///
    /// # Errors
    ///
    /// Fails when the store cannot be read.
    pub async fn channels(&self) -> Result<Vec<ChannelMove>, CatalogError> {
        let mut moves: Vec<ChannelMove> = self.read_below("chan".to_owned()).await?;
        moves.reverse();
        moves.dedup_by(|a, b| a.name == b.name && a.channel == b.channel);
        moves.reverse();
        Ok(moves)
    }
}
