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
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// `value` rounded to three significant digits, thousands apart.
pub(super) fn three_digits(value: f64) -> String {
    match value.abs() {
        v if !v.is_finite() || v > 1e18 => NONE.into(),
        v if v >= 99.95 => {
            let unit = 10f64.powi((v.log10().floor() as i32 - 2).max(0));
            count(((v / unit).round() * unit) as u64)
        }
        v if v >= 9.995 => format!("{v:.1}"),
        v if v >= 0.001 || v == 0.0 => format!("{v:.2}"),
        _ => "≈0".into(),
    }
}

/// Nanoseconds with the unit that suits them: `850 ns`, `12.3 µs`, `1.25 ms`, `3.40 s`.
pub(super) fn time(ns: f64) -> String {
    if !ns.is_finite() || ns < 0.0 {
        return NONE.into();
    }
    // The bounds are where rounding to three digits would give 1,000 of the smaller unit.
    let (scale, unit) = match ns {
        _ if ns < 999.5 => (1.0, "ns"),
        _ if ns < 999.5e3 => (1e3, "µs"),
        _ if ns < 999.5e6 => (1e6, "ms"),
        _ => (1e9, "s"),
    };
    unit_of(&three_digits(ns / scale), unit)
}

/// A rate or amount with a decimal prefix: `61.2 G` and the unit.
pub(super) fn prefixed(value: f64, unit: &str) -> String {
    if !value.is_finite() || value < 0.0 {
        return NONE.into();
    }
    let (scale, prefix) = match value {
        v if v < 999.5 => (1.0, ""),
        v if v < 999.5e3 => (1e3, "k"),
        v if v < 999.5e6 => (1e6, "M"),
        v if v < 999.5e9 => (1e9, "G"),
        v if v < 999.5e12 => (1e12, "T"),
        _ => (1e15, "P"),
    };
    unit_of(&three_digits(value / scale), &format!("{prefix}{unit}"))
}

fn unit_of(number: &str, unit: &str) -> String {
    match number {
        NONE => NONE.into(),
        // A narrow no-break space keeps a number and its unit on one line.
        _ => format!("{number}\u{202f}{unit}"),
    }
}

/// A rate of things that are counted: `61,200 queries/s`, `24.5 M queries/s`.
pub(super) fn rate(per_s: f64, things: &str) -> String {
    if per_s < 999.5e3 {
        return unit_of(&three_digits(per_s), &format!("{things}/s"));
    }
    prefixed(per_s, &format!("\u{202f}{things}/s"))
}

/// The same without a unit, for the columns of tables: `61,200`, `24.5 M`.
pub(super) fn bare(value: f64) -> String {
    rate(value, "").trim_end_matches("/s").trim_end().to_owned()
}

/// How many times as fast: `12×`, `3.4×`, `1.04×`.
pub(super) fn factor(value: f64) -> String {
    match value {
        v if !v.is_finite() || v < 0.0 => NONE.into(),
        v if v >= 1e6 => "over 10⁶×".into(),
        v if v >= 9.95 => format!("{}×", count(v.round() as u64)),
        v if v >= 1.095 => format!("{v:.1}×"),
        v => format!("{v:.2}×"),
    }
}

/// A share of one in percent.
pub(super) fn percent(share: f64) -> String {
    match share * 100.0 {
        v if !v.is_finite() || v < 0.0 => NONE.into(),
        v if v > 0.0 && v < 0.095 => format!("{v:.2}\u{202f}%"),
        v if v < 9.95 => format!("{v:.1}\u{202f}%"),
        v if v < 1e6 => format!("{}\u{202f}%", count(v.round() as u64)),
        _ => NONE.into(),
    }
}

/// A label of an axis: the shortest writing of a tick such as 1, 20 or 500,000, from a million on with a prefix.
pub(super) fn tick_count(value: f64) -> String {
    match value {
        v if v >= 1e6 => tick_rate(v),
        v if v >= 1.0 => count(v.round() as u64),
        v => format!("{v}"),
    }
}

/// A label of an axis of rates: `20`, `500k`, `10M`.
pub(super) fn tick_rate(per_s: f64) -> String {
    prefixed(per_s, "").replace(".00", "").replace(".0", "").replace('\u{202f}', "")
}

/// A label of an axis of times in nanoseconds: `1 µs`, `200 µs`.
pub(super) fn tick_time(ns: f64) -> String {
    time(ns).replace(".00", "").replace(".0", "")
}

/// Rows and dimensions, `5,562 × 384`.
pub(super) fn shape(rows: u64, dim: u64) -> String {
    format!("{}\u{202f}×\u{202f}{}", count(rows), count(dim))
}

/// `2026-11-21 10:56 UTC` of seconds since 1970; the seconds themselves where the year would have five digits.
pub(super) fn date(unix_s: u64) -> String {
    const YEAR_10000: u64 = 253_402_300_800;
    if unix_s >= YEAR_10000 {
        return format!("{} s after 1970", count(unix_s));
    }
    let (days, second) = (unix_s / 86_400, unix_s % 86_400);
    // Howard Hinnant's `civil_from_days`, for days after 1970: years begin in March, so that the leap day is the last.
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02} {:02}:{:02} UTC", second / 3600, second / 60 % 60)
}

/// A duration in seconds, `48 s` or `3 min 20 s`.
pub(super) fn duration(seconds: f64) -> String {
    match seconds {
        s if !s.is_finite() || !(0.0..1e12).contains(&s) => NONE.into(),
        s if s < 10.0 => format!("{s:.1} s"),
        s if s < 120.0 => format!("{s:.0} s"),
        s => format!("{} min {:.0} s", count((s / 60.0) as u64), (s % 60.0).floor()),
    }
}

/// Text for HTML and SVG. Names come from drivers: what no XML may hold, such as a control character, becomes U+FFFD.
pub(super) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in clean(text).chars() {
        match c {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

/// The text without what no XML may hold.
pub(super) fn clean(text: &str) -> String {
    let forbidden = |c: char| c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}');
    text.chars().map(|c| if forbidden(c) { '\u{fffd}' } else { c }).collect()
}

/// At most `most` characters, the last of them an ellipsis where something was cut.
pub(super) fn short(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return clean(text);
    }
    let mut cut: String = text.chars().take(most.saturating_sub(1)).collect();
    cut.push('…');
    clean(&cut)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(text: &str) -> String {
        text.replace('\u{202f}', " ")
    }

    #[test]
    fn times_get_the_unit_that_suits_them() {
        let told = [0.0, 850.0, 999.4, 999.6, 12_340.0, 999_600.0, 1.25e6, 3.4e9, 5e12].map(|ns| plain(&time(ns)));
        assert_eq!(
            told,
            ["0.00 ns", "850 ns", "999 ns", "1.00 µs", "12.3 µs", "1.00 ms", "1.25 ms", "3.40 s", "5,000 s"]
        );
        assert_eq!(plain(&rate(171_977_974.0, "queries")), "172 M queries/s");
        assert_eq!([f64::NAN, f64::INFINITY, -1.0].map(time), [NONE, NONE, NONE]);
    }

    #[test]
    fn thousands_stand_apart() {
        let told = [0, 7, 999, 1000, 5562, 1_000_000, u64::MAX].map(count);
        assert_eq!(told, ["0", "7", "999", "1,000", "5,562", "1,000,000", "18,446,744,073,709,551,615"]);
    }

    #[test]
    fn factors_and_shares_have_the_digits_that_matter() {
        assert_eq!(
            [1.0, 1.04, 1.26, 3.44, 9.96, 12.4, 1234.0].map(factor),
            ["1.00×", "1.04×", "1.3×", "3.4×", "10×", "12×", "1,234×"]
        );
        assert_eq!(
            [0.0, 0.0004, 0.034, 0.42, 1.5].map(|s| plain(&percent(s))),
            ["0.0 %", "0.04 %", "3.4 %", "42 %", "150 %"]
        );
        assert_eq!(
            [1e9, 6.12e10, 3.4e12, 12.0].map(|v| plain(&prefixed(v, "B/s"))),
            ["1.00 GB/s", "61.2 GB/s", "3.40 TB/s", "12.0 B/s"]
        );
    }

    #[test]
    fn ticks_are_short() {
        assert_eq!([1.0, 20.0, 5e5, 1e6, 2e7].map(tick_count), ["1", "20", "500,000", "1M", "20M"]);
        assert_eq!([20.0, 1e4, 5e5, 1e7].map(tick_rate), ["20", "10k", "500k", "10M"]);
        assert_eq!([1e3, 2e5, 1e6, 1e9].map(|v| plain(&tick_time(v))), ["1 µs", "200 µs", "1 ms", "1 s"]);
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        // Each from `date -u -d @…`.
        let told = [0, 951_782_400, 1_795_258_612, 4_107_542_399, 253_402_300_799].map(date);
        assert_eq!(
            told,
            [
                "1970-01-01 00:00 UTC",
                "2000-02-29 00:00 UTC",
                "2026-11-21 10:56 UTC",
                "2100-02-28 23:59 UTC",
                "9999-12-31 23:59 UTC"
            ]
        );
        assert!(date(u64::MAX).ends_with("after 1970"));
    }

    #[test]
    fn names_of_drivers_cannot_break_the_page() {
        assert_eq!(escape("A<b>&\"c'\u{0}\u{ffff}"), "A&lt;b&gt;&amp;&quot;c&#39;\u{fffd}\u{fffd}");
        assert_eq!(short("llvmpipe (LLVM 15)", 9), "llvmpipe…");
    }
}
