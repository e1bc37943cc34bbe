//! Channels: moving names of snapshots.

use serde::{Deserialize, Serialize};

use super::snapshots::next_key;
use super::{Catalog, CatalogError};
use crate::base::{ChannelName, SnapshotId, SnapshotName};
use crate::objects::{Key, Prefix};

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

/// Says of each move of one channel, oldest first, whether it lost: it was made at the same time as the one after it, by somebody who
/// had seen the same, and counts no more.
#[must_use]
pub fn lost(moves: &[ChannelMove]) -> Vec<bool> {
    let next = moves.iter().skip(1).map(Some).chain([None]);
    moves
        .iter()
        .zip(next)
        .map(|(step, next)| next.is_some_and(|next| next.previous == step.previous))
        .collect()
}

/// What a channel has held, oldest first, as a person would go back through it: a roll-back takes away what it left, and what lost
/// against another move never was.
#[must_use]
pub fn held(moves: &[ChannelMove]) -> Vec<SnapshotId> {
    let mut held: Vec<SnapshotId> = Vec::new();
    for (step, _) in moves.iter().zip(lost(moves)).filter(|(_, lost)| !lost) {
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
    /// [`CatalogError::Overtaken`] where another move was made at the same time and counts instead. Fails when the store cannot be
    /// read or written.
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
        let listed = self.objects().list(&Prefix::new(prefix)?).await?;
        if let Some(winner) = listed.last().filter(|last| overtakes(&last.key, &key)) {
            let winner: Option<ChannelMove> = self.read(&winner.key).await?;
            if let Some(winner) = winner.filter(|winner| winner.snapshot != snapshot) {
                let (channel, snapshot) = (format!("{name}:{channel}"), winner.snapshot);
                return Err(CatalogError::Overtaken { channel, snapshot });
            }
        }
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

/// Whether one move counts instead of another one that was made at the same time: both took the next number after the same move.
fn overtakes(one: &Key, other: &Key) -> bool {
    let sequence = |key: &Key| key.name().split_once('-').map(|(sequence, _)| sequence.to_owned());
    one > other && sequence(one) == sequence(other)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::base::{Classify as _, ErrorKind, now};
    use crate::objects::{ObjectStore as _, SimStore};

    fn step(previous: Option<SnapshotId>, snapshot: SnapshotId, way: Way) -> ChannelMove {
        let (name, channel) = ("a".parse().unwrap(), "prod".parse().unwrap());
        ChannelMove { version: 1, name, channel, snapshot, previous, way, at: now() }
    }

    #[test]
    fn what_lost_is_nothing_to_go_back_to() {
        let [a, b, c, d] = [(); 4].map(|()| SnapshotId::generate());
        let moves = [
            step(None, a, Way::On),
            step(Some(a), b, Way::On),
            step(Some(a), c, Way::On),
            step(Some(c), d, Way::On),
        ];
        assert_eq!(lost(&moves), [false, true, false, false]);
        assert_eq!(held(&moves), [a, c, d]);
        let first = [step(None, a, Way::On), step(None, b, Way::On)];
        assert_eq!(held(&first), [b]);
        let back = [step(None, a, Way::On), step(Some(a), b, Way::On), step(Some(b), a, Way::Back)];
        assert_eq!((lost(&back), held(&back)), (vec![false; 3], vec![a]));
    }

    #[tokio::test]
    async fn who_loses_a_race_is_told() {
        let sim = SimStore::new(1);
        let (name, channel) = ("a".parse().unwrap(), "prod".parse().unwrap());
        let slow = Catalog::new(Arc::new(sim.actor("slow")));
        let fast = Catalog::new(Arc::new(sim.actor("fast")));
        let [a, b] = [(); 2].map(|()| SnapshotId::generate());
        // The slow one has listed the moves, and waits before it writes its own.
        sim.stall_after("slow", 1);
        let task = {
            let (slow, name, channel): (_, SnapshotName, ChannelName) = (slow.clone(), name, channel);
            tokio::spawn(async move { slow.move_channel(&name, &channel, a, Way::On, now()).await })
        };
        while !sim.is_stalled("slow") {
            tokio::task::yield_now().await;
        }
        let (name, channel) = ("a".parse().unwrap(), "prod".parse().unwrap());
        tokio::time::sleep(std::time::Duration::from_millis(3)).await;
        fast.move_channel(&name, &channel, b, Way::On, now()).await.unwrap();
        sim.resume("slow");
        let error = task.await.unwrap().unwrap_err();
        assert!(matches!(error, CatalogError::Overtaken { snapshot, .. } if snapshot == b), "{error:?}");
        assert_eq!(error.kind(), ErrorKind::Conflict);
        assert_eq!(fast.channel(&name, &channel).await.unwrap().unwrap().snapshot, b);
        assert_eq!(sim.list(&Prefix::new("chan").unwrap()).await.unwrap().len(), 2);
    }
}
