//! Whether the backends were measured, and what is to be said of it.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use megaring_engine::Engine;
use megaring_engine::calibration::{Calibration, Fingerprint, Found, load};

use super::Finding;
use crate::config::Settings;
use crate::console::counted;

const HELP: &str = "`megaring calibrate` measures the backends; until then what they cost is assumed";

pub(super) fn finding(engine: &Arc<Engine>, settings: &Settings) -> Finding {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    finding_of(&load(&settings.calibration_file(), &Fingerprint::of(engine)), now)
}

fn finding_of(found: &Found, now_unix_s: u64) -> Finding {
    match (found, found.want()) {
        (Found::Good(calibration), _) => Finding::ok("calibration", text(calibration, now_unix_s)),
        (_, want) => Finding::note("calibration", want.unwrap_or_default(), HELP),
    }
}

fn text(calibration: &Calibration, now_unix_s: u64) -> String {
    let Calibration { quick, made_unix_s, backends, failed, doubts, .. } = calibration;
    let kind = if *quick { "quick" } else { "full" };
    let names: Vec<&str> = backends.iter().map(|costs| costs.backend.as_str()).collect();
    let failed = failed.iter().map(|failed| format!("; {} failed: {}", failed.backend, failed.reason));
    let doubts = doubts.iter().map(|doubt| format!("; to be doubted: {doubt}"));
    let rest: String = failed.chain(doubts).collect();
    format!("{kind}, of {}, made {}{rest}", names.join(" and "), age(now_unix_s.saturating_sub(*made_unix_s)))
}

fn age(seconds: u64) -> String {
    let (number, one, many) = match seconds {
        0..120 => return "just now".into(),
        120..7_200 => (seconds / 60, "minute", "minutes"),
        7_200..172_800 => (seconds / 3_600, "hour", "hours"),
        _ => (seconds / 86_400, "day", "days"),
    };
    format!("{} ago", counted(number, one, many))
}

#[cfg(test)]
mod tests {
    use megaring_core::BackendKind;

    use super::*;
    use crate::doctor::State;
    use megaring_engine::calibration::{Costs, Failed, Noise, SCHEMA};
    use megaring_engine::cost::CostModel;

    #[test]
    fn a_calibration_is_told_with_its_age_and_its_doubts() {
        let (processor, build, setup) = ("p".into(), "b".into(), "s".into());
        let fingerprint = Fingerprint { processor, threads: 1, build, setup, backends: Vec::new() };
        let costs = |kind: BackendKind| Costs {
            backend: kind.name().into(),
            model: CostModel::assumed(kind),
            samples: Vec::new(),
            uploads: Vec::new(),
            typical_errors: Vec::new(),
        };
        let calibration = Calibration {
            schema: SCHEMA,
            fingerprint,
            made_unix_s: 1_000,
            took_s: 1.0,
            quick: false,
            backends: vec![costs(BackendKind::Cpu), costs(BackendKind::Wgpu)],
            failed: vec![Failed { backend: "cuda".into(), reason: "it fell".into() }],
            noise: Noise::default(),
            doubts: vec!["it was loud".into()],
        };
        let Finding { state, found, help, .. } = finding_of(&Found::Good(Box::new(calibration)), 1_000 + 3 * 86_400);
        assert_eq!((state, help), (State::Ok, None));
        assert_eq!(found, "full, of cpu and wgpu, made 3 days ago; cuda failed: it fell; to be doubted: it was loud");
        for found in [Found::Nothing, Found::Other("x".into()), Found::Broken("y".into())] {
            let finding = finding_of(&found, 0);
            assert_eq!((finding.state, Some(finding.found)), (State::Note, found.want()));
            assert!(finding.help.is_some_and(|help| help.contains("megaring calibrate")));
        }
    }

    #[test]
    fn ages_are_round() {
        let ages = [(0, "just now"), (119, "just now"), (120, "2 minutes ago"), (7_200, "2 hours ago")];
        for (seconds, text) in ages.into_iter().chain([(86_400, "24 hours ago"), (172_800, "2 days ago")]) {
            assert_eq!(age(seconds), text);
        }
    }
}
