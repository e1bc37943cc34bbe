//! The environment and `kiln.toml`, read once at the start and handed down as values.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{ByteSize, Classify, ErrorKind, Length};

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
}
