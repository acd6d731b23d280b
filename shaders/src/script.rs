//! What a job makes the device do, as data: written by an operation, carried out by a workspace.

use std::ops::Range;

use crate::stage::Stage;

/// Bytes between the parameters of two dispatches: the largest alignment that an adapter may ask of a uniform's offset.
pub(crate) const PARAMS_STRIDE: usize = 256;

/// Work of one submission, in multiply-adds: a tenth of a second on a small GPU. Drivers reset a device that is busy
/// with one submission for seconds (Windows: two), so more work is cut into several, and where possible a dispatch has
/// no more.
pub(crate) const MOST_WORK: u64 = 1 << 34;

/// Bytes that a job needs in the buffers of a workspace. `output` is what the host reads.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Sizes {
    /// Of the input, parameters not included.
    pub(crate) input: usize,
    pub(crate) scratch: usize,
    pub(crate) output: usize,
}

impl Sizes {
    /// All of it.
    pub(crate) fn total(self) -> usize {
        self.input.saturating_add(self.scratch).saturating_add(self.output)
    }

    /// The largest.
    pub(crate) fn largest(self) -> usize {
        self.input.max(self.scratch).max(self.output)
    }

    /// Whether each of `other` fits.
    pub(crate) fn holds(self, other: Self) -> bool {
        other.input <= self.input && other.scratch <= self.scratch && other.output <= self.output
    }
}

/// One step.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    /// Runs a stage.
    Dispatch(Dispatch),
    /// Zeroes bytes of the output, a multiple of four.
    ClearOutput(Range<usize>),
}

/// A stage on so many workgroups.
#[derive(Debug, Clone)]
pub(crate) struct Dispatch {
    pub(crate) stage: Stage,
    /// What is bound as group 1: a part of a corpus or the automaton; `None` where the stage reads neither.
    pub(crate) part: Option<wgpu::BindGroup>,
    /// Place of its parameters, in units of [`PARAMS_STRIDE`].
    pub(crate) params: u32,
    pub(crate) workgroups: [u32; 3],
    /// Multiply-adds, or what takes about as long.
    pub(crate) work: u64,
}

/// Steps in order; each sees what those before it wrote.
#[derive(Debug, Clone, Default)]
pub(crate) struct Script {
    pub(crate) params: Vec<u8>,
    pub(crate) steps: Vec<Step>,
}

impl Script {
    /// Adds a dispatch. One without a workgroup is left out.
    pub(crate) fn dispatch<P: bytemuck::Pod>(
        &mut self,
        stage: Stage,
        part: Option<&wgpu::BindGroup>,
        params: &P,
        workgroups: [u32; 3],
        work: u64,
    ) {
        const { assert!(size_of::<P>() <= PARAMS_STRIDE, "parameters fit their place") };
        if workgroups.contains(&0) {
            return;
        }
        let place = self.params.len() / PARAMS_STRIDE;
        self.params.extend_from_slice(bytemuck::bytes_of(params));
        self.params.resize((place + 1) * PARAMS_STRIDE, 0);
        self.steps.push(Step::Dispatch(Dispatch {
            stage,
            part: part.cloned(),
            params: place as u32,
            workgroups,
            work,
        }));
    }

    /// Adds the steps of another script behind these.
    pub(crate) fn append(&mut self, other: Self) {
        let places = (self.params.len() / PARAMS_STRIDE) as u32;
        self.params.extend(other.params);
        self.steps.extend(other.steps.into_iter().map(|step| match step {
            Step::Dispatch(dispatch) => Step::Dispatch(Dispatch { params: dispatch.params + places, ..dispatch }),
            step @ Step::ClearOutput(_) => step,
        }));
    }

    /// Zeroes bytes of the output.
    pub(crate) fn clear_output(&mut self, bytes: Range<usize>) {
        if !bytes.is_empty() {
            self.steps.push(Step::ClearOutput(bytes));
        }
    }
}
