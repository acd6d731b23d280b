//! Jobs that are done on the async thread of their caller.

use std::sync::atomic::Ordering;

use megaring_core::BackendKind;

use crate::fake::Handle;
use crate::{LARGE, eventually, forced, rig};

/// A small job that its caller's thread can help with is done on that thread, but never on the last one: whatever
/// happens to such a job, other calls go on.
#[test]
fn small_jobs_are_done_on_async_threads_of_which_one_stays_free() {
    let rig = rig(&[BackendKind::Cuda]);
    let fake = rig.fake();
    fake.takes_help.store(true, Ordering::SeqCst);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.expect("threads to be had");
    runtime.block_on(async {
        let call = |queries| rig.call(queries, forced(BackendKind::Cuda));
        let held = call(1);
        eventually("the first call helps", || fake.helping.load(Ordering::SeqCst) == 1).await;
        let _let_go = LetGo(fake);
        let free = call(1).await.expect("no panic").expect("a good job");
        assert_eq!(free.made.backend, BackendKind::Cuda);
        assert_eq!(fake.helping.load(Ordering::SeqCst), 1, "the last free thread helped, too");
        end_help(fake);
        held.await.expect("no panic").expect("a good job");
        // With that thread free again, the next one helps; a large job does not.
        call(1).await.expect("no panic").expect("a good job");
        assert!(fake.helping.load(Ordering::SeqCst) > 1);
        let before = fake.helping.load(Ordering::SeqCst);
        call(LARGE).await.expect("no panic").expect("a good job");
        assert_eq!(fake.helping.load(Ordering::SeqCst), before);
        rig.settles().await;
    });
}

/// Lets a thread that helps go on, however the test ends.
struct LetGo<'a>(&'a Handle);

impl Drop for LetGo<'_> {
    fn drop(&mut self) {
        end_help(self.0);
    }
}

fn end_help(fake: &Handle) {
    *fake.help_may_end.lock().expect("no test panics with the lock") = true;
    fake.help_ends.notify_all();
}
