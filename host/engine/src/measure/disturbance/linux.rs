//! What Linux counts, read from the texts of its files.

use std::fs;
use std::time::Duration;

use super::Disturbance;

/// Times since the machine's start, in ticks of 10 ms, and those that a quota withheld.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Usage {
    /// Of all processors: what there was.
    pub(super) total: u64,
    /// Of all processors: what was worked.
    pub(super) busy: u64,
    /// Of all processors: what the host gave to other machines.
    pub(super) stolen: u64,
    /// What this process worked.
    pub(super) own: u64,
    /// For how long the container's quota withheld processors.
    pub(super) withheld: Duration,
}

/// Ticks of all processors below which a share is not told: one tick more or less would be several per cent.
const FEWEST: u64 = 40;
/// Time below which nothing is told.
const SHORTEST: Duration = Duration::from_millis(200);

impl Usage {
    /// What has been used until now; none where the system does not tell, or not so.
    pub(super) fn now() -> Option<Self> {
        let read = |path| fs::read_to_string(path).ok();
        let quota = read("/sys/fs/cgroup/cpu.stat").unwrap_or_default();
        Self::parse(&read("/proc/stat")?, &read("/proc/self/stat")?, &quota)
    }

    /// Of the texts of /proc/stat, /proc/self/stat and the control group's cpu.stat (empty where there is none).
    /// Format: proc(5) and the kernel's cgroup-v2 documentation.
    pub(super) fn parse(stat: &str, own: &str, quota: &str) -> Option<Self> {
        let all = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
        let fields: Vec<u64> = all.split_ascii_whitespace().map_while(|field| field.parse().ok()).collect();
        // user, nice, system, idle, iowait, irq, softirq, steal; what guests used is in user and nice.
        let &[user, nice, system, idle, waiting, irq, soft, stolen] = fields.get(..8)? else { return None };
        let busy = user + nice + system + irq + soft;
        // Behind the program's name, which may hold spaces and parentheses: state is field 3, user and system time are
        // 14 and 15.
        let mut times =
            own.rsplit_once(')')?.1.split_ascii_whitespace().skip(11).map_while(|field| field.parse::<u64>().ok());
        let own = times.next()? + times.next()?;
        let withheld = quota.lines().find_map(|line| line.strip_prefix("throttled_usec ")?.trim().parse().ok());
        let withheld = Duration::from_micros(withheld.unwrap_or(0));
        Some(Self { total: busy + idle + waiting + stolen, busy, stolen, own, withheld })
    }

    /// What was used since; none where the time is too short to tell. Slowness is not known here.
    pub(super) fn since(&self, before: &Self, elapsed: Duration) -> Option<Disturbance> {
        let total = self.total.checked_sub(before.total)?;
        if total < FEWEST || elapsed < SHORTEST {
            return None;
        }
        let share = |ticks: u64| ticks as f64 / total as f64;
        let (busy, own) = (self.busy.saturating_sub(before.busy), self.own.saturating_sub(before.own));
        Some(Disturbance {
            slower: 0.0,
            others: share(busy.saturating_sub(own)),
            stolen: share(self.stolen.saturating_sub(before.stolen)),
            withheld: self.withheld.saturating_sub(before.withheld).as_secs_f64() / elapsed.as_secs_f64(),
        })
    }
}
