//! How noisy the machine was, and when that is too much. What is merely doubtful is told and kept.

use serde::{Deserialize, Serialize};

use crate::measure::disturbance::Disturbance;

/// Slower than at best by more than this share: times from then on are another machine's.
const SLOWER: f64 = 0.5;
/// Share of all processors' time that others may use.
const OTHERS: f64 = 0.4;
/// Share of all processors' time that the host may give to other machines.
const STOLEN: f64 = 0.2;
/// Share of the time in which a quota may withhold processors.
const WITHHELD: f64 = 0.3;

/// How much was going on beside the measuring; all 0 where nothing was, or where nobody tells.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Noise {
    /// By what share fixed work was slower at worst than at best.
    pub slower: f64,
    /// Share of all processors' time that other processes used.
    pub others: f64,
    /// Share of all processors' time that the host gave to other machines.
    pub stolen: f64,
    /// Share of the time in which a quota withheld processors.
    pub withheld: f64,
}

impl From<Disturbance> for Noise {
    fn from(Disturbance { slower, others, stolen, withheld }: Disturbance) -> Self {
        Self { slower, others, stolen, withheld }
    }
}

impl Noise {
    /// Why figures taken meanwhile are of no use; none where they are, with doubts or without.
    #[must_use]
    pub fn is_too_much(&self) -> Option<String> {
        let found = [
            (self.slower, SLOWER, "fixed work took up to {} longer than at best"),
            (self.others, OTHERS, "other processes used {} of all processors"),
            (self.stolen, STOLEN, "the host gave {} of this machine's processors to others"),
            (self.withheld, WITHHELD, "the container's quota withheld processors for {} of the time"),
        ];
        let (share, _, sentence) = found.into_iter().find(|(share, most, _)| share > most)?;
        let sentence = sentence.replace("{}", &format!("{:.0} %", 100.0 * share));
        Some(format!("the machine was too noisy: {sentence}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mild_noise_is_kept_and_each_kind_can_be_too_much() {
        let most = Noise { slower: SLOWER, others: OTHERS, stolen: STOLEN, withheld: WITHHELD };
        assert_eq!((Noise::default().is_too_much(), most.is_too_much()), (None, None));
        let quiet = Noise::default();
        let cases = [
            (Noise { slower: 0.51, ..quiet }, "51 % longer"),
            (Noise { others: 0.7, ..quiet }, "used 70 % of all processors"),
            (Noise { stolen: 0.21, ..quiet }, "gave 21 %"),
            (Noise { withheld: 0.9, ..quiet }, "90 % of the time"),
        ];
        for (noise, expected) in cases {
            let told = noise.is_too_much().unwrap_or_default();
            assert!(told.starts_with("the machine was too noisy: ") && told.contains(expected), "{told}");
        }
    }

    #[test]
    fn what_a_watch_saw_is_taken_over() {
        let seen = Disturbance { slower: 0.1, others: 0.2, stolen: 0.3, withheld: 0.4 };
        assert_eq!(Noise::from(seen), Noise { slower: 0.1, others: 0.2, stolen: 0.3, withheld: 0.4 });
    }
}
