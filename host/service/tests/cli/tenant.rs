//! `tenant`: tokens that are shown once, the file that has their hashes, and servers that go by it.

use std::fs;
use std::time::Duration;

use megaring_proto::v1 as pb;
use megaring_proto::v1::budgets_client::BudgetsClient;
use rustix::process::Signal;
use tonic::Request;

use crate::common::Folder;
use crate::serve::Serving;

fn add(folder: &Folder, args: &[&str]) -> String {
    let made = folder.run(&[&["tenant", "add", "--json"], args].concat()).succeeded().records().remove(0);
    made["token"].as_str().unwrap().to_owned()
}

const FILE: &str = "megaring-data/.tenants.toml";

#[test]
fn a_token_is_shown_once_and_its_hash_is_kept() {
    let folder = Folder::new();
    folder.run(&["tenant", "list"]).failed(1, &["there are no tenants in", "tenant add"]);
    let token = add(&folder, &["one", "--role", "writer"]);
    assert!(token.len() == 67 && token.starts_with("mr-"), "{token}");
    let text = fs::read_to_string(folder.path(FILE)).unwrap();
    assert!(!text.contains(&token[3..]) && text.contains("role = \"writer\""), "{text}");
    // What people write into it stays; a second token is for the same tenant, whose role stays.
    fs::write(folder.path(FILE), format!("# ours\n{text}rates = {{ search = \"5\" }} # few\n")).unwrap();
    let second = add(&folder, &["one"]);
    assert_ne!(token, second);
    add(&folder, &["two"]);
    let text = fs::read_to_string(folder.path(FILE)).unwrap();
    assert!(text.starts_with("# ours\n") && text.contains("# few") && !text.contains(&second[3..]), "{text}");
    let listed = folder.run(&["tenant", "list"]).succeeded().stdout;
    assert_eq!(listed, "one (writer): 2 tokens\ntwo (reader): 1 token\n");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = fs::metadata(folder.path(FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "nobody else may read it: {mode:o}");
    }
    folder.run(&["tenant", "add", ""]).failed(1, &["a name has 1 to 128 bytes"]);
    folder.run(&["tenant", "add", "x", "--role", "king"]).failed(2, &["reader, writer, admin"]);
    folder.run(&["tenant", "list", "--server", "localhost:1"]).failed(2, &["not by the server"]);
}

#[test]
fn a_file_that_cannot_be_is_refused_with_its_reason() {
    let hash = format!("sha256:{}", "0".repeat(64));
    for (text, words) in [
        ("".to_owned(), "no [[tenant]]"),
        ("[[tenant]]\nname = \"a\"\n".to_owned(), "missing field `role`"),
        ("[[tenant]]\nname = \"a\"\nrole = \"king\"\n".to_owned(), "\"king\" is none of reader, writer, admin"),
        ("[[tenant]]\nname = \"a\"\nrole = \"reader\"\ntokens = [\"mr-1\"]\n".to_owned(), "is no hash of a token"),
        ("[[tenant]]\nname = \"a\"\nrole = \"reader\"\ncolour = 1\n".to_owned(), "unknown field `colour`"),
        ("[[tenant]]\nname = \"\\u00e4\"\nrole = \"reader\"\n".to_owned(), "printable ASCII"),
        (
            "[[tenant]]\nname = \"a\"\nrole = \"reader\"\nrates = { sleep = \"5\" }\n".to_owned(),
            "no calls are counted as \"sleep\"",
        ),
        ("[[tenant]]\nname = \"a\"\nrole = \"reader\"\nrates = { search = \"-5\" }\n".to_owned(), "no rate"),
        ("[[tenant]]\nname = \"a\"\nrole = \"reader\"\nbudget = { unit = \"micros\", day = -5 }\n".to_owned(), "-5"),
        (
            "[[tenant]]\nname = \"a\"\nrole = \"reader\"\nbudget = { unit = \"gold\" }\n".to_owned(),
            "unknown variant `gold`",
        ),
        (
            "[[tenant]]\nname = \"a\"\nrole = \"reader\"\nbudget = { unit = \"micros\", prices = { tea = 1 } }\n"
                .to_owned(),
            "\"tea\" is no cost",
        ),
        (
            "[[tenant]]\nname = \"a\"\nrole = \"reader\"\nbudget = { unit = \"nanoseconds\", prices = { read = 1 } }\n"
                .to_owned(),
            "prices are of a budget",
        ),
        ("[[tenant]]\nname = \"a\"\nrole = \"reader\"\n".repeat(2), "two of that name"),
        (
            format!("[[tenant]]\nname = \"a\"\nrole = \"reader\"\ntokens = [\"{hash}\"]\n")
                + &format!("[[tenant]]\nname = \"b\"\nrole = \"reader\"\ntokens = [\"{hash}\"]\n"),
            "is \"a\"'s already",
        ),
    ] {
        let folder = Folder::new();
        fs::create_dir(folder.path("megaring-data")).unwrap();
        fs::write(folder.path(FILE), &text).unwrap();
        folder.run(&["serve", "--listen", "127.0.0.1:0"]).failed(1, &[".tenants.toml", words]);
        folder.run(&["tenant", "list"]).failed(1, &[words]);
    }
    Folder::new().run(&["serve", "--listen", "0.0.0.0:0"]).failed(1, &["0.0.0.0", "tenant add"]);
}

#[test]
fn a_command_shows_its_token_and_a_signal_has_the_file_read() {
    let folder = Folder::new();
    let token = add(&folder, &["one", "--role", "writer"]);
    let serving = Serving::start(&folder, &[]);
    let address = serving.address();
    let list = |token: &str| folder.run(&["corpus", "list", "--server", &address, "--token", token]);
    list("").failed(1, &["no token that is known"]);
    list(&token).succeeded();
    let second = add(&folder, &["two"]);
    serving.signal(Signal::HUP);
    // By the signal or by itself, soon.
    let begun = std::time::Instant::now();
    while list(&second).status != Some(0) {
        assert!(begun.elapsed() < Duration::from_secs(60), "the new tenant is never known");
    }
    folder
        .run(&["corpus", "create", "a", "--dim", "2", "--server", &address, "--token", &second])
        .failed(1, &["role reader"]);
    folder.run(&["corpus", "create", "a", "--dim", "2", "--server", &address, "--token", &token]).succeeded();
    serving.signal(Signal::TERM);
    let (status, _, stderr) = serving.end();
    assert_eq!(status, Some(0), "{stderr}");
    assert!(stderr.contains("the tenants are those of the file as it is now"), "{stderr}");
}

/// Kills a server at any moment of reserving and settling, again and again: what was acknowledged is known afterwards,
/// and no more is ever charged than the limit allows. `MEGARING_KILLS` says how often; 20 times unless set.
#[test]
fn a_killed_server_forgets_no_amount() {
    const LIMIT: u64 = 100_000;
    let folder = Folder::new();
    let token = add(&folder, &["payer", "--role", "writer"]);
    let text = fs::read_to_string(folder.path(FILE)).unwrap();
    fs::write(folder.path(FILE), format!("{text}\n[tenant.budget]\nunit = \"micros\"\nday = {LIMIT}\n")).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (mut settled, mut open) = (0, Vec::new());
    let kills = std::env::var("MEGARING_KILLS").map_or(20, |kills| kills.parse().unwrap());
    for round in 0..kills {
        let serving = Serving::start(&folder, &[]);
        let address = serving.address();
        runtime.block_on(async {
            let mut budgets = BudgetsClient::connect(format!("http://{address}")).await.unwrap();
            let told =
                budgets.describe(bearing(&token, pb::DescribeBudgetRequest::default())).await.unwrap().into_inner();
            // What was under way at the kill may have come through, too.
            assert!(told.day_settled >= settled && told.day_settled <= LIMIT, "{told:?} {settled}");
            // Of those that nobody heard to be settled, each has five at least.
            assert!(
                told.day_settled + told.day_reserved >= settled + 5 * open.len() as u64,
                "{told:?} {settled} {open:?}"
            );
            settled = told.day_settled;
            // One of them is settled by a server that did not make it, unless it was.
            if let Some(reservation) = open.pop() {
                let settle = pb::SettleRequest { reservation, amount: 7, ..Default::default() };
                match budgets.settle(bearing(&token, settle)).await {
                    Ok(_) => settled += 7,
                    Err(status) => assert!(status.message().contains("settled already, at 5"), "{status}"),
                }
            }
            let kill = tokio::time::sleep(Duration::from_millis(5 + round % 20 * 3));
            tokio::pin!(kill);
            loop {
                let work = async {
                    let reserve = pb::ReserveRequest { amount: 7, lasts_ms: 3_600_000, ..Default::default() };
                    let one = budgets.reserve(bearing(&token, reserve)).await.ok()?.into_inner();
                    open.push(one.reservation);
                    let settle = pb::SettleRequest { reservation: one.reservation, amount: 5, ..Default::default() };
                    if budgets.settle(bearing(&token, settle)).await.is_ok() {
                        open.pop();
                        settled += 5;
                    }
                    Some(())
                };
                tokio::select! {
                    () = &mut kill => break,
                    _ = work => {}
                }
            }
        });
        serving.signal(Signal::KILL);
        serving.end();
        folder.run(&["ledger", "verify"]).succeeded();
    }
    assert!(settled > 0);
}

fn bearing<T>(token: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    request
}
