//! Threads that run when nothing else wants to, and whose reads and writes wait for others': the idle
//! class of the disk follows from that of the processor.

use rustix::process::setpriority_process;
use rustix::thread::gettid;
use thread_priority::ThreadPriority;
use thread_priority::unix::{
    NormalThreadSchedulePolicy, ThreadSchedulePolicy, set_thread_priority_and_policy,
    thread_native_id,
};

/// How much a thread gives way: on a processor that others want, it has a tenth of what one of them has.
const NICE: i32 = 10;

/// Makes the calling thread one of these.
pub fn be_idle() {
    be(NormalThreadSchedulePolicy::Idle);
}

/// Makes the calling thread give way to others that want the processor, without waiting for them for
/// ever: somebody waits for it.
pub fn give_way() {
    if let Err(error) = setpriority_process(Some(gettid()), NICE) {
        tracing::debug!(%error, "cannot change the priority of a thread");
    }
}

/// Does some work on the calling thread, which is one of these until then.
pub fn idly<T>(work: impl FnOnce() -> T) -> T {
    /// Also where the work panics, the thread is what it was.
    struct Again;
    impl Drop for Again {
        fn drop(&mut self) {
            be(NormalThreadSchedulePolicy::Other);
        }
    }
    be_idle();
    let _again = Again;
    work()
}

fn be(policy: NormalThreadSchedulePolicy) {
    let set = ThreadSchedulePolicy::Normal(policy);
    let set = set_thread_priority_and_policy(thread_native_id(), ThreadPriority::Min, set);
    if let Err(error) = set {
        tracing::debug!(?error, ?policy, "cannot change the priority of a thread");
    }
}
