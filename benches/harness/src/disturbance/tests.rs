//! The files' texts, the judgement of looks, and a watch on this machine.

use super::*;

fn look(at_ms: u64, work_us: u64) -> Look {
    Look { at: Duration::from_millis(at_ms), work: Duration::from_micros(work_us), usage: None }
}

/// The files' texts after some ticks of two processors.
fn usage(user: u64, own: u64, idle: u64, stolen: u64, withheld_us: u64) -> Usage {
    let stat = format!("cpu  {user} 3 20 {idle} 7 0 5 {stolen} 900 0\ncpu0 1 2 3\nintr 5 6 7\n");
    let me = format!("4711 (a (strange) name) S 1 1 1 0 -1 4194560 1 2 3 4 {} 10 0 0 20 0 1 0 9 1 1\n", own - 10);
    Usage::parse(&stat, &me, &format!("usage_usec 1\nnr_throttled 2\nthrottled_usec {withheld_us}\n")).unwrap()
}

#[test]
fn texts_are_read() {
    let seen = usage(100, 60, 800, 11, 2_500);
    let expected = Usage { total: 946, busy: 128, stolen: 11, own: 60, withheld: Duration::from_micros(2_500) };
    assert_eq!(seen, expected);
    let me = "1 (x) S 1 1 1 0 -1 0 1 2 3 4 50 10 0 0";
    assert_eq!(Usage::parse("cpu  1 2 3 4 5 6 7 8\n", me, "").unwrap().withheld, Duration::ZERO);
    for (stat, own) in [
        ("", me),
        ("cpu  1 2 3\n", me),
        ("cpu  a b c d e f g h\n", me),
        ("cpu  1 2 3 4 5 6 7 8\n", ""),
        ("cpu  1 2 3 4 5 6 7 8\n", "1 (x) S 1"),
    ] {
        assert_eq!(Usage::parse(stat, own, ""), None, "{stat:?} {own:?}");
    }
}

#[test]
fn a_quiet_machine_is_not_doubted() {
    let looks = [look(0, 1_000), look(500, 1_040), look(1_000, 1_099)];
    assert_eq!(judge(&looks, 0).doubts(), Vec::<String>::new());
    // All that was worked was worked by this process.
    let (before, after) = (usage(100, 60, 800, 0, 0), usage(290, 249, 810, 0, 0));
    let disturbance = after.since(&before, Duration::from_secs(1)).unwrap();
    assert!(disturbance.doubts().is_empty(), "{disturbance:?}");
    assert!(disturbance.others < 0.01);
}

#[test]
fn each_disturbance_is_told() {
    let slow = judge(&[look(0, 1_000), look(500, 1_150), look(900, 1_000)], 0);
    assert_eq!(slow.doubts(), ["fixed work took 15 % longer than at best: the processor was throttled or shared"]);
    let second = Duration::from_secs(1);
    let before = usage(100, 60, 800, 0, 0);
    for (after, doubt) in [
        (usage(200, 110, 900, 0, 0), "other processes used 25 % of all processors"),
        (usage(200, 160, 900, 50, 0), "the host gave 20 % of this machine's processors to others"),
        (usage(200, 160, 900, 0, 100_000), "the container's quota withheld processors for 10 % of the time"),
    ] {
        assert_eq!(after.since(&before, second).unwrap().doubts(), [doubt]);
    }
}

#[test]
fn a_lap_is_judged_beside_the_best_of_the_run() {
    // Slow before, slow after: only the run's first look shows it.
    let looks = [look(0, 1_000), look(300, 1_300), look(600, 1_300), look(900, 1_010)];
    assert!((judge(&looks, 1).slower - 0.3).abs() < 1e-9);
    assert!((judge(&looks[..3], 1).slower - 0.3).abs() < 1e-9);
    assert!((judge(&looks, 3).slower - 0.01).abs() < 1e-9);
    assert_eq!(judge(&[], 0), Disturbance::default());
    assert_eq!(judge(&looks, 9), Disturbance::default());
}

#[test]
fn usage_is_of_the_span_alone_and_of_nothing_too_short() {
    let with = |at_ms, usage| Look { usage: Some(usage), ..look(at_ms, 1_000) };
    // Others worked before the lap only.
    let looks = [
        with(0, usage(0, 10, 0, 0, 0)),
        with(1_000, usage(100, 10, 100, 0, 0)),
        with(2_000, usage(200, 110, 200, 0, 0)),
    ];
    assert_eq!(judge(&looks, 0).others, 0.25);
    assert_eq!(judge(&looks, 1).others, 0.0);
    let brief = [with(0, usage(0, 10, 0, 0, 0)), with(190, usage(100, 10, 100, 0, 0))];
    assert_eq!(judge(&brief, 0).others, 0.0, "0.19 s");
    let few = [with(0, usage(0, 10, 0, 0, 0)), with(300, usage(20, 10, 10, 0, 0))];
    assert_eq!(judge(&few, 0).others, 0.0, "30 ticks");
    // A counter that was set back.
    assert_eq!(usage(0, 10, 0, 0, 0).since(&usage(100, 10, 100, 0, 0), Duration::from_secs(1)), None);
}

#[test]
fn the_whole_goes_back_to_the_start() {
    // Ten seconds for what takes a millisecond: so slow that what this machine does now does not matter.
    let looks = vec![look(0, 10_000_000), look(500, 1_000)];
    let mut watch = Watch { clock: Instant::now(), looks, lap: 1 };
    assert!(watch.lap().slower < 100.0, "the lap began after it");
    assert!(watch.whole().slower > 1_000.0 && watch.doubts()[0].contains("throttled or shared"));
}

#[test]
fn a_watch_looks_by_itself() {
    let mut watch = Watch::start();
    watch.lap();
    watch.lap();
    assert_eq!((watch.looks.len(), watch.lap), (3, 2));
    assert!(watch.looks.iter().all(|look| !look.work.is_zero()) && watch.looks.is_sorted_by_key(|look| look.at));
    // What it says depends on the machine; that it ends with a look does not.
    watch.doubts();
    assert_eq!(watch.looks.len(), 4);
    assert_eq!(Usage::now().is_some(), cfg!(target_os = "linux"));
}
