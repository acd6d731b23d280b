//! How the bytes of a corpus come into buffers of the device.
//!
//! Where the device's memory is the host's, a buffer is mapped and written to: one copy, the least there can be.
//! Elsewhere pieces go through two buffers in turn: the device copies from one while the host writes to the other, and
//! mapping a buffer again waits until the device has read it.
//!
//! wgpu's own ways (`Queue::write_buffer`, and buffers mapped at creation) would be shorter. But they take new staging
//! memory for everything, keep it until the device is done, and lose the device where there is none left. A corpus that
//! does not fit is nothing unusual here: it is streamed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use wgpu::{Buffer, BufferUsages, CommandEncoderDescriptor, MapMode};

use crate::gpu::{Gpu, OutOfMemory};

/// Bytes of a piece at most: a few milliseconds of a bus.
const PIECE_BYTES: usize = 32 << 20;
/// How long the device may take to read a piece: longer than the dispatcher waits for a job, which may come before it.
const PATIENCE: Duration = Duration::from_secs(180);

/// Makes buffers and fills them. Holds two pieces of memory at most, until [`Self::finish`].
pub(super) struct Filler<'a> {
    pub(super) gpu: &'a Gpu,
    piece: usize,
    staging: [Option<Buffer>; 2],
    /// The one of the two that is next.
    turn: usize,
}

impl<'a> Filler<'a> {
    /// For buffers that mostly have so many bytes, or fewer.
    pub(super) fn new(gpu: &'a Gpu, bytes: usize) -> Self {
        Self::with_pieces(gpu, bytes.min(PIECE_BYTES))
    }

    fn with_pieces(gpu: &'a Gpu, bytes: usize) -> Self {
        Self { gpu, piece: bytes.next_multiple_of(16).max(16), staging: [None, None], turn: 0 }
    }

    /// A buffer with these bytes, for what is submitted from now on. If the device fails, its health says so.
    ///
    /// # Errors
    /// The device has no memory for it.
    pub(super) fn buffer(&mut self, bytes: &[u8], usage: BufferUsages) -> Result<Buffer, OutOfMemory> {
        if self.gpu.mappable {
            let buffer = self.gpu.buffer("corpus", bytes.len(), usage | BufferUsages::MAP_WRITE)?;
            write(self.gpu, &buffer, bytes);
            return Ok(buffer);
        }
        let buffer = self.gpu.buffer("corpus", bytes.len(), usage | BufferUsages::COPY_DST)?;
        for (number, piece) in bytes.chunks(self.piece).enumerate() {
            let staging = self.next_staging()?;
            write(self.gpu, &staging, piece);
            let mut encoder = self.gpu.device.create_command_encoder(&CommandEncoderDescriptor::default());
            let (place, len) = ((number * self.piece) as u64, piece.len().next_multiple_of(4) as u64);
            encoder.copy_buffer_to_buffer(&staging, 0, &buffer, place, len);
            self.gpu.queue.submit([encoder.finish()]);
        }
        Ok(buffer)
    }

    /// Waits until the device has read all pieces, so that whoever uploads next does so with two others at most.
    pub(super) fn finish(self) {
        if self.staging.iter().all(Option::is_none) {
            return;
        }
        wait(self.gpu, &self.gpu.all_done());
    }

    fn next_staging(&mut self) -> Result<Buffer, OutOfMemory> {
        self.turn = 1 - self.turn;
        let staging = &mut self.staging[self.turn];
        if let Some(staging) = staging {
            return Ok(staging.clone());
        }
        let usage = BufferUsages::MAP_WRITE | BufferUsages::COPY_SRC;
        Ok(staging.insert(self.gpu.buffer("corpus on its way", self.piece, usage)?).clone())
    }
}

/// Writes to the beginning of a buffer, as soon as the device is done with it.
fn write(gpu: &Gpu, buffer: &Buffer, bytes: &[u8]) {
    let range = 0..bytes.len().next_multiple_of(8) as u64;
    if range.is_empty() {
        return;
    }
    let answered = Arc::new(AtomicBool::new(false));
    let told = answered.clone();
    buffer.map_async(MapMode::Write, range.clone(), move |_| told.store(true, Ordering::Release));
    wait(gpu, &answered);
    match buffer.get_mapped_range_mut(range) {
        Ok(mut view) => view.slice(..bytes.len()).copy_from_slice(bytes),
        Err(error) => gpu.fail(&error.to_string()),
    }
    buffer.unmap();
}

/// Waits until the device has told something. If it does not, that is a fault of the device.
fn wait(gpu: &Gpu, told: &AtomicBool) {
    if !gpu.settle(PATIENCE, || told.load(Ordering::Acquire)) {
        gpu.fail("the device does not read what it is sent");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::gpus;

    /// What a buffer holds.
    fn read(gpu: &Gpu, buffer: &Buffer, len: usize) -> Vec<u8> {
        let usage = BufferUsages::MAP_READ | BufferUsages::COPY_DST;
        let copy = gpu.buffer("copy", len, usage).expect("little memory");
        let mut encoder = gpu.device.create_command_encoder(&CommandEncoderDescriptor::default());
        encoder.copy_buffer_to_buffer(buffer, 0, &copy, 0, len as u64);
        gpu.queue.submit([encoder.finish()]);
        let over = Arc::new(AtomicBool::new(false));
        let told = over.clone();
        copy.map_async(MapMode::Read, .., move |_| told.store(true, Ordering::Release));
        assert!(gpu.settle(PATIENCE, || over.load(Ordering::Acquire)));
        copy.get_mapped_range(..).expect("it is mapped")[..len].to_vec()
    }

    #[test]
    fn bytes_arrive_whatever_the_pieces() {
        for gpu in gpus() {
            for piece in [16, 48, 992, 1008, 5000] {
                let mut filler = Filler::with_pieces(gpu, piece);
                let contents: Vec<Vec<u8>> = [1000, 4, 0, 1008, 16]
                    .iter()
                    .map(|len| (0..*len).map(|byte| (byte * 7 + len + piece) as u8).collect())
                    .collect();
                let usage = BufferUsages::STORAGE | BufferUsages::COPY_SRC;
                let buffers: Vec<_> =
                    contents.iter().map(|bytes| filler.buffer(bytes, usage).expect("little memory")).collect();
                for (bytes, buffer) in contents.iter().zip(&buffers) {
                    assert_eq!(read(gpu, buffer, bytes.len().max(16))[..bytes.len()], *bytes, "pieces of {piece}");
                }
                assert_eq!(filler.staging.iter().all(Option::is_none), gpu.mappable, "staging memory is for copies");
                filler.finish();
                gpu.health().expect("nothing went wrong");
            }
        }
    }
}
