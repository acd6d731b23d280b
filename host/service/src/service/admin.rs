//! `megaring.v1.Admin`: looking into the service.

use megaring_proto::v1 as pb;
use megaring_proto::v1::admin_server::Admin;
use tonic::{Request, Response, Status};

use super::Service;
use crate::reply;

#[tonic::async_trait]
impl Admin for Service {
    async fn backends(&self, _: Request<pb::BackendsRequest>) -> Result<Response<pb::BackendsResponse>, Status> {
        let states = self.engine.backends().into_iter().map(|(kind, status)| reply::backend_state(kind, status));
        let server_version = env!("CARGO_PKG_VERSION").into();
        Ok(Response::new(pb::BackendsResponse { backends: states.collect(), server_version }))
    }
}
