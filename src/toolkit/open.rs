//! Everything that a command needs, opened once.

use std::sync::Arc;

use crate::base::config::{Config, ConfigError, Environment};
use crate::base::{ByteSize, Classify, ErrorKind, now};
use crate::catalog::Catalog;
use crate::docker::{DockerEngine, Engine, EngineError};
use crate::image::ImageBench;
use crate::objects::{
    self, Bandwidth, ObjectStore, ObjectsError, ProbeReport, StoreUrl, StoreUrlError, Throttled,
};
use crate::snapshot::Workbench;
use crate::store::{Format, FormatError};
use crate::template::Library;
use crate::workspace::Depot;

/// The configuration, the store and the templates. The engine is connected to when somebody asks for it.
#[derive(Debug)]
pub struct Toolkit {
    environment: Environment,
    config: Config,
    url: StoreUrl,
    format: Format,
    objects: Arc<dyn ObjectStore>,
    catalog: Catalog,
    library: Arc<Library>,
}

/// Why the toolkit could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum ToolkitError {
    /// `kiln.toml` is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The store's URL is wrong.
    #[error(transparent)]
    Url(#[from] StoreUrlError),
    /// The store cannot be reached.
    #[error(transparent)]
    Objects(#[from] ObjectsError),
    /// The store cannot be used.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// The engine's address cannot be used.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

impl Classify for ToolkitError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Config(error) => error.kind(),
            Self::Url(error) => error.kind(),
            Self::Objects(error) => error.kind(),
            Self::Format(error) => error.kind(),
            Self::Engine(error) => error.kind(),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Config(error) => error.hint(),
            Self::Url(error) => error.hint(),
            Self::Objects(error) => error.hint(),
            Self::Format(error) => error.hint(),
            Self::Engine(error) => error.hint(),
        }
    }
}

/// Returns where the store is: as asked for, or else `$KILN_STORE`, or else what `kiln.toml` says, or else the default.
pub(super) fn store_url(
    environment: &Environment,
    config: &Config,
    asked: Option<&str>,
) -> Result<StoreUrl, StoreUrlError> {
    match asked.or_else(|| environment.get("KILN_STORE")).or(config.store.as_deref()) {
        Some(text) => text.parse(),
        None => Ok(StoreUrl::of_path(environment.default_store())),
    }
}

/// Opens the store at a URL. A directory is made a store by its first use; a bucket only by `kiln store init`, so that a wrong
/// prefix does not become a second store.
pub(super) async fn store(url: &StoreUrl) -> Result<(Arc<dyn ObjectStore>, Format), ToolkitError> {
    let objects = objects::open(url).await?;
    let format = match url {
        StoreUrl::Directory(_) => Format::open_or_init(&objects, now()).await?,
        StoreUrl::S3(_) => Format::open(&objects).await?,
    };
    Ok((objects, format))
}

/// Makes an engine of `$DOCKER_HOST`, or of the engine's usual address, without connecting to it.
pub(super) fn engine(environment: &Environment) -> Result<Arc<dyn Engine>, EngineError> {
    Ok(Arc::new(DockerEngine::connect(environment.get("DOCKER_HOST"))?))
}

impl Toolkit {
    /// Reads the configuration and opens the store. A store in a directory is made by its first use; one in a bucket must have
    /// been made. Touches no engine, and no network unless the store is in a bucket.
    ///
    /// # Errors
    ///
    /// Fails when the configuration is wrong, or the store cannot be read, made or understood.
    pub async fn open(environment: Environment, store: Option<&str>) -> Result<Self, ToolkitError> {
        let config = Config::load(&environment)?;
        let url = store_url(&environment, &config, store)?;
        let (objects, format) = Box::pin(self::store(&url)).await?;
        Ok(Self {
            environment,
            config,
            url,
            format,
            catalog: Catalog::new(Arc::clone(&objects)),
            objects,
            library: Arc::new(Library::shipped()),
        })
    }

    /// Makes a store, in a directory or a bucket; `quota` is how many bytes its packs may hold. For a bucket this is for one
    /// operator to do once.
    ///
    /// # Errors
    ///
    /// Fails when the configuration is wrong, when there is a store already, and when it cannot be written.
    pub async fn init(
        environment: &Environment,
        store: Option<&str>,
        quota: Option<ByteSize>,
    ) -> Result<(StoreUrl, Format), ToolkitError> {
        let url = store_url(environment, &Config::load(environment)?, store)?;
        let objects = Box::pin(objects::open(&url)).await?;
        let format = Format::init(&objects, quota, now()).await?;
        Ok((url, format))
    }

    /// Tries out what a store really does, be it made already or not. Cleans up behind itself.
    ///
    /// # Errors
    ///
    /// Fails when the configuration is wrong, and when the store does not answer or refuses.
    pub async fn probe(environment: &Environment, store: Option<&str>) -> Result<ProbeReport, ToolkitError> {
        let url = store_url(environment, &Config::load(environment)?, store)?;
        Ok(Box::pin(objects::probe_at(&url)).await?)
    }

    /// Returns where workspaces are kept: the store, and this host's notes on it.
    #[must_use]
    pub fn depot(&self) -> Depot {
        self.depot_of(Arc::clone(&self.objects))
    }

    /// Returns where workspaces are kept, with what goes to the store and comes from it within a bandwidth.
    #[must_use]
    pub fn depot_within(&self, bandwidth: Bandwidth) -> Depot {
        if bandwidth == Bandwidth::default() {
            return self.depot();
        }
        self.depot_of(Arc::new(Throttled::new(Arc::clone(&self.objects), bandwidth)))
    }

    fn depot_of(&self, objects: Arc<dyn ObjectStore>) -> Depot {
        Depot {
            objects,
            store: self.format.id,
            quota_bytes: self.format.quota_bytes,
            cache_dir: self.environment.cache_dir(),
            state_dir: self.environment.state_dir(),
        }
    }

    /// Returns what the jobs on snapshots work with. The engine is not connected to before a job needs it.
    ///
    /// # Errors
    ///
    /// Fails when `$DOCKER_HOST` is no address of an engine.
    pub fn workbench(&self) -> Result<Workbench, ToolkitError> {
        Ok(Workbench {
            catalog: self.catalog.clone(),
            engine: engine(&self.environment)?,
            store: self.format.id,
            library: Arc::clone(&self.library),
            state_dir: self.environment.state_dir(),
        })
    }

    /// Returns what the jobs on images work with. The engine is not connected to before a job needs it.
    ///
    /// # Errors
    ///
    /// Fails when `$DOCKER_HOST` is no address of an engine.
    pub fn images(&self) -> Result<ImageBench, ToolkitError> {
        Ok(ImageBench {
            catalog: self.catalog.clone(),
            engine: engine(&self.environment)?,
            store: self.format.id,
            state_dir: self.environment.state_dir(),
        })
    }

    /// Returns the engine, without connecting to it.
    ///
    /// # Errors
    ///
    /// Fails when `$DOCKER_HOST` is no address of an engine.
    pub fn engine(&self) -> Result<Arc<dyn Engine>, ToolkitError> {
        Ok(engine(&self.environment)?)
    }

    /// Returns the environment.
    #[must_use]
    pub fn environment(&self) -> &Environment {
        &self.environment
    }

    /// Returns the configuration.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Returns where the store is.
    #[must_use]
    pub fn url(&self) -> &StoreUrl {
        &self.url
    }

    /// Returns what the store is.
    #[must_use]
    pub fn format(&self) -> &Format {
        &self.format
    }

    /// Returns the objects of the store.
    #[must_use]
    pub fn objects(&self) -> &Arc<dyn ObjectStore> {
        &self.objects
    }

    /// Returns the records.
    #[must_use]
    pub fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    /// Returns the templates.
    #[must_use]
    pub fn library(&self) -> &Arc<Library> {
        &self.library
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_store_is_the_asked_one_then_the_environments_then_the_configured_one() {
        let environment = Environment::of([("HOME", "/h"), ("KILN_STORE", "/env")]);
        let bare = Environment::of([("HOME", "/h")]);
        let config = Config { store: Some("/config".into()), ..Config::default() };
        for (environment, config, asked, path) in [
            (&environment, &config, Some("/asked"), "/asked"),
            (&environment, &config, None, "/env"),
            (&bare, &config, None, "/config"),
            (&bare, &Config::default(), None, "/h/.local/share/kiln/store"),
        ] {
            assert_eq!(store_url(environment, config, asked).unwrap().to_string(), path);
        }
    }

    #[tokio::test]
    async fn opening_makes_the_store_and_asks_no_engine() {
        let home = tempfile::tempdir().unwrap();
        let home = home.path().to_str().unwrap();
        let environment = Environment::of([("HOME", home), ("DOCKER_HOST", "unix:///nonexistent")]);
        let first = Toolkit::open(environment.clone(), None).await.unwrap();
        assert!(first.workbench().is_ok());
        let again = Toolkit::open(environment, None).await.unwrap();
        assert_eq!(first.format(), again.format());
    }

    mod garage {
        use super::*;

        #[tokio::test]
        #[ignore = "needs Garage"]
        async fn a_bucket_becomes_a_store_only_when_it_is_made_one() {
            let url = objects::garage::url().to_string();
            let home = tempfile::tempdir().unwrap();
            let environment =
                Environment::of([("HOME", home.path().to_str().unwrap()), ("KILN_STORE", url.as_str())]);
            let error = Toolkit::open(environment.clone(), None).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
            assert!(error.hint().unwrap().contains("kiln store init"));
            let objects = objects::open(&url.parse().unwrap()).await.unwrap();
            let made = Format::init(&objects, None, now()).await.unwrap();
            let toolkit = Toolkit::open(environment, None).await.unwrap();
            assert_eq!(toolkit.format(), &made);
            assert!(toolkit.catalog().list().await.unwrap().is_empty());
            assert_eq!(toolkit.objects().place(), url);
        }
    }
}
