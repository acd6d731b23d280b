//! A job done by itself, without a ring: for the self-test, and for tests.

use std::time::Duration;

use wgpu::{BindGroup, BufferUsages};

use crate::batch::Batch;
use crate::gpu::{Gpu, OutOfMemory};
use crate::operation::{Operation, Part};
use crate::workspace::Workspace;

/// How long a device may take over something small.
pub(crate) const TRIAL_PATIENCE: Duration = Duration::from_secs(20);

/// Uploads the two buffers of a part, and binds them.
///
/// # Errors
/// The device has no room.
pub(crate) fn bind(gpu: &Gpu, rows: &[u8], columns: &[u8]) -> Result<BindGroup, OutOfMemory> {
    let upload = |bytes: &[u8]| {
        let buffer = gpu.buffer("part", bytes.len(), BufferUsages::STORAGE | BufferUsages::COPY_DST)?;
        let mut padded = bytes.to_vec();
        padded.resize(bytes.len().next_multiple_of(4), 0);
        gpu.queue.write_buffer(&buffer, 0, &padded);
        Ok(buffer)
    };
    Ok(gpu.bind_part(&upload(rows)?, &upload(columns)?))
}

/// Runs a job of these rounds (without any, of an empty one) as the dispatcher would; its slot's result of `len` bytes.
///
/// # Errors
/// What went wrong with the device.
pub(crate) fn run(
    gpu: &Gpu,
    operation: &mut dyn Operation,
    rounds: &[Vec<Part>],
    len: usize,
) -> Result<Vec<u8>, String> {
    let full = |full: OutOfMemory| full.to_string();
    let mut workspace = Workspace::new(gpu).map_err(full)?;
    gpu.settle_mappings(|| workspace.is_over());
    let none = [Vec::new()];
    let rounds = if rounds.is_empty() { &none } else { rounds };
    for (number, parts) in rounds.iter().enumerate() {
        let script = operation.round(parts, number == 0);
        let mut batch = Batch::new(gpu);
        if number == 0 {
            workspace.load(gpu, operation, &script).map_err(full)?;
            workspace.record_uploads(&mut batch, &script);
        } else {
            workspace.write_params(gpu, &script).map_err(full)?;
        }
        workspace.run(&mut batch, gpu, &script);
        if number + 1 == rounds.len() {
            workspace.record_download(&mut batch);
        }
        batch.submit();
    }
    workspace.read_back();
    let over = gpu.settle(TRIAL_PATIENCE, || workspace.is_over());
    gpu.health()?;
    if !over {
        return Err("the device does not finish its work".into());
    }
    let mut result = vec![0xEE; len];
    let deliver = operation.delivery();
    workspace.output(|output| deliver(output, &mut result))?;
    Ok(result)
}
