//! The service: validate, admit, route, submit, consume, reap, rescore, reply; and the command line

pub mod admission;
pub mod bench;
pub mod calibration;
pub mod cli;
pub mod config;
pub mod cost;
pub mod demo;
pub mod doctor;
pub mod engine;
pub mod error;
mod gather;
pub mod lane;
pub mod machine;
pub mod metrics;
pub mod outcome;
pub mod reaper;
pub mod reply;
pub mod rescore;
pub mod router;
pub mod server;
pub mod service;
pub mod submit;
pub mod telemetry;
pub mod validate;
