//! BuildKit's way back to us while it builds: it asks for secrets over `/session`.
//!
//! The connection is turned over to HTTP/2, on which the engine is the client and we are the server. Engines from API 1.53 on
//! announce that `/session` will go; a build without secrets has none.

use std::collections::BTreeMap;
use std::pin::Pin;

use bollard_buildkit_proto::health::health_check_response::ServingStatus;
use bollard_buildkit_proto::health::health_server::{Health, HealthServer};
use bollard_buildkit_proto::health::{
    HealthCheckRequest, HealthCheckResponse, HealthListRequest, HealthListResponse,
};
use bollard_buildkit_proto::moby::buildkit::secrets::v1::secrets_server::{Secrets, SecretsServer};
use bollard_buildkit_proto::moby::buildkit::secrets::v1::{GetSecretRequest, GetSecretResponse};
use futures_util::{Stream, StreamExt as _};
use hyper_util::rt::TokioIo;
use tokio_util::task::AbortOnDropHandle;
use tonic::{Request, Response, Status};

use super::SecretValue;
use super::http::{Http, HttpError};

/// Capacity of the pipe between the engine's connection and the server.
const PIPE_BYTES: usize = 64 << 10;

/// A session. It ends when it is dropped.
#[derive(Debug)]
pub(super) struct Session {
    id: String,
    /// Serves, bridges, and keeps the connection going.
    _tasks: [AbortOnDropHandle<bool>; 3],
}

impl Session {
    /// Opens a session that hands out `secrets`.
    pub(super) async fn open(
        http: &Http,
        prefix: &str,
        secrets: BTreeMap<String, SecretValue>,
    ) -> Result<Self, HttpError> {
        let id = ulid::Ulid::generate().to_string().to_ascii_lowercase();
        let (upgraded, connection) = http
            .upgrade(
                &format!("{prefix}/session"),
                "h2c",
                &[
                    ("X-Docker-Expose-Session-Uuid", &id),
                    ("X-Docker-Expose-Session-Name", "kiln"),
                    ("X-Docker-Expose-Session-Sharedkey", ""),
                    ("X-Docker-Expose-Session-Grpc-Method", "/moby.buildkit.secrets.v1.Secrets/GetSecret"),
                    ("X-Docker-Expose-Session-Grpc-Method", "/grpc.health.v1.Health/Check"),
                ],
            )
            .await?;
        // tonic serves what it knows how to describe; a pipe is that, an upgraded connection is not.
        let (ours, mut theirs) = tokio::io::duplex(PIPE_BYTES);
        let mut engine = TokioIo::new(upgraded);
        let bridge =
            tokio::spawn(
                async move { tokio::io::copy_bidirectional(&mut engine, &mut theirs).await.is_ok() },
            );
        let server = tokio::spawn(async move {
            tonic::transport::Server::builder()
                .add_service(HealthServer::new(AlwaysWell))
                .add_service(SecretsServer::new(Handed(secrets)))
                .serve_with_incoming(
                    futures_util::stream::iter([Ok::<_, std::io::Error>(ours)])
                        .chain(futures_util::stream::pending()),
                )
                .await
                .is_ok()
        });
        Ok(Self { id, _tasks: [AbortOnDropHandle::new(server), AbortOnDropHandle::new(bridge), connection] })
    }

    /// Returns the id by which a build names the session.
    pub(super) fn id(&self) -> &str {
        &self.id
    }
}

/// Hands secrets out of memory.
struct Handed(BTreeMap<String, SecretValue>);

#[tonic::async_trait]
impl Secrets for Handed {
    async fn get_secret(
        &self,
        request: Request<GetSecretRequest>,
    ) -> Result<Response<GetSecretResponse>, Status> {
        let id = &request.get_ref().id;
        match self.0.get(id) {
            Some(secret) => Ok(Response::new(GetSecretResponse { data: secret.expose().to_vec() })),
            None => Err(Status::not_found(format!("secret {id} not found"))),
        }
    }
}

/// Answers that it serves for as long as it can answer.
struct AlwaysWell;

#[tonic::async_trait]
impl Health for AlwaysWell {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    async fn check(&self, _: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        Ok(Response::new(HealthCheckResponse { status: ServingStatus::Serving.into() }))
    }

    async fn list(&self, _: Request<HealthListRequest>) -> Result<Response<HealthListResponse>, Status> {
        Err(Status::unimplemented("only Check is served"))
    }

    async fn watch(&self, _: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        Err(Status::unimplemented("only Check is served"))
    }
}
