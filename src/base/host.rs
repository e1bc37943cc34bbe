//! Which process owns a piece of work, and whether it still lives.

use std::fs;
use std::io;

use serde::{Deserialize, Serialize};

/// A process on a host, told apart from a later process with the same id by its start time, and across reboots by the boot id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// The host: its machine id where it has one, else its name.
    pub host: String,
    /// The kernel's id of this boot.
    pub boot: String,
    /// The process id.
    pub pid: u32,
    /// When the process started, in clock ticks since boot (`/proc/PID/stat`, field 22).
    pub started_ticks: u64,
}

/// What this host can say of an owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Liveness {
    /// The process runs on this host.
    Alive,
    /// The process ran on this host and has ended.
    Dead,
    /// The owner is on another host, so only its heartbeat can tell.
    Elsewhere,
}

impl Owner {
    /// Returns the owner that this process is.
    ///
    /// # Errors
    ///
    /// Fails where `/proc` cannot be read.
    pub fn current() -> io::Result<Self> {
        let pid = std::process::id();
        Ok(Self { host: host_id()?, boot: boot_id()?, pid, started_ticks: start_ticks(pid)? })
    }

    /// Returns whether the owner still lives, as far as this host can say.
    ///
    /// # Errors
    ///
    /// Fails where `/proc` cannot be read.
    pub fn liveness(&self) -> io::Result<Liveness> {
        if self.host != host_id()? {
            return Ok(Liveness::Elsewhere);
        }
        if self.boot != boot_id()? {
            // The same machine id under another boot id: a reboot, or a container of the same image.
            // A clone of a running machine would share both, and its owner is then seen as alive or dead by pid.
            return Ok(Liveness::Dead);
        }
        match start_ticks(self.pid) {
            Ok(ticks) if ticks == self.started_ticks => Ok(Liveness::Alive),
            Ok(_) => Ok(Liveness::Dead),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Liveness::Dead),
            Err(error) => Err(error),
        }
    }
}

fn host_id() -> io::Result<String> {
    // The PID namespace belongs to the identity: a container sees other processes under the same ids.
    let namespace = fs::read_link("/proc/self/ns/pid")?.to_string_lossy().into_owned();
    let machine = fs::read_to_string("/etc/machine-id").unwrap_or_default();
    let machine = machine.trim();
    let name = gethostname::gethostname().to_string_lossy().into_owned();
    Ok(format!("{name}/{machine}/{namespace}"))
}

fn boot_id() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

fn start_ticks(pid: u32) -> io::Result<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The command name stands in parentheses and may hold anything; field 3 follows the last one.
    let after = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    after.split_whitespace().nth(19).and_then(|ticks| ticks.parse().ok()).ok_or_else(|| {
        io::Error::new(io::ErrorKind::InvalidData, format!("/proc/{pid}/stat has no start time"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_lives_and_its_namesakes_do_not() {
        let owner = Owner::current().unwrap();
        assert_eq!(owner.liveness().unwrap(), Liveness::Alive);
        let before = Owner { started_ticks: owner.started_ticks - 1, ..owner.clone() };
        assert_eq!(before.liveness().unwrap(), Liveness::Dead);
        let earlier_boot = Owner { boot: "other".into(), ..owner.clone() };
        assert_eq!(earlier_boot.liveness().unwrap(), Liveness::Dead);
        let other = Owner { host: "other".into(), ..owner };
        assert_eq!(other.liveness().unwrap(), Liveness::Elsewhere);
    }

    #[test]
    fn a_finished_child_is_dead() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let mut owner = Owner::current().unwrap();
        owner.pid = child.id();
        child.wait().unwrap();
        assert_eq!(owner.liveness().unwrap(), Liveness::Dead);
    }
}
