//! Nearest points: a screen in float32 with a proven bound, and [`super::lists`]. The goodness is minus the distance.
//!
//! What is bounded is the distance D as [`megaring_core::nearest`] computes it, the very number that orders the answer.
//! Let d = w (p - q) be exact for each axis, and D* the root of Σ d². Points, queries and weights are *tame* where |p|
//! and |q| are at most 2⁴⁰ and w at most 2²⁰; where they are not, every row is a candidate. Let u = 2⁻²³. An operation
//! in a shader is off by less than u of its result, the host's rounding to float32 by u/2, and both by 2⁻¹²⁶ where
//! small numbers are lost. With what the shader computes marked ~ :
//!
//! - **Coordinates.** |d~ - d| < 3.1 u w (|p| + |q|) + 2⁻⁸²: u/2 for p and q as float32, u for their difference, u/2
//!   for w as float32, and u for the product; what is lost is multiplied by at most 2²⁰ or 2⁴¹. A compiler that
//!   multiplies out changes nothing in that. Now |p| is at most P, the largest of all points, and w |p| is at most
//!   w |q| + |d|. So with e = 2⁻²⁰ w (min(P, |q|) + |q|) + 2⁻⁵⁸, more than twice what it stands for, ‖d~‖ lies within
//!   ‖e‖ + 3.1 u D* of D* (Minkowski). So a point far off does not blur the others.
//! - **Squares, sum and root.** D~ is the root of Σ d~² + 2⁻¹²⁰. A square is off by u, and so is each of five
//!   additions, in any order, fused or not; the root halves that and is itself off by at most 5 u (WGSL: 1 /
//!   inverseSqrt). Together that is 8 u of D~. What is lost of the squares and what is added to them move the root by
//!   less than 2⁻⁵⁹; ‖e‖ holds more than twice as much. No square is above 2¹²³, so nothing overflows, and the root's
//!   argument is never 0 or denormal.
//! - **The definition.** D is off from D* by less than 2⁻⁴⁹ of it.
//! - **The bounds.** With δ = 2⁻¹⁸ = 32 u and E = (1 + δ) ‖e‖, D lies between D~ (1 - δ) - E and D~ (1 + δ) + E. All
//!   errors above that are relative to D~ or D* are together less than 12 u, and the two operations of each bound are
//!   off by 2 u of D~ and of E; both have room for that.
//!
//! A cell has the bounds of the nearest of its points by Σ d~². Its lower bound is that of one point, so k cells stand
//! for k points. Its upper bound holds for all its points: roots keep the order, so a point further away has no better
//! one.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use bytemuck::{Pod, Zeroable};
use megaring_core::corpus::{Column, Columns, CorpusView, SegmentView};
use megaring_core::lists::{self, CandidateLists, Candidates, ListHeader};
use megaring_core::nearest::{self, AXES, DEFAULT_WEIGHTS, FLAG_HIDDEN, FLAG_POINTS};
use megaring_core::screen::GROUP_ROWS;
use megaring_ring::Status;

use super::lists::{Block, CELL_ROWS, Lists, Screen, Threshold};
use super::{Delivery, Handler, Operation, Part, same_layout};
use crate::cut::Pair;
use crate::gpu::{Gpu, OutOfMemory};
use crate::plan::{Context, Inputs, Planned, Source, split};
use crate::script::{Script, Sizes};
use crate::self_test::{HITS, Numbers, ROWS, Trial};
use crate::stage::Stage;
use crate::trial::bind;

pub(crate) const HANDLER: Handler = Handler { plan, self_test };
/// What it reads of a corpus.
const COLUMNS: [Column; 1] = [Column::Coordinates];
/// The largest tame coordinate: 2⁴⁰.
const TAME_COORDINATE: f64 = (1_u64 << 40) as f64;
/// The largest tame weight: 2²⁰.
const TAME_WEIGHT: f64 = (1 << 20) as f64;
/// Of coordinates' weighted size, what an axis may be off by.
const COORDINATE_ERROR: f64 = 1.0 / (1 << 20) as f64;
/// What it may be off by besides: 2⁻⁵⁸.
const LOST: f64 = 1.0 / (1_u64 << 58) as f64;
/// δ.
const RELATIVE: f64 = 1.0 / (1 << 18) as f64;
/// Invocations of a workgroup of `nearest.wgsl`, and the queries of each.
const THREADS: u32 = 64;
const QUERIES: u32 = 4;
/// Points that the shader takes at once.
const FOUR: u32 = 4;

/// Twin of the shaders'.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct NearestParams {
    block: Block,
    weights: [f32; 4],
    weight_v: f32,
    stride: u32,
    queries: u32,
    unused: u32,
}

same_layout!(nearest_params: NearestParams { block, weights, weight_v, stride, queries, unused });

/// A query as the shaders have it, in two fours.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Query {
    point: [f32; AXES],
    error: f32,
    unused: [f32; 2],
}

/// Points as a part of a job has them: five columns, each filled up to a multiple of 16 points.
pub(crate) fn columns(points: &[&[f64]; AXES]) -> Vec<u8> {
    let stride = points[0].len().next_multiple_of(GROUP_ROWS);
    let mut bytes = Vec::with_capacity(AXES * stride * size_of::<f32>());
    for (axis, column) in points.iter().enumerate() {
        bytes.extend(column.iter().flat_map(|value| (*value as f32).to_le_bytes()));
        bytes.resize((axis + 1) * stride * size_of::<f32>(), 0);
    }
    bytes
}

/// The largest magnitude on each axis; `None` where a coordinate is not tame.
fn extent(points: &[&[f64]; AXES]) -> Extent {
    let tame = points.iter().all(|column| column.iter().all(is_tame));
    tame.then(|| points.map(|column| column.iter().fold(0.0, |most: f64, value| most.max(value.abs()))))
}

/// The largest magnitude of a segment's coordinates on each axis; `None` where a screen cannot bound them.
type Extent = Option<[f64; AXES]>;

/// Extents, looked for once; by the segments' addresses, which are theirs as long as they live.
#[derive(Default)]
pub(crate) struct Extents(Mutex<HashMap<usize, (Weak<SegmentView>, Extent)>>);

impl Extents {
    /// That of a version that has coordinates.
    fn of(&self, view: &CorpusView) -> Extent {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, (segment, _)| segment.strong_count() > 0);
        let each = view.segments().map(|(_, segment)| {
            let look = || (Arc::downgrade(segment), segment.data().coordinates().and_then(|c| extent(&c)));
            known.entry(Arc::as_ptr(segment).addr()).or_insert_with(look).1
        });
        let extents: Option<Vec<[f64; AXES]>> = each.collect();
        let join = |all: [f64; AXES], one: [f64; AXES]| std::array::from_fn(|axis| all[axis].max(one[axis]));
        Some(extents?.into_iter().fold([0.0; AXES], join))
    }
}

fn plan<'a>(inputs: &Inputs<'a>, context: &Context<'_>) -> Result<Planned<'a>, Status> {
    let (items, k, result) = (inputs.items(), inputs.k()?, inputs.result_len());
    let (queries, rest) = split(inputs.payload, items, 1)?;
    let (weights, rest) = split(rest, 1, 1)?;
    inputs.check_room(size_of::<ListHeader>())?;
    if inputs.descriptor.flags & FLAG_POINTS != 0 {
        let count = inputs.descriptor.dim as usize;
        let (values, _) = split::<f64>(rest, count, AXES)?;
        let columns: [&[f64]; AXES] = std::array::from_fn(|axis| &values[axis * count..(axis + 1) * count]);
        let nearest = Nearest::new(queries, weights[0], k, count, extent(&columns), result);
        let source = if nearest.is_unscreened { Source::Nothing } else { Source::Parts(sent(context.gpu, &columns)?) };
        return Ok(Planned::new(nearest, source));
    }
    let view = inputs.corpus(context.corpora)?;
    if !view.has_coordinates() {
        return Err(Status::BadDescriptor);
    }
    // The shader does not know of hidden rows.
    let is_whole = inputs.descriptor.flags & FLAG_HIDDEN == 0;
    let extent = if is_whole { context.resources.extents.of(&view) } else { None };
    let nearest = Nearest::new(queries, weights[0], k, view.rows(), extent, result);
    let source = if nearest.is_unscreened { Source::Nothing } else { Source::corpus(view, &COLUMNS)? };
    Ok(Planned::new(nearest, source))
}

/// Points that came along, as parts.
fn sent(gpu: &Gpu, points: &[&[f64]; AXES]) -> Result<Vec<Part>, Status> {
    let pair = Pair::of(Columns::of(&COLUMNS)).ok_or(Status::BackendFailed)?;
    let part = |rows: Range<usize>| {
        Ok(Part { binding: bind(gpu, &columns(&points.map(|column| &column[rows.clone()])), &[])?, rows })
    };
    let cuts = pair.cuts(points[0].len(), AXES, gpu.part_bytes);
    let parts: Result<_, OutOfMemory> = cuts.into_iter().map(part).collect();
    parts.map_err(|full| {
        tracing::warn!(%full, "a job finds no room on the device");
        Status::BackendFailed
    })
}

fn self_test(trial: &Trial<'_>) -> Result<(), String> {
    const ITEMS: usize = 5;
    let mut numbers = Numbers::new();
    let axes: [Vec<f64>; AXES] = std::array::from_fn(|_| (0..ROWS).map(|_| numbers.near_one()).collect());
    let axes = axes.each_ref().map(Vec::as_slice);
    let queries: [[f64; AXES]; ITEMS] = std::array::from_fn(|_| std::array::from_fn(|_| numbers.near_one()));
    let parts = [trial.part(&columns(&axes), &[], 0..ROWS)?];
    let point = |row: u32| axes.map(|column| column[row as usize]);
    for k in HITS {
        let len = lists::len(ITEMS, ROWS);
        let mut job = Nearest::new(&queries, DEFAULT_WEIGHTS, k, ROWS, extent(&axes), len);
        let found: Vec<u64> = bytemuck::allocation::pod_collect_to_vec(&trial.run(&mut job, &parts, len)?);
        let lists = CandidateLists::read(bytemuck::cast_slice(&found), ITEMS, ROWS);
        let lists = lists.map_err(|misshapen| misshapen.to_string())?;
        for (number, query) in queries.iter().enumerate() {
            let Candidates::Listed(listed) = lists.of(number) else {
                return Err("points could not be told apart".into());
            };
            let listed = listed.iter().map(|candidate| candidate.row);
            let got = nearest::rank(listed, point, *query, DEFAULT_WEIGHTS, k);
            if got != nearest::rank(0..ROWS as u32, point, *query, DEFAULT_WEIGHTS, k) {
                return Err(format!("lists lack points of the answer for k {k}"));
            }
        }
    }
    Ok(())
}

fn is_tame(coordinate: &f64) -> bool {
    coordinate.abs() <= TAME_COORDINATE
}

/// A job.
struct Nearest {
    lists: Lists,
    weights: [f32; AXES],
    /// `None` where the query is not tame.
    queries: Vec<Option<Query>>,
    /// Every point is a candidate for every query: the job needs nothing of the points, nor of the device.
    is_unscreened: bool,
}

impl Nearest {
    /// The nearest `k` of `points` points with this [`extent`], for each query, into a result of `result` bytes.
    fn new(
        queries: &[[f64; AXES]],
        weights: [f64; AXES],
        k: usize,
        points: usize,
        extent: Extent,
        result: usize,
    ) -> Self {
        let lists = Lists::new(queries.len(), k, points, result).with_work(3 * AXES);
        let extent = extent.filter(|_| weights.iter().all(|weight| (0.0..=TAME_WEIGHT).contains(weight)));
        let of = |query: &[f64; AXES]| {
            let extent = extent.filter(|_| query.iter().all(is_tame))?;
            Some(tame_query(query, &weights, &extent))
        };
        let queries: Vec<_> = queries.iter().map(of).collect();
        let is_unscreened = lists.is_unscreened() || queries.iter().all(Option::is_none);
        Self { lists, weights: weights.map(|weight| weight as f32), queries, is_unscreened }
    }

    fn params(&self, part: &Part, block: &Block) -> NearestParams {
        let [x, y, z, w, v] = self.weights;
        NearestParams {
            block: *block,
            weights: [x, y, z, w],
            weight_v: v,
            stride: part.rows.len().next_multiple_of(GROUP_ROWS) as u32 / FOUR,
            queries: (self.lists.input_len() / size_of::<[f32; 4]>()) as u32,
            unused: 0,
        }
    }
}

/// A query with its E.
fn tame_query(query: &[f64; AXES], weights: &[f64; AXES], extent: &[f64; AXES]) -> Query {
    let coordinates = query.iter().zip(weights).zip(extent);
    let errors = coordinates.map(|((q, w), p)| w * (p.min(q.abs()) + q.abs()) * COORDINATE_ERROR + LOST);
    let error = errors.map(|error| error * error).sum::<f64>().sqrt() * (1.0 + RELATIVE);
    Query { point: query.map(|q| q as f32), error: error as f32, unused: [0.0; 2] }
}

impl Screen for Nearest {
    fn fill_cells(&self, script: &mut Script, part: &Part, block: &Block) {
        // An invocation takes one cell of many points, or four cells of one point each. Dispatched as [invocations /
        // THREADS, queries of the block / QUERIES, 1].
        let invocations =
            if block.cell_rows as usize == CELL_ROWS { block.part_cells() } else { block.rows.div_ceil(FOUR) };
        let workgroups = [invocations.div_ceil(THREADS), block.queries.div_ceil(QUERIES), 1];
        let [work, _] = self.lists.work(block);
        script.dispatch(Stage::Nearest, Some(&part.binding), &self.params(part, block), workgroups, work);
    }

    fn collect(&self, script: &mut Script, part: &Part, block: &Block) {
        let params = self.params(part, block);
        let [_, work] = self.lists.work(block);
        script.dispatch(Stage::NearestCollect, Some(&part.binding), &params, block.collect_workgroups(), work);
    }
}

impl Operation for Nearest {
    fn sizes(&self) -> Sizes {
        if self.is_unscreened { Sizes::default() } else { self.lists.sizes(self.queries.len() * size_of::<Query>()) }
    }

    fn fill(&self, input: &mut [u8]) {
        if self.is_unscreened {
            return;
        }
        let (head, queries) = input.split_at_mut(self.lists.input_len());
        // Nothing is listed for a query that is not tame.
        let least = |query: &Option<Query>| if query.is_some() { f32::MIN } else { f32::MAX };
        self.lists.fill(head, self.queries.iter().map(|query| Threshold { least: least(query), slack: 0.0 }));
        for (bytes, query) in queries.as_chunks_mut::<{ size_of::<Query>() }>().0.iter_mut().zip(&self.queries) {
            *bytes = bytemuck::cast(query.unwrap_or_else(Query::zeroed));
        }
    }

    fn round(&mut self, parts: &[Part], first: bool) -> Script {
        if self.is_unscreened { Script::default() } else { self.lists.round(self, parts, first) }
    }

    fn delivery(&self) -> Delivery {
        let lists = self.lists;
        let whole: Vec<bool> = self.queries.iter().map(Option::is_none).collect();
        Box::new(move |output, result| lists.deliver(output, result, |query| whole[query]))
    }
}

#[cfg(test)]
mod tests;
