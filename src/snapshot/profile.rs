//! What providers allow a sandbox and its image.

use std::fmt;

use crate::base::ByteSize;
use crate::base::config::Profile;
use crate::template::Resources;

/// A resource that a provider does not allow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProfileBreach {
    /// The profile.
    pub profile: String,
    /// The resource: `cpu`, `memory` or `disk`.
    pub resource: &'static str,
    /// What was asked for.
    pub asked: String,
    /// The rule.
    pub rule: String,
}

impl fmt::Display for ProfileBreach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} {} is not possible with profile `{}`: {}",
            self.resource, self.asked, self.profile, self.rule
        )
    }
}

/// Returns the built-in profiles by name.
///
/// Daytona's numbers are its server's defaults; E2B's are those of its build service. Both may be raised for a customer, which
/// an own profile in `kiln.toml` then says.
#[must_use]
pub fn built_in_profiles() -> Vec<(&'static str, Profile)> {
    vec![
        (
            "daytona",
            Profile {
                max_cpu: Some(4),
                even_cpu: false,
                max_memory: Some(ByteSize(8 * ByteSize::GIB)),
                memory_step: Some(ByteSize(ByteSize::GIB)),
                max_disk: Some(ByteSize(10 * ByteSize::GIB)),
                disk_step: Some(ByteSize(ByteSize::GIB)),
                // The server divides by 2^30 and calls it GB.
                max_image: Some(ByteSize(20 * ByteSize::GIB)),
            },
        ),
        (
            "e2b",
            Profile {
                max_cpu: Some(8),
                even_cpu: true,
                max_memory: Some(ByteSize(8 * ByteSize::GIB)),
                memory_step: Some(ByteSize(2 * ByteSize::MIB)),
                max_disk: None,
                disk_step: None,
                max_image: Some(ByteSize(25_000 * ByteSize::MIB)),
            },
        ),
    ]
}

/// Returns the built-in profile of that name.
#[must_use]
pub fn built_in_profile(name: &str) -> Option<Profile> {
    built_in_profiles().into_iter().find(|(known, _)| *known == name).map(|(_, profile)| profile)
}

/// Holds resources to a profile.
///
/// # Errors
///
/// The first resource that the profile does not allow.
pub fn check_resources(name: &str, profile: &Profile, resources: &Resources) -> Result<(), ProfileBreach> {
    let breach = |resource, asked: String, rule: String| ProfileBreach {
        profile: name.to_owned(),
        resource,
        asked,
        rule,
    };
    let cpu = resources.cpu;
    if cpu == 0 || profile.max_cpu.is_some_and(|max| cpu > max) {
        let most = profile.max_cpu.map_or(String::new(), |max| format!(" and at most {max}"));
        return Err(breach("cpu", cpu.to_string(), format!("at least 1{most}")));
    }
    if profile.even_cpu && cpu > 1 && cpu % 2 == 1 {
        return Err(breach("cpu", cpu.to_string(), "1 or an even number".into()));
    }
    for (resource, asked, most, step) in [
        ("memory", resources.memory, profile.max_memory, profile.memory_step),
        ("disk", resources.disk, profile.max_disk, profile.disk_step),
    ] {
        if let Some(most) = most.filter(|most| asked > *most) {
            return Err(breach(resource, asked.to_string(), format!("at most {most}")));
        }
        if let Some(step) = step.filter(|step| step.0 > 0 && asked.0 % step.0 != 0) {
            return Err(breach(resource, asked.to_string(), format!("a multiple of {step}")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resources(cpu: u32, memory: &str, disk: &str) -> Resources {
        Resources { cpu, memory: memory.parse().unwrap(), disk: disk.parse().unwrap() }
    }

    #[test]
    fn ceilings_and_steps_are_held() {
        for (profile, asked, wrong) in [
            ("daytona", resources(4, "8GiB", "10GiB"), None),
            ("daytona", resources(5, "8GiB", "10GiB"), Some("cpu")),
            ("daytona", resources(0, "8GiB", "10GiB"), Some("cpu")),
            ("daytona", resources(4, "9GiB", "10GiB"), Some("memory")),
            ("daytona", resources(4, "1536MiB", "10GiB"), Some("memory")),
            ("daytona", resources(2, "8GiB", "20GiB"), Some("disk")),
            ("daytona", resources(2, "8GiB", "10GB"), Some("disk")),
            ("e2b", resources(1, "1024MiB", "100GiB"), None),
            ("e2b", resources(3, "1024MiB", "10GiB"), Some("cpu")),
            ("e2b", resources(8, "8GiB", "10GiB"), None),
            ("e2b", resources(8, "1023MiB", "10GiB"), Some("memory")),
            ("e2b", resources(8, "8194MiB", "10GiB"), Some("memory")),
        ] {
            let found = check_resources(profile, &built_in_profile(profile).unwrap(), &asked).err();
            assert_eq!(found.map(|breach| breach.resource), wrong, "{profile} {asked:?}");
        }
    }

    #[test]
    fn the_message_names_resource_value_and_rule() {
        let breach =
            check_resources("daytona", &built_in_profile("daytona").unwrap(), &resources(2, "8GiB", "20GiB"))
                .unwrap_err();
        assert_eq!(
            breach.to_string(),
            "disk 20.0 GiB is not possible with profile `daytona`: at most 10.0 GiB"
        );
    }
}
