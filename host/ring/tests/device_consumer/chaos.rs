//! A device against a model, under random orders of everything that it and its host may do, faults and deaths included.

use std::{collections::HashMap, sync::Arc};

use megaring_ring::{Descriptor, JobRing, Outcome, RingConfig, Status, Ticket, WaitStrategy, protocol::Sound};
use proptest::{prelude::*, sample::Index};

use crate::{
    device::{Bug, Device, Words},
    dice::Dice,
    harness::fill,
    ring_at,
};

const CONFIG: RingConfig =
    RingConfig { capacity: 4, arena_bytes: 16 * 128, block_bytes: 128, wait: WaitStrategy::Park };

#[derive(Clone, Debug)]
enum Step {
    Ask(usize),
    Take(u64),
    Work(usize),
    /// An answer that was sent before, once more.
    Again(Index),
    /// An answer in a damaged slot, which may have lost its ticket too.
    Torn(Index, bool),
    Stray(Index),
    Reap,
    Collect(Index),
    DropTicket(Index),
    DropOutcome(Index),
    /// The host gives up on the device, which goes on.
    Fail,
    /// The host gives up on the device, which dies; another one follows.
    Kill,
    /// The device ends in peace; another one follows.
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    let index = any::<Index>;
    prop_oneof![
        10 => (8usize..300).prop_map(Step::Ask),
        8 => (1u64..5).prop_map(Step::Take),
        8 => (1usize..5).prop_map(Step::Work),
        1 => index().prop_map(Step::Again),
        1 => (index(), any::<bool>()).prop_map(|(which, lost)| Step::Torn(which, lost)),
        1 => index().prop_map(Step::Stray),
        6 => Just(Step::Reap),
        6 => index().prop_map(Step::Collect),
        1 => index().prop_map(Step::DropTicket),
        4 => index().prop_map(Step::DropOutcome),
        1 => Just(Step::Fail),
        1 => Just(Step::Kill),
        1 => Just(Step::Restart),
    ]
}

struct Model {
    ring: Arc<JobRing>,
    device: Device,
    seed: u64,
    tickets: Vec<Ticket>,
    outcomes: Vec<Outcome>,
    /// By ticket, what its answer begins with.
    sums: HashMap<u64, u64>,
    sent: Vec<Words>,
    /// Whether the device has answered anything wrongly, or the host for it: no ticket is answered with an error
    /// before.
    spoiled: bool,
}

impl Model {
    fn new(start: u64) -> Self {
        let ring = ring_at(CONFIG, start);
        Self {
            device: Device::attach::<Sound>(&ring, start, Bug::None),
            ring,
            seed: 1,
            tickets: Vec::new(),
            outcomes: Vec::new(),
            sums: HashMap::new(),
            sent: Vec::new(),
            spoiled: false,
        }
    }

    fn apply(&mut self, step: Step) -> Result<(), TestCaseError> {
        match step {
            Step::Ask(size) => self.ask(size),
            Step::Take(most) => prop_assert!(self.device.take(most).is_some(), "a tail that cannot be"),
            Step::Work(count) => {
                let count = count.min(self.device.taken.len());
                let burst = self.device.taken.split_off(self.device.taken.len() - count);
                self.sent.extend(burst.iter().map(Device::answer));
                self.device.work_on(&burst);
            }
            Step::Again(which) if !self.sent.is_empty() => {
                let again = self.sent[which.index(self.sent.len())];
                self.publish_beside(again);
            }
            Step::Torn(which, lost) if !self.device.taken.is_empty() => {
                let mut torn = self.take_answer(which);
                torn[15] = 1 << 50;
                torn[2] ^= u64::from(lost);
                self.publish_beside(torn);
            }
            Step::Stray(which) if !self.device.taken.is_empty() => {
                let mut stray = self.take_answer(which);
                stray[6] ^= 128;
                self.publish_beside(stray);
            }
            Step::Again(_) | Step::Torn(..) | Step::Stray(_) => (),
            Step::Reap => drop(self.ring.reap()),
            Step::Collect(which) => self.collect(which)?,
            Step::DropTicket(which) => drop(pick(&mut self.tickets, which)),
            Step::DropOutcome(which) => drop(pick(&mut self.outcomes, which)),
            Step::Fail => self.spoiled |= self.ring.fail_outstanding(Status::BackendFailed) > 0,
            Step::Kill => self.kill(),
            Step::Restart => self.restart(),
        }
        self.check()
    }

    fn ask(&mut self, size: usize) {
        if let Ok(mut reservation) = self.ring.try_reserve(size, 16) {
            self.seed += 1;
            let sum = fill(&mut reservation, &mut Dice(self.seed));
            let ticket = self.ring.submit(reservation, Descriptor { dim: self.seed as u32, ..Descriptor::default() });
            self.sums.insert(ticket.id(), sum);
            self.tickets.push(ticket);
        }
    }

    fn take_answer(&mut self, which: Index) -> Words {
        self.spoiled = true;
        let taken = self.device.taken.swap_remove(which.index(self.device.taken.len()));
        Device::answer(&taken)
    }

    /// Sends what may have no completion slot of its own: the queue is empty before and after.
    fn publish_beside(&mut self, answer: Words) {
        self.ring.reap();
        self.device.publish(&[answer]);
        self.ring.reap();
    }

    fn collect(&mut self, which: Index) -> Result<(), TestCaseError> {
        let Some(ticket) = pick(&mut self.tickets, which) else {
            return Ok(());
        };
        match ticket.try_collect() {
            Err(ticket) => self.tickets.push(ticket),
            Ok(outcome) => {
                let right = outcome.status() == Status::Ok;
                prop_assert!(right || self.spoiled, "answered with: {}", outcome.status());
                if right {
                    self.outcomes.push(outcome);
                }
            }
        }
        Ok(())
    }

    fn kill(&mut self) {
        self.spoiled |= self.ring.fail_outstanding(Status::BackendFailed) > 0;
        self.ring.release_quarantine();
        self.attach();
    }

    fn restart(&mut self) {
        let taken = std::mem::take(&mut self.device.taken);
        self.sent.extend(taken.iter().map(Device::answer));
        self.device.work_on(&taken);
        self.attach();
    }

    fn attach(&mut self) {
        self.seed += 1;
        self.device = Device::attach::<Sound>(&self.ring, self.seed, Bug::None);
    }

    /// What holds between any two steps.
    fn check(&self) -> Result<(), TestCaseError> {
        for outcome in &self.outcomes {
            let sum = self.sums[&outcome.completion.ticket];
            prop_assert_eq!(&outcome.result()[..8], &sum.to_le_bytes(), "an answer changed, or was another one's");
        }
        prop_assert!(self.ring.backlog() <= CONFIG.capacity as u64);
        let stats = self.ring.stats();
        let all_settled = self.ring.is_settled(self.ring.submitted_through());
        prop_assert!(!all_settled || stats.outstanding == 0, "settled with a ticket outstanding");
        prop_assert!(all_settled || stats.outstanding + stats.quarantined > 0, "nobody to wait for");
        prop_assert!(self.spoiled || (self.device.faults, stats.quarantined) == (0, 0), "trouble out of nowhere");
        Ok(())
    }

    /// Lets everything run out, over one more dead device: then every ticket is answered and the ring is as new.
    fn settle(mut self) -> Result<(), TestCaseError> {
        self.kill();
        self.spoiled = true;
        while self.device.take(9) != Some(0) {}
        self.restart();
        self.ring.reap();
        for ticket in std::mem::take(&mut self.tickets) {
            prop_assert!(ticket.try_collect().is_ok(), "a ticket was never answered");
        }
        self.outcomes.clear();
        let stats = self.ring.stats();
        prop_assert_eq!(stats.submitted, stats.completed);
        prop_assert_eq!((stats.outstanding, stats.quarantined, stats.arena_leased), (0, 0, 0));
        prop_assert!(self.ring.is_settled(self.ring.submitted_through()) && !self.ring.has_untaken());
        let all: Vec<_> = (0..CONFIG.capacity).map(|_| self.ring.try_reserve(1, 1)).collect();
        prop_assert!(all.iter().all(Result::is_ok), "a credit was lost");
        Ok(())
    }
}

fn pick<T>(from: &mut Vec<T>, which: Index) -> Option<T> {
    (!from.is_empty()).then(|| from.swap_remove(which.index(from.len())))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn a_ring_survives_whatever_its_device_does(back in 0u64..40, steps in prop::collection::vec(step(), 1..300)) {
        let mut model = Model::new(0u64.wrapping_sub(back));
        for step in steps {
            model.apply(step)?;
        }
        model.settle()?;
    }
}
