//! The rows of the gate and its board.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use megaring_bench::Failure;
use megaring_board::{Board, BoardView, BreakerRule, Health, Publisher};
use megaring_core::gate::{self, Cost, Handler, Maturity, Reason, Role, TOOLS, Tool};
use megaring_core::{BackendKind, Opcode};
use megaring_engine::measure::sampler::{Call as Turn, Subject};
use megaring_simd::KernelSet;
use megaring_simd::gate::{Call, Gate, GateConfig, Rate};

use crate::limits;
use crate::rows::Row;

/// Rows of the table that the gate looks into.
const TABLE: usize = 181;
/// A rate that nobody reaches who is measured.
const NEVER_MET: Rate = Rate { per_second: 1e9, burst: u32::MAX };

/// Gates over boards, one of them in a file.
pub(crate) struct Entrance {
    open: Gate,
    broken: Gate,
    exhausted: Gate,
    board: Arc<Board>,
    view: BoardView,
    /// Its health stays that of a service under load.
    _publisher: Publisher,
    _folder: tempfile::TempDir,
}

impl Entrance {
    pub(crate) fn set() -> Result<Self, Failure> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("board");
        let board = Board::create(&path)?;
        let mut publisher = board.publisher().ok_or("a board has one publisher")?;
        publisher.publish(Health { utilisation: 0.5, jobs_per_second: 1e4, memory_pressure: 0.7, ..Health::default() });
        let view = BoardView::open(&path)?;
        let open = gate_over(board.clone(), NEVER_MET)?;
        let failing = installed()?;
        for kind in BackendKind::ALL {
            let rule =
                BreakerRule { failures: 1, first: std::time::Duration::from_secs(86_400), ..BreakerRule::default() };
            failing.breaker(gate::breaker_slot(kind, Opcode::Search)).failed(&rule, 0, failing.now_ns());
        }
        let broken = gate_over(failing, NEVER_MET)?;
        let exhausted = gate_over(installed()?, Rate { per_second: 1e-5, burst: 1 })?;
        let entrance = Self { open, broken, exhausted, board, view, _publisher: publisher, _folder: folder };
        entrance.is_as_expected()?;
        Ok(entrance)
    }

    /// What is measured is what the rows say.
    fn is_as_expected(&self) -> Result<(), Failure> {
        let reasons = [&self.open, &self.broken, &self.exhausted].map(|gate| {
            for at in 0..TABLE {
                black_box(gate.check(call(at)));
            }
            gate.check(call(1)).reason()
        });
        let expected = [None, Some(Reason::Breaker), Some(Reason::Rate)];
        if reasons == expected { Ok(()) } else { Err(format!("the gates answer {reasons:?}").into()) }
    }

    pub(crate) fn rows(&self) -> Vec<Row<'_>> {
        let limited = |name, limit, subject| Row { name, limit: Some(limit), subject };
        vec![
            limited("gate, let in after six questions, table of 181", limits::GATE, checks(&self.open)),
            Row { name: "  of which the clock", limit: None, subject: clock(&self.board) },
            limited("gate, refused by a breaker", limits::DENIAL, checks(&self.broken)),
            limited("gate, refused by a rate", limits::DENIAL, checks(&self.exhausted)),
            limited("board, whole health read", limits::HEALTH, healths(|| self.board.health())),
            limited("board, the same through a view of its file", limits::VIEW, healths(|| self.view.health())),
        ]
    }
}

/// Calls of the table, in turn.
fn checks(gate: &Gate) -> Subject<'_, Failure> {
    Subject::repeated(|Turn { repeats, .. }| {
        let begun = Instant::now();
        for at in 0..repeats as usize {
            black_box(gate.check(black_box(call(at))));
        }
        Ok(begun.elapsed())
    })
}

/// What every question to a gate begins with.
fn clock(board: &Board) -> Subject<'_, Failure> {
    Subject::repeated(|Turn { repeats, .. }| {
        let begun = Instant::now();
        for _ in 0..repeats {
            black_box(board.now_ns());
        }
        Ok(begun.elapsed())
    })
}

fn healths<'a>(read: impl Fn() -> Option<Health> + 'a) -> Subject<'a, Failure> {
    Subject::repeated(move |Turn { repeats, .. }| {
        let begun = Instant::now();
        for _ in 0..repeats {
            black_box(read()).ok_or("a health that nobody writes is torn")?;
        }
        Ok(begun.elapsed())
    })
}

fn call(at: usize) -> Call {
    Call { tool: (at * 7 % TABLE) as u16, role: Role::Writer, bytes: 1_000 + at as u64 % 1_000 }
}

/// A board with breakers, all closed.
fn installed() -> Result<Arc<Board>, Failure> {
    let board = Board::in_memory()?;
    gate::breakers().for_each(|(slot, ..)| board.breaker(slot).install());
    Ok(board)
}

/// A gate that asks each of its questions of every call: for searches, at a rate, under two rules.
fn gate_over(board: Arc<Board>, rate: Rate) -> Result<Gate, Failure> {
    gate::breakers().for_each(|(slot, ..)| board.breaker(slot).install());
    let counter = TOOLS[usize::from(gate::tool_id("megaring.v1.Compute/Search").ok_or("no such call")?)].counter;
    let tool = |at: usize| Tool {
        max_bytes: 1 << 20 | at as u64,
        opcode: Opcode::Search as u16,
        handler: Handler::Unary as u8,
        counter,
        role: Role::Reader as u8,
        maturity: Maturity::Stable as u8,
        cost: Cost::Query as u8,
        reserved: 0,
    };
    let tools = Box::leak((0..TABLE).map(tool).collect::<Box<[_]>>());
    let rules = ["memory_pressure > 0.95: query, batch", "backlog > 0.9: query"];
    let rules = rules.into_iter().map(str::parse).collect::<Result<_, _>>()?;
    let config = GateConfig { tools, rates: vec![("search".into(), rate)], rules, ..GateConfig::default() };
    Ok(Gate::over(KernelSet::from_env()?, board, config)?)
}
