//! Numbers and names as a person reads them: units, thousands apart, a dash for what was not measured.

/// What stands where there is no number.
pub(super) const NONE: &str = "–";

/// The value, where a logarithmic axis has a place for it. Bounds keep the axes drawable whatever a record holds.
pub(super) fn plottable(value: f64) -> Option<f64> {
    (1e-6..=1e24).contains(&value).then_some(value)
}

/// `1234567` as `1,234,567`.
pub(super) fn count(value: u64) -> String {
    let digits = value.to_string();
    let groups: Vec<&str> = digits.as_bytes().rchunks(3).rev().filter_map(|group| str::from_utf8(group).ok()).collect();
    groups.join(",")
}

/// `value` with three digits and the largest of the rising `units` that it has one of.
fn scaled(value: f64, units: &[(f64, &str)]) -> String {
    if !(0.0..=1e24).contains(&value) {
        return NONE.into();
    }
    // Rounding to three digits would make 1,000 of more than 999.5.
    let (scale, unit) = *units.iter().rfind(|(scale, _)| value >= 0.9995 * scale).unwrap_or(&units[0]);
    let value = value / scale;
    let digits = if value >= 99.95 { 0 } else { 1 + usize::from(value < 9.995) };
    // A narrow no-break space keeps a number and its unit on one line.
    format!("{value:.digits$}\u{202f}{unit}")
}

/// Nanoseconds with the unit that suits them: `850 ns`, `12.3 µs`, `1.25 ms`, `3.40 s`.
pub(super) fn time(ns: f64) -> String {
    scaled(ns, &[(1.0, "ns"), (1e3, "µs"), (1e6, "ms"), (1e9, "s")])
}

/// A rate or an amount with a decimal prefix, behind which a unit may follow: `61.2 G`.
pub(super) fn amount(value: f64) -> String {
    scaled(value, &[(1.0, ""), (1e3, "k"), (1e6, "M"), (1e9, "G"), (1e12, "T"), (1e15, "P")])
}

/// A label of an axis: as `told`, without the zeros that round values end with.
pub(super) fn tick(told: &str) -> String {
    told.replace(".00", "").replace(".0", "").trim_end().to_owned()
}

/// How many times as fast: `12×`, `3.4×`, `1.04×`.
pub(super) fn factor(value: f64) -> String {
    match value {
        v if v >= 1e6 => "over 10⁶×".into(),
        v if v >= 9.95 => format!("{}×", count(v.round() as u64)),
        v if v >= 1.095 => format!("{v:.1}×"),
        v => format!("{v:.2}×"),
    }
}

/// A share of one in percent.
pub(super) fn percent(share: f64) -> String {
    match share * 100.0 {
        v if !(0.0..1e6).contains(&v) => NONE.into(),
        v if v > 0.0 && v < 0.095 => format!("{v:.2}\u{202f}%"),
        v if v < 9.95 => format!("{v:.1}\u{202f}%"),
        v => format!("{}\u{202f}%", count(v.round() as u64)),
    }
}

/// A corpus: `5,562 × 384`.
pub(super) fn shape(rows: u64, dim: u64) -> String {
    format!("{}\u{202f}×\u{202f}{}", count(rows), count(dim))
}

/// `2026-11-21 10:56 UTC` of seconds since 1970; the seconds themselves where the year would have five digits.
pub(super) fn date(unix_s: u64) -> String {
    const YEAR_10000: u64 = 253_402_300_800;
    if unix_s >= YEAR_10000 {
        return format!("{} s after 1970", count(unix_s));
    }
    // Howard Hinnant's `civil_from_days`, for days after 1970: years begin in March, so that the leap day is the last.
    let days = unix_s / 86_400 + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02} {:02}:{:02} UTC", unix_s % 86_400 / 3600, unix_s / 60 % 60)
}

/// The text without what no XML may hold: names come from drivers.
pub(super) fn clean(text: &str) -> String {
    let forbidden = |c: char| c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}');
    text.replace(forbidden, "\u{fffd}")
}

/// Text for HTML and SVG.
pub(super) fn escape(text: &str) -> String {
    clean(text).replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(text: &str) -> String {
        text.replace('\u{202f}', " ")
    }

    #[test]
    fn numbers_have_the_digits_and_the_unit_that_suit_them() {
        let told = [0.0, 850.0, 999.4, 999.6, 12_340.0, 999_600.0, 1.25e6, 3.4e9].map(|ns| plain(&time(ns)));
        assert_eq!(told, ["0.00 ns", "850 ns", "999 ns", "1.00 µs", "12.3 µs", "1.00 ms", "1.25 ms", "3.40 s"]);
        assert_eq!([f64::NAN, f64::INFINITY, -1.0].map(time), [NONE, NONE, NONE]);
        assert_eq!([12.0, 6.12e10, 1.7e8].map(|v| plain(&amount(v))), ["12.0 ", "61.2 G", "170 M"]);
        assert_eq!([1e3, 2e5, 1e9].map(|ns| plain(&tick(&time(ns)))), ["1 µs", "200 µs", "1 s"]);
        assert_eq!([0, 999, 5562, u64::MAX].map(count), ["0", "999", "5,562", "18,446,744,073,709,551,615"]);
        assert_eq!([1.04, 1.26, 9.96, 1234.0].map(factor), ["1.04×", "1.3×", "10×", "1,234×"]);
        assert_eq!([0.0004, 0.034, 1.5].map(|s| plain(&percent(s))), ["0.04 %", "3.4 %", "150 %"]);
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        // Each from `date -u -d @…`.
        let told = [0, 951_782_400, 1_795_258_612, 4_107_542_399].map(date);
        assert_eq!(
            told,
            ["1970-01-01 00:00 UTC", "2000-02-29 00:00 UTC", "2026-11-21 10:56 UTC", "2100-02-28 23:59 UTC"]
        );
        assert!(date(u64::MAX).ends_with("after 1970"));
    }

    #[test]
    fn names_of_drivers_cannot_break_the_page() {
        assert_eq!(escape("A<b>&\"\u{0}\u{ffff}"), "A&lt;b&gt;&amp;&quot;\u{fffd}\u{fffd}");
    }
}
