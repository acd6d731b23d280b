//! Budgets over the wire: what calls come to, transactions of a tenant's own, and what is told where there is no room.

use std::time::Duration;

use megaring_core::gate::Role;
use megaring_datasets::Matrix;
use megaring_ledger::Kind;
use megaring_proto::v1 as pb;
use tonic::{Code, Request, Status};
use tonic_types::StatusExt as _;

use crate::common::{Running, eventually, float32, folder, labelled, reason, violation};
use crate::tenants::File;

fn search() -> pb::SearchRequest {
    let queries = Some(float32(&Matrix::new(1, 2, vec![1.0, 0.5])));
    pb::SearchRequest { corpus: "a".into(), queries, k: 1, ..Default::default() }
}

async fn start(folder: &tempfile::TempDir, file: &File) -> Running {
    let server = Running::start(folder.path(), file.wanted()).await;
    let mut corpora = server.corpora().await;
    let create = pb::CreateRequest { name: "a".into(), dim: 2, ..Default::default() };
    corpora.create(file.by("root", create)).await.expect("it is made");
    let rows = Some(labelled(&Matrix::new(2, 2, vec![1.0, 0.0, 0.5, 1.0])));
    let append = tokio_stream::once(pb::AppendRequest { corpus: "a".into(), rows });
    corpora.append(file.by("root", append)).await.expect("rows are added");
    server
}

fn retry_after(status: &Status) -> Option<Duration> {
    status.get_details_retry_info().and_then(|info| info.retry_delay)
}

fn in_session<T>(mut request: Request<T>, session: &str) -> Request<T> {
    request.metadata_mut().insert("megaring-session", session.parse().expect("ASCII"));
    request
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_are_charged_their_price_until_the_day_is_spent() {
    let folder = folder();
    let prices =
        "[tenant.budget]\nunit = \"micros\"\nday = 25\nprices = { query = 10, read = 1, batch = 3, change = 4 }\n";
    let file = File::new(folder.path(), &[("root", Role::Admin, ""), ("payer", Role::Writer, prices)]);
    let server = start(&folder, &file).await;
    let (mut compute, mut corpora) = (server.compute().await, server.corpora().await);
    compute.search(file.by("payer", search())).await.expect("ten");
    corpora.list(file.by("payer", pb::ListRequest {})).await.expect("one");
    // What fails costs nothing.
    let wrong = pb::SearchRequest { corpus: "b".into(), ..search() };
    assert_eq!(compute.search(file.by("payer", wrong)).await.expect_err("no such corpus").code(), Code::NotFound);
    let missing = pb::DropRequest { name: "b".into() };
    assert_eq!(corpora.drop(file.by("payer", missing)).await.expect_err("no such corpus").code(), Code::NotFound);
    let describe = async || {
        let request = file.by("payer", pb::DescribeBudgetRequest::default());
        server.budgets().await.describe(request).await.expect("it is told").into_inner()
    };
    let told = describe().await;
    assert_eq!((told.day_settled, told.day_reserved, told.session_settled, told.day_limit), (11, 0, 11, Some(25)));
    assert_eq!((told.unit.as_str(), told.call_limit, told.tenant.as_str()), ("micros", None, "payer"));
    compute.search(file.by("payer", search())).await.expect("twenty-one");
    let refused = compute.search(file.by("payer", search())).await.expect_err("there are four left");
    assert_eq!((refused.code(), reason(&refused)), (Code::ResourceExhausted, "DENIED_BUDGET".into()));
    assert!(
        refused.message().contains("comes to 10; of the 25") && refused.message().contains("21 are spent"),
        "{refused}"
    );
    assert!(retry_after(&refused).is_some_and(|after| after <= Duration::from_secs(86_400)), "{refused:?}");
    // Each message of a stream is charged by itself.
    let message = |request_id| pb::SearchStreamRequest { request_id, search: Some(search()) };
    let stream = tokio_stream::iter([message(1), message(2)]);
    let mut answers = compute.search_stream(file.by("payer", stream)).await.expect("it begins").into_inner();
    let mut answered = 0;
    while let Some(answer) = answers.message().await.expect("it goes on") {
        answered += usize::from(matches!(answer.result, Some(pb::search_stream_response::Result::Response(_))));
    }
    assert_eq!(answered, 1, "one at three, and one is left");
    let rows = Some(labelled(&Matrix::new(1, 2, vec![1.0, 1.0])));
    let append = tokio_stream::once(pb::AppendRequest { corpus: "a".into(), rows });
    let refused = corpora.append(file.by("payer", append)).await.expect_err("four are not left");
    assert_eq!(reason(&refused), "DENIED_BUDGET");
    assert_eq!(describe().await.day_settled, 24);
    compute.search(file.by("root", search())).await.expect("others have no budget");
    // The board is told, and the ledger has every amount.
    eventually("the board shows it", || {
        server.engine.board().health().is_some_and(|health| (health.budget_pressure - 0.96).abs() < 1e-9)
    })
    .await;
    let recorder = server.engine.recorder().expect("a ledger");
    recorder.keep().await.expect("it is kept");
    let view = recorder.view().expect("it opens");
    let entries: Vec<_> =
        view.query(megaring_ledger::Query::default()).map(|record| record.expect("whole").entry()).collect();
    assert_eq!(entries.iter().map(|entry| entry.settled).sum::<u64>(), 24);
    assert_eq!(entries.iter().filter(|entry| entry.reason == 7).count(), 3, "refusals have their reason");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn compute_is_charged_by_the_nanosecond() {
    let folder = folder();
    let budget = "budget = { unit = \"nanoseconds\", call = 1_000_000_000, day = 2_000_000_000 }\n";
    let tight = "budget = { unit = \"nanoseconds\", call = 1 }\n";
    let tenants = [("root", Role::Admin, ""), ("payer", Role::Reader, budget), ("tight", Role::Reader, tight)];
    let file = File::new(folder.path(), &tenants);
    let server = start(&folder, &file).await;
    let mut compute = server.compute().await;
    let made =
        compute.search(file.by("payer", search())).await.expect("it is answered").into_inner().made.expect("made");
    let request = pb::DescribeBudgetRequest::default();
    let told = server.budgets().await.describe(file.by("payer", request)).await.expect("it is told").into_inner();
    assert_eq!((told.day_settled, told.day_reserved), (made.compute_ns + made.rescore_ns, 0));
    let refused = compute.search(file.by("tight", search())).await.expect_err("it takes more than a nanosecond");
    assert_eq!((reason(&refused), retry_after(&refused)), ("DENIED_BUDGET".into(), None));
    assert!(refused.message().contains("the budget allows 1 for one"), "{refused}");
    server.corpora().await.list(file.by("tight", pb::ListRequest {})).await.expect("that is no compute");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_reserves_settles_and_releases_what_it_spends_elsewhere() {
    let folder = folder();
    let budget =
        "blocked_recipients = [\"mallory\"]\nbudget = { unit = \"micros\", call = 60, session = 80, day = 100 }\n";
    let tenants = [("root", Role::Admin, ""), ("payer", Role::Writer, budget), ("reader", Role::Reader, "")];
    let file = File::new(folder.path(), &tenants);
    let server = start(&folder, &file).await;
    let mut budgets = server.budgets().await;
    let reserve =
        |amount, recipient: &str| pb::ReserveRequest { amount, recipient: recipient.into(), ..Default::default() };
    let one = budgets.reserve(file.by("payer", reserve(60, "shop"))).await.expect("there is room").into_inner();
    let settle = |reservation, amount| pb::SettleRequest { reservation, amount, ..Default::default() };
    let refused =
        budgets.settle(file.by("payer", settle(one.reservation, 61))).await.expect_err("more than is set aside");
    assert_eq!((refused.code(), violation(&refused).0.as_str()), (Code::InvalidArgument, "amount"));
    let settled = budgets.settle(file.by("payer", settle(one.reservation, 50))).await.expect("it is charged");
    assert_eq!(settled.into_inner().returned, 10);
    let refused = budgets.settle(file.by("payer", settle(one.reservation, 50))).await.expect_err("a second time");
    assert_eq!((refused.code(), reason(&refused)), (Code::FailedPrecondition, "WRONG_STATE".into()));
    assert!(refused.message().contains("settled already, at 50"), "{refused}");
    let refused = budgets.settle(file.by("payer", settle(77, 1))).await.expect_err("no such reservation");
    assert_eq!(refused.code(), Code::NotFound);
    for (amount, recipient, session, reason_wanted, words) in [
        (61, "shop", "", "DENIED_BUDGET", "allows 60 for one"),
        (31, "shop", "", "DENIED_BUDGET", "allows for a session, 50 are spent"),
        (51, "shop", "other", "DENIED_BUDGET", "allows for a day, 50 are spent"),
        (1, "mallory", "", "DENIED_RECIPIENT", "\"mallory\""),
    ] {
        let request = in_session(file.by("payer", reserve(amount, recipient)), session);
        let refused = budgets.reserve(request).await.expect_err(words);
        assert!(reason(&refused) == reason_wanted && refused.message().contains(words), "{refused}");
    }
    let other = in_session(file.by("payer", reserve(50, "shop")), "other");
    let two = budgets.reserve(other).await.expect("another session has room").into_inner();
    // Administrators may for others; nobody else.
    let of_payer = |reservation| pb::ReleaseRequest { tenant: "payer".into(), reservation };
    let refused = budgets.release(file.by("reader", of_payer(two.reservation))).await.expect_err("a reader");
    assert_eq!(refused.code(), Code::PermissionDenied);
    let told = pb::DescribeBudgetRequest { tenant: "payer".into() };
    let refused = budgets.describe(file.by("reader", told.clone())).await.expect_err("another's");
    assert_eq!((refused.code(), reason(&refused)), (Code::PermissionDenied, "DENIED_ROLE".into()));
    let told = budgets.describe(file.by("root", told)).await.expect("it is told").into_inner();
    assert_eq!((told.day_settled, told.day_reserved, told.open_reservations), (50, 50, 1));
    let released = budgets.release(file.by("root", of_payer(two.reservation))).await.expect("it is given back");
    assert_eq!(released.into_inner().returned, 50);
    let unknown = pb::DescribeBudgetRequest { tenant: "nobody".into() };
    assert_eq!(budgets.describe(file.by("root", unknown)).await.expect_err("nobody").code(), Code::NotFound);
    // What is not settled in time is given back.
    let short = pb::ReserveRequest { lasts_ms: 1, ..reserve(30, "shop") };
    let three = budgets.reserve(file.by("payer", short)).await.expect("there is room").into_inner();
    tokio::time::sleep(Duration::from_millis(5)).await;
    let refused = budgets.settle(file.by("payer", settle(three.reservation, 1))).await.expect_err("too late");
    assert!(refused.code() == Code::FailedPrecondition && refused.message().contains("expired"), "{refused}");
    for (field, request) in [
        ("lasts_ms", pb::ReserveRequest { lasts_ms: 3_600_001, ..reserve(1, "shop") }),
        ("recipient", reserve(1, &"r".repeat(129))),
    ] {
        let refused = budgets.reserve(file.by("payer", request)).await.expect_err(field);
        assert_eq!(violation(&refused).0, field);
    }
    // Without a budget there is no limit, and amounts at the ends of their type are as good as others.
    let all = budgets.reserve(file.by("root", reserve(u64::MAX, "shop"))).await.expect("no limit").into_inner();
    budgets.reserve(file.by("root", reserve(1, "shop"))).await.expect_err("no number is larger");
    budgets.settle(file.by("root", settle(all.reservation, u64::MAX))).await.expect("it is charged");
    let view = server.engine.recorder().expect("a ledger").view().expect("it opens");
    let kinds: Vec<Kind> =
        view.query(megaring_ledger::Query::default()).map(|record| record.expect("whole").kind()).collect();
    let count = |kind| kinds.iter().filter(|found| **found == kind).count();
    assert_eq!([Kind::RESERVED, Kind::SETTLED, Kind::RELEASED].map(count), [4, 2, 1]);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_spent_is_known_after_a_restart() {
    let folder = folder();
    let budget = "budget = { unit = \"micros\", day = 100, prices = { query = 10 } }\n";
    let file = File::new(folder.path(), &[("root", Role::Admin, ""), ("payer", Role::Writer, budget)]);
    let server = start(&folder, &file).await;
    server.compute().await.search(file.by("payer", search())).await.expect("ten");
    let reserve = pb::ReserveRequest { amount: 70, ..Default::default() };
    let open = server.budgets().await.reserve(file.by("payer", reserve)).await.expect("there is room").into_inner();
    server.stop().await;
    crate::common::let_go(folder.path()).await;
    let server = Running::start(folder.path(), file.wanted()).await;
    let mut budgets = server.budgets().await;
    let told = budgets.describe(file.by("payer", pb::DescribeBudgetRequest::default())).await.expect("it is told");
    let told = told.into_inner();
    assert_eq!((told.day_settled, told.day_reserved, told.open_reservations), (10, 70, 1));
    let settle = pb::SettleRequest { reservation: open.reservation, amount: 70, ..Default::default() };
    budgets.settle(file.by("payer", settle)).await.expect("it is known still");
    let reserve = pb::ReserveRequest { amount: 21, ..Default::default() };
    assert_eq!(
        reason(&budgets.reserve(file.by("payer", reserve)).await.expect_err("twenty are left")),
        "DENIED_BUDGET"
    );
    server.stop().await;
}
