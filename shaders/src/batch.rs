//! Command buffers on their way to the queue: as few as can be, none with more work than drivers put up with at a time.

use wgpu::{CommandEncoder, CommandEncoderDescriptor};

use crate::gpu::Gpu;
use crate::script::MOST_WORK;

/// What is recorded and not submitted yet.
pub(crate) struct Batch<'a> {
    gpu: &'a Gpu,
    encoder: CommandEncoder,
    work: u64,
}

impl<'a> Batch<'a> {
    /// An empty one.
    pub(crate) fn new(gpu: &'a Gpu) -> Self {
        Self { gpu, encoder: encoder(gpu), work: 0 }
    }

    /// Where what comes next goes.
    pub(crate) fn encoder(&mut self) -> &mut CommandEncoder {
        &mut self.encoder
    }

    /// Notes that so much work comes next, in multiply-adds. What is recorded is submitted first where both together
    /// would be too much. Answers how much more would fit.
    pub(crate) fn make_room(&mut self, work: u64) -> u64 {
        let together = self.work.saturating_add(work);
        if self.work > 0 && together > MOST_WORK {
            let full = std::mem::replace(&mut self.encoder, encoder(self.gpu));
            self.gpu.queue.submit([full.finish()]);
            self.work = work;
        } else {
            self.work = together;
        }
        MOST_WORK.saturating_sub(self.work)
    }

    /// Submits the rest. All is done when that is.
    pub(crate) fn submit(self) {
        self.gpu.queue.submit([self.encoder.finish()]);
    }
}

fn encoder(gpu: &Gpu) -> CommandEncoder {
    gpu.device.create_command_encoder(&CommandEncoderDescriptor::default())
}
