//! Residency, the pool and streaming against a device of heap memory and a kernel of test threads.

mod mock;
mod pool;
mod reader;
mod resident;
mod streamed;
mod torture;
