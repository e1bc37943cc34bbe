//! The real server that tests run on: `scripts/test --only s3` starts it and names it in `KILN_TEST_S3`.

use super::store::S3Store;
use crate::base::SessionId;
use crate::base::config::Environment;
use crate::objects::S3Url;

/// Returns the URL of an empty store of its own on the server.
pub(crate) fn url() -> S3Url {
    let environment = Environment::of_process();
    let url = environment.get("KILN_TEST_S3").expect("KILN_TEST_S3 names a store for tests");
    let (place, settings) = url.split_once('?').unwrap_or((url, "region=garage"));
    format!("{}/{}?{settings}", place.trim_end_matches('/'), SessionId::generate()).parse().unwrap()
}

/// Returns an empty store of its own on the server.
pub(crate) async fn store() -> S3Store {
    S3Store::connect(&url()).await.unwrap()
}
