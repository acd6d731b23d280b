//! Tests of the ledger through its public face, in one binary: it also plays the child process of `crash`.

mod appends;
mod child;
mod common;
mod crash;
mod damage;
mod faults;
mod merkle;
mod power;
mod records;
mod retention;
mod views;
