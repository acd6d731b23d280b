//! The file of a calibration: what it holds for, and what comes of one that is broken, foreign or cannot be written.

use megaring_core::operation::Size;
use megaring_core::{BackendKind, Opcode};
use megaring_engine::calibration::{
    Calibration, Costs, Fingerprint, Found, Identity, Measurement, Noise, SCHEMA, check_writable, load, save,
};
use megaring_engine::cost::Workload;

fn fingerprint() -> Fingerprint {
    let identity = |backend: &str| Identity {
        backend: backend.into(),
        device: "d".into(),
        instruction_set: "i".into(),
        driver: "1".into(),
    };
    let backends = vec![identity("cpu"), identity("wgpu")];
    let (processor, build, setup) = ("p".into(), "b".into(), "s".into());
    Fingerprint { processor, threads: 2, build, setup, backends }
}

fn calibration() -> Calibration {
    let sample = |items: u64| {
        let size = Size { items, bytes: 800, multiply_adds: 800 * items, candidates: 8 * items };
        Measurement::new(&Workload { opcode: Opcode::Search, size }, (1e3 * items as f64, 0.01))
    };
    let costs = Costs::fitted(BackendKind::Cpu, (1..5).map(sample).collect(), vec![[1e6, 1e5]]).expect("times");
    Calibration {
        schema: SCHEMA,
        fingerprint: fingerprint(),
        made_unix_s: 1,
        took_s: 2.0,
        quick: true,
        backends: vec![costs],
        failed: Vec::new(),
        noise: Noise::default(),
        doubts: vec!["a <doubt>".into()],
    }
}

#[test]
fn what_was_saved_is_found_again_and_an_old_file_is_replaced() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("deep/er/calibration.json");
    assert_eq!(load(&path, &fingerprint()), Found::Nothing);
    for quick in [true, false] {
        let calibration = Calibration { quick, ..calibration() };
        save(&path, &calibration).expect("room");
        assert_eq!(load(&path, &fingerprint()), Found::Good(Box::new(calibration)));
    }
    assert_eq!(std::fs::read_dir(path.parent().expect("a folder")).expect("readable").count(), 1, "nothing is left");
}

#[test]
fn a_file_of_something_else_is_not_believed() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("c.json");
    save(&path, &calibration()).expect("room");
    let told = |change: &dyn Fn(&mut Fingerprint)| {
        let mut here = fingerprint();
        change(&mut here);
        match load(&path, &here) {
            Found::Other(difference) => difference,
            other => panic!("{other:?}"),
        }
    };
    assert!(told(&|here| here.processor = "q".into()).contains("processor is q, and was p"));
    assert!(told(&|here| here.threads = 8).contains("threads is 8, and was 2"));
    assert!(told(&|here| here.build = "c".into()).contains("build is c, and was b"));
    assert!(told(&|here| here.setup = "t".into()).contains("setup is t, and was s"));
    assert!(told(&|here| here.backends[1].driver = "2".into()).contains("wgpu is d i 2, and was d i 1"));
    assert!(told(&|here| here.backends[1].backend = "cuda".into()).contains("cuda was not measured"));
    let mut fewer = fingerprint();
    fewer.backends.pop();
    assert!(matches!(load(&path, &fewer), Found::Good(_)), "one that is switched off is no difference");
    let text =
        std::fs::read_to_string(&path).expect("a file").replace(&format!("\"schema\": {SCHEMA}"), "\"schema\": 7");
    std::fs::write(&path, text).expect("room");
    assert!(matches!(load(&path, &fingerprint()), Found::Other(reason) if reason.contains("number 7")));
}

#[test]
fn a_broken_file_is_told_and_harms_nobody() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("c.json");
    save(&path, &calibration()).expect("room");
    let whole = std::fs::read_to_string(&path).expect("a file");
    let half = whole[..whole.len() / 2].to_owned();
    let negative = whole.replace("\"ns\": 1000.0", "\"ns\": -1000.0");
    let unknown = whole.replace("\"opcode\": 2", "\"opcode\": 77");
    assert!(negative != whole && unknown != whole);
    for text in ["", "{}", "null", "[2]", "\u{0}", &half, &negative, &unknown] {
        std::fs::write(&path, text).expect("room");
        let found = load(&path, &fingerprint());
        assert!(matches!(&found, Found::Broken(reason) if reason.contains("c.json")), "{text:?}: {found:?}");
        assert!(found.want().is_some());
    }
    std::fs::write(&path, [0xFF, 0xFE]).expect("room");
    assert!(matches!(load(&path, &fingerprint()), Found::Broken(_)));
    assert!(matches!(load(folder.path(), &fingerprint()), Found::Broken(_)), "a folder");
}

#[test]
fn where_it_cannot_be_written_that_is_told_and_the_old_one_stays() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("file");
    std::fs::write(&file, "old").expect("room");
    let below = file.join("calibration.json");
    assert!(save(&below, &calibration()).is_err_and(|error| error.to_string().contains("calibration.json")));
    assert_eq!(std::fs::read_to_string(&file).expect("it stays"), "old");
    // One that is read-only stays, too: the mode counts, even for those whom it would not stop.
    let mut locked = std::fs::metadata(&file).expect("a file").permissions();
    locked.set_readonly(true);
    std::fs::set_permissions(&file, locked).expect("it is ours");
    for (path, reason) in [(&below, "calibration.json"), (&file, "read-only"), (&folder.path().into(), "no file")] {
        for refused in [check_writable(path), save(path, &calibration())] {
            assert!(refused.is_err_and(|error| error.to_string().contains(reason)), "{reason}");
        }
    }
    assert_eq!(std::fs::read_to_string(&file).expect("it stays"), "old");
    assert_eq!(std::fs::read_dir(folder.path()).expect("readable").count(), 1, "nothing is left");
}

#[test]
fn what_is_of_no_use_is_told() {
    let good = calibration();
    assert_eq!(good.unfit(), None, "{good:?}");
    let noisy = Calibration { noise: Noise { others: 0.9, ..Noise::default() }, ..good.clone() };
    assert!(noisy.unfit().is_some_and(|reason| reason.contains("90 %")));
    let empty = Calibration { backends: Vec::new(), ..good.clone() };
    assert!(empty.unfit().is_some_and(|reason| reason.contains("no backend")));
    let mut crooked = good;
    crooked.backends[0].typical_errors[0].1 = 0.51;
    assert!(crooked.unfit().is_some_and(|reason| reason.contains("screen on cpu differ by 51 %")));
}
