//! Measuring backends of which some fail, what becomes of what was measured, and what a server begins with.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;

use megaring::Setup;
use megaring_core::corpus::CorpusView;
use megaring_core::encode::profile::{DEFAULT, Profile};
use megaring_core::operation::{Shape, Size};
use megaring_core::{BackendKind, Error, Opcode};
use megaring_corpus::{Access, Store};
use megaring_engine::calibration::{
    Calibrated, Calibration, Costs, Effort, Fingerprint, Found, Keeper, Kept, Measurement, Noise, Progress, SCHEMA,
    load, measure, save,
};
use megaring_engine::cost::Workload;
use megaring_engine::router::{Basis, Question, Routing};
use megaring_engine::{Engine, EngineConfig, Running};

use crate::fake::{Mode, fake_on};

struct Rig {
    engine: Arc<Engine>,
    fakes: Vec<Arc<crate::fake::Handle>>,
    folder: tempfile::TempDir,
}

/// An engine of the CPU and fakes, each on a device or on a program.
fn rig(kinds: &[(BackendKind, bool)]) -> Rig {
    let folder = tempfile::tempdir().expect("a folder");
    let store = Store::open(folder.path(), Access::Exclusive).expect("a fresh folder");
    let (fakes, extra): (Vec<_>, Vec<Running>) = kinds.iter().map(|(kind, emulated)| fake_on(*kind, *emulated)).unzip();
    let profile = Profile::parse(DEFAULT).expect("the default profile");
    let routing = Routing { adapts: false, ..Routing::default() };
    let engine = EngineConfig { routing, ..EngineConfig::new(profile.clone()) };
    let config = Setup { cpu_workers: 2, cuda: None, wgpu: None, engine, ..Setup::new(profile) };
    Rig { engine: config.start_with(store, extra).expect("an engine"), fakes, folder }
}

impl Rig {
    fn file(&self) -> PathBuf {
        self.folder.path().join(".calibration.json")
    }

    fn keeper(&self) -> Arc<Keeper> {
        Keeper::new(self.engine.clone(), Some(self.file()))
    }

    /// What the router goes by, of each backend in order.
    fn bases(&self) -> Vec<Basis> {
        let prospects = self.engine.router().explain(&question(100, None, false)).prospects;
        prospects.into_iter().filter_map(|prospect| prospect.times.ok().map(|times| times.basis)).collect()
    }
}

/// A whole run, at whose end is what matters: one backend fails in its middle.
#[test]
fn a_backend_that_fails_is_told_and_the_others_are_measured() {
    let rig = rig(&[(BackendKind::Cuda, false)]);
    rig.fakes[0].set(Mode::Answer(100));
    let keeper = rig.keeper();
    let (mut told, mut refusals) = (Vec::new(), 0);
    let turn = keeper.begin().expect("nobody measures");
    let made = turn.measure(Effort::Quick, true, &mut |progress: &Progress| {
        told.push(progress.clone());
        refusals += usize::from(matches!(keeper.begin(), Err(Error::UnderWay { .. })));
        ControlFlow::Continue(())
    });
    let Calibrated { calibration, kept } = made.expect("the CPU is well");
    assert_eq!(kept, Kept::Saved(rig.file()));
    let names: Vec<&str> = calibration.backends.iter().map(|costs| costs.backend.as_str()).collect();
    assert_eq!(names, ["cpu"]);
    assert_eq!(calibration.failed.len(), 1, "{:?}", calibration.failed);
    assert!(calibration.failed[0].backend == "cuda" && !calibration.failed[0].reason.is_empty());
    assert_eq!(rig.bases(), [Basis::Measured, Basis::Assumed]);

    assert!(matches!(keeper.restore(), Found::Good(found) if *found == calibration), "the file is good");
    assert_eq!(refusals, told.len(), "nobody else could measure meanwhile");
    assert!(keeper.begin().is_ok(), "now somebody can");
    assert!(told[0].done == 0 && told[0].left.is_none(), "{:?}", told.first());
    assert!(told.windows(2).all(|pair| pair[0].done <= pair[1].done && pair[1].done <= pair[1].steps));
    assert!(told[1..].iter().all(|later| later.left.is_some()));
    // On a machine that is busy with other things the time may be over before; then that is said.
    let left_out = calibration.doubts.iter().any(|doubt| doubt.contains("left out"));
    assert!(left_out || told.len() > 10, "{} of {} steps, {:?}", told.len(), told[0].steps, calibration.doubts);
    // Corpora alone are listed.
    assert!(rig.engine.store().list().is_empty());
    drop(rig.engine);
    drop(keeper);
    let store = Store::open(rig.folder.path(), Access::ReadOnly).expect("a good folder");
    assert!(store.list().is_empty());
}

#[test]
fn one_that_is_ended_early_changes_nothing() {
    let rig = rig(&[(BackendKind::Cuda, false)]);
    let keeper = rig.keeper();
    let mut steps = 0;
    let ended = keeper.begin().expect("nobody measures").measure(Effort::Full, true, &mut |_| {
        steps += 1;
        if steps < 3 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    assert!(matches!(ended, Err(Error::Cancelled)), "{ended:?}");
    assert_eq!((steps, rig.bases()), (3, vec![Basis::Assumed; 2]), "no step is begun after the end");
    assert!(!rig.file().exists());
    assert!(keeper.begin().is_ok());
}

#[test]
fn a_drain_ends_it_and_no_backend_is_blamed() {
    let rig = rig(&[(BackendKind::Cuda, false)]);
    let mut steps = 0;
    let ended = measure(&rig.engine, Effort::Full, &mut |_| {
        steps += 1;
        if steps == 2 {
            rig.engine.admission().close();
        }
        ControlFlow::Continue(())
    });
    assert!(matches!(ended, Err(Error::Draining)), "{ended:?}");
    assert!(steps <= 3, "{steps} steps");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_drains_does_not_wait_for_its_first_calibration() {
    let rig = rig(&[(BackendKind::Cuda, false)]);
    let turn = rig.keeper().prepare(true).expect("there is a choice, and nothing is known");
    let measuring = tokio::task::spawn_blocking(move || turn.measure_quietly());
    rig.engine.drain().await;
    measuring.await.expect("it does not panic");
    assert!(!rig.file().exists());
    assert_eq!(rig.bases(), [Basis::Assumed; 2]);
}

#[test]
fn a_server_measures_by_itself_where_there_is_a_choice_and_nothing_is_known() {
    let (device, program) = ((BackendKind::Cuda, false), (BackendKind::Wgpu, true));
    for (kinds, by_itself, expected) in [
        (&[][..], true, false),
        (&[program], true, false),
        (&[device], false, false),
        (&[device], true, true),
        (&[device, program], true, true),
    ] {
        let rig = rig(kinds);
        assert_eq!(rig.keeper().prepare(by_itself).is_some(), expected, "{kinds:?} {by_itself}");
    }
}

#[test]
fn a_file_is_gone_by_where_it_holds_and_made_anew_where_it_does_not() {
    let rig = rig(&[(BackendKind::Cuda, false)]);
    let mut calibration = calibration(&rig.engine);
    save(&rig.file(), &calibration).expect("room");
    assert!(rig.keeper().prepare(true).is_none());
    assert_eq!(rig.bases(), [Basis::Measured, Basis::Assumed]);

    calibration.fingerprint.processor = "another".into();
    save(&rig.file(), &calibration).expect("room");
    assert!(matches!(rig.keeper().restore(), Found::Other(reason) if reason.contains("another")));
    assert!(rig.keeper().prepare(true).is_some());
    std::fs::write(rig.file(), "{").expect("room");
    assert!(matches!(rig.keeper().restore(), Found::Broken(_)));
    assert!(rig.keeper().prepare(true).is_some());
    assert!(matches!(load(&rig.file(), &calibration.fingerprint), Found::Broken(_)), "it is not touched before");
}

#[test]
fn what_is_good_is_kept_and_what_is_not_only_on_demand() {
    let rig = rig(&[]);
    let keeper = rig.keeper();
    let noisy = || Calibration { noise: Noise { others: 0.9, ..Noise::default() }, ..calibration(&rig.engine) };
    let empty = || Calibration { backends: Vec::new(), ..calibration(&rig.engine) };
    let keep = |calibration, anyway| keeper.begin().expect("nobody measures").keep(calibration, anyway).kept;
    let refused = |kept: Kept, reason: &str| matches!(&kept, Kept::Refused(text) if text.contains(reason));
    assert!(refused(keep(noisy(), false), "too noisy"));
    assert!(refused(keep(empty(), false), "no backend"));
    assert!(refused(keep(empty(), true), "no backend"), "nothing is not kept on demand either");
    assert!(!rig.file().exists() && rig.bases() == [Basis::Assumed], "nothing is changed");
    assert_eq!(keep(noisy(), true), Kept::Saved(rig.file()));
    assert_eq!(rig.bases(), [Basis::Measured]);
    assert_eq!(keep(calibration(&rig.engine), false), Kept::Saved(rig.file()));
    assert_eq!(keeper.restore(), Found::Good(Box::new(calibration(&rig.engine))));
}

#[test]
fn where_it_cannot_be_saved_it_holds_until_the_end() {
    for (file, reason) in [(Some("file/c.json"), "c.json"), (None, "no file is set")] {
        let rig = rig(&[]);
        std::fs::write(rig.folder.path().join("file"), "").expect("room");
        let keeper = Keeper::new(rig.engine.clone(), file.map(|file| rig.folder.path().join(file)));
        assert_eq!(keeper.check_writable().is_err(), file.is_some());
        let made = keeper.begin().expect("nobody measures").keep(calibration(&rig.engine), false);
        assert!(matches!(&made.kept, Kept::Unsaved(text) if text.contains(reason)), "{:?}", made.kept);
        assert_eq!(rig.bases(), [Basis::Measured]);
    }
}

#[test]
fn what_a_device_lacks_counts_where_that_is_asked_for() {
    let rig = rig(&[(BackendKind::Cuda, false)]);
    rig.engine.store().create("c", 8).expect("a new name");
    let corpus = rig.engine.store().view("c").expect("it is there");
    let uploads = |corpus, cold| {
        let forecast = rig.engine.router().explain(&question(1_000_000, corpus, cold));
        let times = forecast.prospects.into_iter().filter_map(|prospect| prospect.times.ok());
        times.map(|times| times.upload.as_nanos()).collect::<Vec<_>>()
    };
    assert_eq!(uploads(None, false), [0, 0]);
    let [cpu, cuda] = uploads(None, true)[..] else { panic!("two backends run") };
    assert!(cpu == 0 && cuda > 1_000_000, "{cpu} {cuda}");
    // The fake says that it lacks nothing.
    assert_eq!((uploads(Some(corpus.clone()), true), uploads(Some(corpus), false)), (vec![0, 0], vec![0, 0]));
}

/// What would do a search of one query over so many rows, which are those of `corpus` where one is named.
fn question(rows: u64, corpus: Option<Arc<CorpusView>>, cold: bool) -> Question {
    let shape = Shape { items: 1, rows, dim: 8, k: 1, ..Shape::default() };
    let description = Opcode::Search.describe(&shape).expect("a good shape");
    Question { opcode: Opcode::Search, description, corpus, wish: None, cold }
}

/// As if the CPU alone had been measured.
fn calibration(engine: &Engine) -> Calibration {
    let sample = |items| {
        let size = Size { items, bytes: 800, multiply_adds: 800 * items, candidates: 8 * items };
        Measurement::new(&Workload { opcode: Opcode::Search, size }, (1e3 * items as f64, 0.0))
    };
    let costs = Costs::fitted(BackendKind::Cpu, (1..5).map(sample).collect(), Vec::new()).expect("times");
    Calibration {
        schema: SCHEMA,
        fingerprint: Fingerprint::of(engine),
        made_unix_s: 1,
        took_s: 1.0,
        quick: true,
        backends: vec![costs],
        failed: Vec::new(),
        noise: Noise::default(),
        doubts: Vec::new(),
    }
}
