//! Steps 1, 2 and the reply: gRPC in front of the engine.
//!
//! | step | module | |
//! |---|---|---|
//! | 1 | [`tenants`] | who calls |
//! | | [`service`] | takes the call that the gate has let in |
//! | 2 | [`call`], [`validate`] | makes a job of the message, or names the field and the row that are wrong |
//! | 8 | [`call`], [`reply`] | makes the response of what came out |
//!
//! [`Server`] listens, tells of its health, and drains.
//!
//! ```no_run
//! # use std::sync::Arc;
//! # use megaring_engine::Engine;
//! # use megaring_server::{ServeError, Server, ServerConfig};
//! # async fn serve(engine: Arc<Engine>, stop: impl Future<Output = ()>) -> Result<(), ServeError> {
//! let server = Server::bind(ServerConfig::new(([127, 0, 0, 1], 7272).into()), engine)?;
//! println!("listening on {}", server.address());
//! let drained = server.serve(stop).await?;
//! # Ok(())
//! # }
//! ```

pub mod call;
pub mod error;
mod followed;
pub mod reply;
pub mod reply_limit;
mod server;
pub mod service;
pub mod tenants;
pub mod validate;

pub use server::{Address, Drained, Reload, ServeError, Server, ServerConfig, TlsConfig};
