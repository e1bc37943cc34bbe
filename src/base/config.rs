//! The environment and `kiln.toml`, read once at the start and handed down as values.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Deserializer, Serialize};

use super::{ByteSize, Classify, ErrorKind, LabelPattern, Length, NamePattern};

/// The process environment, read once.
#[derive(Debug, Clone, Default)]
pub struct Environment {
    variables: BTreeMap<String, String>,
}

impl Environment {
    /// Reads the environment of this process. Variables that are not UTF-8 are left out.
    #[must_use]
    pub fn of_process() -> Self {
        let variables = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        Self { variables }
    }

    /// Makes an environment of given variables.
    #[must_use]
    pub fn of<const N: usize>(variables: [(&str, &str); N]) -> Self {
        Self { variables: variables.map(|(name, value)| (name.to_owned(), value.to_owned())).into() }
    }

    /// Returns this environment with a variable set, or set otherwise.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.variables.insert(name.to_owned(), value.to_owned());
        self
    }

    /// Returns the value of `name`; an empty value counts as unset.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// Returns the default store: `$XDG_DATA_HOME/kiln/store`.
    #[must_use]
    pub fn default_store(&self) -> PathBuf {
        self.xdg("XDG_DATA_HOME", ".local/share").join("kiln/store")
    }

    /// Returns the folder for locks and other state of this host: `$XDG_STATE_HOME/kiln`.
    #[must_use]
    pub fn state_dir(&self) -> PathBuf {
        self.xdg("XDG_STATE_HOME", ".local/state").join("kiln")
    }

    /// Returns the folder for what can be made again: `$XDG_CACHE_HOME/kiln`.
    #[must_use]
    pub fn cache_dir(&self) -> PathBuf {
        self.xdg("XDG_CACHE_HOME", ".cache").join("kiln")
    }

    fn config_dir(&self) -> PathBuf {
        self.xdg("XDG_CONFIG_HOME", ".config").join("kiln")
    }

    fn xdg(&self, name: &str, below_home: &str) -> PathBuf {
        // A relative path in such a variable is invalid by the XDG Base Directory Specification and is ignored.
        match self.get(name).map(PathBuf::from).filter(|path| path.is_absolute()) {
            Some(path) => path,
            None => PathBuf::from(self.get("HOME").unwrap_or("/")).join(below_home),
        }
    }
}

/// What stands in `kiln.toml`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The store's URL, when neither the command line nor the environment names one.
    pub store: Option<String>,
    /// Settings of builds.
    #[serde(default)]
    pub build: BuildConfig,
    /// Provider profiles by name, beside the built-in ones.
    #[serde(default)]
    pub profile: BTreeMap<String, Profile>,
    /// Settings of workspaces.
    #[serde(default)]
    pub workspace: WorkspaceConfig,
    /// Settings of images.
    #[serde(default)]
    pub image: ImageConfig,
}

/// The `[image]` table of `kiln.toml`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageConfig {
    /// What `kiln image prune` takes away.
    pub prune: Option<ImageRules>,
}

/// The `[image.prune]` table of `kiln.toml`: which images go. It has at least one rule, and the rules do not contradict each other.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "ImageTable")]
pub struct ImageRules {
    /// Only snapshots whose names fit one of these; none means all.
    pub name: Vec<NamePattern>,
    /// None whose names fit one of these.
    pub not_name: Vec<NamePattern>,
    /// Of each name the newest so many are kept. Where no other rule takes snapshots of a name, the others go.
    pub keep_last: Option<NonZeroU32>,
    /// What is younger is kept; an hour where it is not said.
    pub min_age: Option<Length>,
    /// What is older goes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_age: Option<Length>,
    /// What was not used for so long goes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unused_for: Option<Length>,
    /// What is revoked, expired or left over goes; with any other rule, too.
    pub expired: bool,
    /// The least recently used go until this store's images take no more than this together.
    pub max_total: Option<ByteSize>,
    /// Above so many percent of the engine's disk …
    pub high: Option<u8>,
    /// … the least recently used go until it is down to so many.
    pub low: Option<u8>,
    /// The least recently used go at once until so much of the engine's disk is free.
    pub min_free: Option<ByteSize>,
    /// Of the build cache, what nobody used for longest goes until it takes no more than this.
    pub include_cache: Option<ByteSize>,
    /// How long a snapshot is put aside before its image is deleted; a day where it is not said.
    pub grace: Option<Length>,
    /// Time in which nobody watched the engine does not count as use.
    pub trust_created: bool,
}

/// The `[image.prune]` table as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ImageTable {
    #[serde(default)]
    name: Vec<NamePattern>,
    #[serde(default)]
    not_name: Vec<NamePattern>,
    keep_last: Option<NonZeroU32>,
    min_age: Option<Length>,
    #[serde(default, deserialize_with = "some_length")]
    max_age: Option<Length>,
    #[serde(default, deserialize_with = "some_length")]
    unused_for: Option<Length>,
    #[serde(default)]
    expired: bool,
    max_total: Option<ByteSize>,
    high: Option<u8>,
    low: Option<u8>,
    min_free: Option<ByteSize>,
    include_cache: Option<ByteSize>,
    grace: Option<Length>,
    #[serde(default)]
    trust_created: bool,
}

impl TryFrom<ImageTable> for ImageRules {
    type Error = String;

    fn try_from(table: ImageTable) -> Result<Self, String> {
        let rules = Self {
            name: table.name,
            not_name: table.not_name,
            keep_last: table.keep_last,
            min_age: table.min_age,
            max_age: table.max_age,
            unused_for: table.unused_for,
            expired: table.expired,
            max_total: table.max_total,
            high: table.high,
            low: table.low,
            min_free: table.min_free,
            include_cache: table.include_cache,
            grace: table.grace,
            trust_created: table.trust_created,
        };
        match rules.contradiction() {
            Some(reason) => Err(format!("it {reason}")),
            None => Ok(rules),
        }
    }
}

impl ImageRules {
    /// 1 h: longer than a bake that was begun needs to find its base.
    const MIN_AGE: Length = Length::seconds(3_600);

    /// 24 h: whoever misses a snapshot has a working day to say so.
    const GRACE: Length = Length::seconds(86_400);

    /// Returns the age under which nothing goes.
    #[must_use]
    pub fn min_age(&self) -> Length {
        self.min_age.unwrap_or(Self::MIN_AGE)
    }

    /// Returns how long a snapshot is put aside.
    #[must_use]
    pub fn grace(&self) -> Length {
        self.grace.unwrap_or(Self::GRACE)
    }

    /// Returns whether a rule says by itself which images go, so that `keep_last` only keeps.
    #[must_use]
    pub fn takes_by_itself(&self) -> bool {
        self.max_age.is_some() || self.unused_for.is_some() || self.asks_for_room() || self.expired
    }

    /// Returns whether a rule takes the least recently used.
    #[must_use]
    pub fn asks_for_room(&self) -> bool {
        self.max_total.is_some() || self.asks_for_disk()
    }

    /// Returns whether a rule looks at the engine's disk.
    #[must_use]
    pub fn asks_for_disk(&self) -> bool {
        self.high.is_some() || self.low.is_some() || self.min_free.is_some()
    }

    /// Returns whether any rule is there that takes something.
    #[must_use]
    pub fn takes_anything(&self) -> bool {
        self.takes_by_itself() || self.keep_last.is_some() || self.include_cache.is_some()
    }

    /// Returns why the rules cannot be followed, if they cannot: a predicate, such as `has no rule …`.
    #[must_use]
    pub fn contradiction(&self) -> Option<String> {
        if !self.takes_anything() {
            return Some("has no rule that takes anything, such as unused_for or keep_last".into());
        }
        match (self.high, self.low) {
            (None, None) => {}
            (Some(_), None) => return Some("has a high and no low watermark".into()),
            (None, Some(_)) => return Some("has a low and no high watermark".into()),
            (Some(high), Some(_)) if !(1..=99).contains(&high) => {
                return Some(format!("has a high watermark of {high} percent, which is none of 1 to 99"));
            }
            (Some(high), Some(low)) if low >= high => {
                return Some(format!(
                    "has a low watermark of {low} percent, which is not below the high one of {high}"
                ));
            }
            (Some(_), Some(_)) => {}
        }
        if let (Some(max), Some(min)) = (self.max_age, self.min_age)
            && min >= max
        {
            return Some(format!(
                "keeps what is younger than {min} (min_age), and takes what is older than {max} (max_age)"
            ));
        }
        if let Some(both) = self.name.iter().find(|pattern| self.not_name.contains(pattern)) {
            return Some(format!("takes and leaves out the names `{both}`"));
        }
        None
    }
}

/// The `[workspace]` table of `kiln.toml`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WorkspaceConfig {
    /// What `kiln workspace prune` keeps, each for some workspaces; the first that fits a workspace's name counts.
    #[serde(default)]
    pub prune: Vec<PruneConfig>,
}

/// A `[[workspace.prune]]` table of `kiln.toml`: which revisions of some workspaces are kept. It has at least one rule.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(try_from = "PruneTable")]
pub struct PruneConfig {
    /// The workspaces that it is for: those whose names fit one of these.
    pub workspaces: Vec<NamePattern>,
    /// The newest so many.
    pub keep_last: Option<NonZeroU32>,
    /// Those saved so long ago or later.
    pub keep_within: Option<Length>,
    /// The newest of each of the last so many hours that have one.
    pub keep_hourly: Option<NonZeroU32>,
    /// The same of days.
    pub keep_daily: Option<NonZeroU32>,
    /// The same of weeks.
    pub keep_weekly: Option<NonZeroU32>,
    /// The same of months.
    pub keep_monthly: Option<NonZeroU32>,
    /// Those that have one of these labels.
    pub keep_label: Vec<LabelPattern>,
    /// Those used so long ago or later.
    pub unused_for: Option<Length>,
}

/// A `[[workspace.prune]]` table as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PruneTable {
    workspaces: Option<Vec<NamePattern>>,
    keep_last: Option<NonZeroU32>,
    #[serde(default, deserialize_with = "some_length")]
    keep_within: Option<Length>,
    keep_hourly: Option<NonZeroU32>,
    keep_daily: Option<NonZeroU32>,
    keep_weekly: Option<NonZeroU32>,
    keep_monthly: Option<NonZeroU32>,
    #[serde(default)]
    keep_label: Vec<LabelPattern>,
    #[serde(default, deserialize_with = "some_length")]
    unused_for: Option<Length>,
}

/// A length of no time would be a rule that keeps nothing.
fn some_length<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Length>, D::Error> {
    let length = Length::deserialize(deserializer)?;
    if length.0.is_zero() {
        return Err(serde::de::Error::custom("a length of no time keeps nothing"));
    }
    Ok(Some(length))
}

impl TryFrom<PruneTable> for PruneConfig {
    type Error = &'static str;

    fn try_from(table: PruneTable) -> Result<Self, &'static str> {
        let counts =
            [table.keep_last, table.keep_hourly, table.keep_daily, table.keep_weekly, table.keep_monthly];
        let lengths = [table.keep_within, table.unused_for];
        if counts == [None; 5] && lengths == [None; 2] && table.keep_label.is_empty() {
            return Err("it has no rule, such as keep_last or keep_within, and would remove everything");
        }
        let workspaces = match table.workspaces {
            Some(patterns) => patterns,
            None => vec!["*".parse().map_err(|_never| "`*` is a pattern")?],
        };
        Ok(Self {
            workspaces,
            keep_last: table.keep_last,
            keep_within: table.keep_within,
            keep_hourly: table.keep_hourly,
            keep_daily: table.keep_daily,
            keep_weekly: table.keep_weekly,
            keep_monthly: table.keep_monthly,
            keep_label: table.keep_label,
            unused_for: table.unused_for,
        })
    }
}

/// The `[build]` table of `kiln.toml`: defaults of `kiln build`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BuildConfig {
    /// Default of `--min-free`.
    pub min_free: Option<ByteSize>,
    /// Default of `--profile`.
    pub profile: Option<String>,
    /// Default of `--build-ca`.
    #[serde(default)]
    pub build_ca: Vec<PathBuf>,
    /// Default of `--ca-cert`.
    #[serde(default)]
    pub ca_cert: Vec<PathBuf>,
    /// Default of `--timeout`.
    pub timeout: Option<Length>,
}

/// What a provider allows a sandbox and its image. An absent value means no limit.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// Most CPUs.
    pub max_cpu: Option<u32>,
    /// Whether more than one CPU must be an even number.
    #[serde(default)]
    pub even_cpu: bool,
    /// Most memory.
    pub max_memory: Option<ByteSize>,
    /// Memory must be a multiple of this.
    pub memory_step: Option<ByteSize>,
    /// Most disk.
    pub max_disk: Option<ByteSize>,
    /// Disk must be a multiple of this.
    pub disk_step: Option<ByteSize>,
    /// Largest image, uncompressed.
    pub max_image: Option<ByteSize>,
}

/// Why `kiln.toml` could not be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file could not be read.
    #[error("cannot read `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file is not what it should be.
    #[error("`{}` is not a valid configuration", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// Why, with line and column.
        #[source]
        source: toml::de::Error,
    },
}

impl Classify for ConfigError {
    fn kind(&self) -> ErrorKind {
        ErrorKind::Invalid
    }
}

impl Config {
    /// Reads `$KILN_CONFIG`, or else `kiln.toml` in the working directory, or else in `$XDG_CONFIG_HOME/kiln`.
    ///
    /// # Errors
    ///
    /// Fails when a file is there and cannot be read, or `$KILN_CONFIG` names none, or a key is unknown.
    pub fn load(environment: &Environment) -> Result<Self, ConfigError> {
        if let Some(path) = environment.get("KILN_CONFIG") {
            return Self::read(Path::new(path));
        }
        for path in [PathBuf::from("kiln.toml"), environment.config_dir().join("kiln.toml")] {
            if path.is_file() {
                return Self::read(&path);
            }
        }
        Ok(Self::default())
    }

    fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        toml::from_str(&text).map_err(|source| ConfigError::Parse { path: path.to_owned(), source })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relative_xdg_paths_are_ignored() {
        let environment = Environment::of([("HOME", "/home/u"), ("XDG_DATA_HOME", "data")]);
        assert_eq!(environment.default_store(), Path::new("/home/u/.local/share/kiln/store"));
    }

    #[test]
    fn an_unknown_key_is_refused_with_its_place() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("kiln.toml");
        crate::base::fs::write_durably(
            &path,
            b"[profile.x]\nmax_cpus = 3\n",
            crate::base::fs::Existing::Keep,
        )
        .unwrap();
        let error = Config::load(&Environment::of([("KILN_CONFIG", path.to_str().unwrap())])).unwrap_err();
        assert!(crate::base::chain(&error).concat().contains("max_cpus"), "{error:?}");
    }

    fn read(text: &str) -> Result<Config, String> {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("kiln.toml");
        crate::base::fs::write_durably(&path, text.as_bytes(), crate::base::fs::Existing::Keep).unwrap();
        Config::load(&Environment::default().with("KILN_CONFIG", path.to_str().unwrap()))
            .map_err(|error| crate::base::chain(&error).concat())
    }

    #[test]
    fn policies_are_read_in_their_order() {
        let config = read(
            "[[workspace.prune]]\nworkspaces = ['ci-*', 'tmp']\nkeep_last = 3\nkeep_label = ['release']\n\
             [[workspace.prune]]\nkeep_within = '30d'\nunused_for = '90d'\n",
        )
        .unwrap();
        let [first, second] = config.workspace.prune.as_slice() else { unreachable!() };
        assert_eq!((first.workspaces.len(), first.keep_last), (2, NonZeroU32::new(3)));
        assert_eq!((second.keep_within, second.keep_last), (Some(Length::seconds(30 * 86_400)), None));
        assert!(second.workspaces[0].fits("anything"));
    }

    #[test]
    fn wrong_policies_are_refused_with_line_and_column() {
        for (text, place, reason) in [
            ("[[workspace.prune]]\nkeep_lats = 3\n", "line 2, column 1", "keep_lats"),
            ("[[workspace.prune]]\nkeep_within = '30'\n", "line 2, column 15", "`30` is not a duration"),
            ("[[workspace.prune]]\nkeep_within = 30\n", "line 2, column 15", "expected a string"),
            ("[[workspace.prune]]\nunused_for = '0s'\n", "line 2, column 14", "no time"),
            ("[[workspace.prune]]\nkeep_last = 0\n", "line 2, column 13", "nonzero"),
            ("[[workspace.prune]]\nkeep_last = -1\n", "line 2, column 13", "-1"),
            ("[[workspace.prune]]\nkeep_label = ['=x']\n", "line 2, column 14", "is not a label"),
            ("[[workspace.prune]]\nworkspaces = ['a b']\nkeep_last = 1\n", "line 2, column 14", "pattern"),
            ("\n[[workspace.prune]]\nworkspaces = ['*']\n", "line 2, column 1", "no rule"),
            ("[image.prune]\nmax_total = '5 XB'\n", "line 2, column 13", "`5 XB` is not a size"),
            ("[image.prune]\nunused_for = '3 moons'\n", "line 2, column 14", "`3 moons` is not a duration"),
            ("[image.prune]\nkeep_lats = 3\n", "line 2, column 1", "keep_lats"),
            ("[image.prune]\nhigh = '85%'\nlow = 80\n", "line 2, column 8", "85%"),
            ("[image.prune]\nhigh = 80\nlow = 85\n", "line 1, column 1", "not below the high one"),
            ("[image.prune]\nhigh = 80\n", "line 1, column 1", "no low watermark"),
            ("[image.prune]\nhigh = 180\nlow = 8\n", "line 1, column 1", "none of 1 to 99"),
            ("[image.prune]\nmin_age = '1h'\n", "line 1, column 1", "no rule that takes anything"),
            ("[image.prune]\nmin_age = '30d'\nmax_age = '7d'\n", "line 1, column 1", "younger than"),
            ("[image.prune]\nexpired = true\nname = ['a*']\nnot_name = ['a*']\n", "line 1, column 1", "`a*`"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(place) && error.contains(reason), "{text}: {error}");
        }
    }
}
