//! What the router says of jobs over backends that run, that have failed and that are not there.

use std::sync::Arc;

use megaring_board::Board;
use megaring_core::{BackendKind, Operation};
use megaring_engine::lane::Lane;
use megaring_engine::router::{Reason, Router};

use crate::fake::{fake, fake_on};
use crate::{LARGE, STEADY, question, rig, wishing};

fn board() -> Arc<Board> {
    Board::in_memory().expect("a page of memory")
}

#[test]
fn the_router_says_why_a_job_goes_where_it_goes() {
    let (fakes, lanes): (Vec<_>, Vec<_>) = [BackendKind::Cpu, BackendKind::Cuda]
        .into_iter()
        .map(fake)
        .map(|(handle, (backend, ring))| (handle, Lane::new(backend, ring).expect("a thread")))
        .unzip();
    let router = Router::new(lanes, vec![(BackendKind::Wgpu, "there is none".into())], STEADY, board());
    let job = rig(&[]).search(LARGE);
    let route = |wish, tried: &[usize]| {
        let route = router.route(&job, &job.size(), &wishing(wish), tried).map_err(|error| error.to_string())?;
        assert!(std::ptr::eq(route.lane, &router.lanes()[route.index]));
        Ok((route.lane.kind(), route.reason))
    };
    let chosen = |found: Result<_, String>| found.expect("a lane");
    assert_eq!(chosen(route(None, &[])), (BackendKind::Cuda, Reason::Soonest));
    assert_eq!(chosen(route(Some(BackendKind::Cpu), &[])), (BackendKind::Cpu, Reason::Wish));
    assert_eq!(chosen(route(None, &[1])), (BackendKind::Cpu, Reason::Only));
    assert!(route(Some(BackendKind::Wgpu), &[]).is_err_and(|error| error.contains("there is none")));
    fakes[1].fall_ill("its heart stopped");
    assert_eq!(chosen(route(None, &[])).0, BackendKind::Cpu);
    assert!(route(Some(BackendKind::Cuda), &[]).is_err_and(|error| error.contains("its heart stopped")));
    let told = router.explain(&question(&job));
    assert_eq!(told.chosen.map(|chosen| told.prospects[chosen].kind), Some(BackendKind::Cpu));
    let reasons: Vec<&str> =
        told.prospects.iter().filter_map(|one| one.times.as_ref().err()).map(String::as_str).collect();
    assert_eq!(reasons, ["out of service: its heart stopped", "there is none"]);
    fakes[0].ring.close();
    assert!(route(None, &[]).is_err_and(|error| error.contains("its ring is closed")));
    assert_eq!(router.explain(&question(&job)).chosen, None);
}

#[test]
fn an_emulated_device_works_for_those_who_ask_for_it() {
    let (fakes, lanes): (Vec<_>, Vec<_>) = [(BackendKind::Cpu, false), (BackendKind::Wgpu, true)]
        .into_iter()
        .map(|(kind, emulated)| fake_on(kind, emulated))
        .map(|(handle, (backend, ring))| (handle, Lane::new(backend, ring).expect("a thread")))
        .unzip();
    let router = Router::new(lanes, Vec::new(), STEADY, board());
    let job = rig(&[]).search(LARGE);
    let kind = |wish| {
        router
            .route(&job, &job.size(), &wishing(wish), &[])
            .map(|route| route.lane.kind())
            .map_err(|error| error.to_string())
    };
    assert_eq!(kind(None), Ok(BackendKind::Cpu));
    assert_eq!(kind(Some(BackendKind::Wgpu)), Ok(BackendKind::Wgpu));
    fakes[0].fall_ill("its heart stopped");
    assert!(kind(None).is_err_and(|error| error.contains("its heart stopped")), "not even in need");
}
