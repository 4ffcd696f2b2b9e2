//! Numbers for readers. Downloads have all digits.

/// Returns a number with as many decimals as its interval makes certain, and at least two.
pub(crate) fn with_interval(value: f64, low: f64, high: f64) -> String {
    rounded(value, decimals((high - low) / 2.0))
}

/// Returns a number with three significant digits, and at least two decimals.
pub(crate) fn plain(value: f64) -> String {
    rounded(value, decimals(value.abs() / 10.0))
}

/// Returns a number with so many decimals; a minus sign is a typographic one.
pub(crate) fn rounded(value: f64, decimals: usize) -> String {
    let text = format!("{value:.decimals$}");
    // What rounds to zero has no sign.
    let digits = text.trim_start_matches('-');
    let is_negative =
        text.starts_with('-') && digits.chars().any(|digit| digit.is_ascii_digit() && digit != '0');
    if is_negative { format!("−{digits}") } else { digits.to_owned() }
}

/// Returns a small number with all its digits, as in 0.0001.
pub(crate) fn exact(value: f64) -> String {
    value.to_string()
}

/// Returns a share as a percentage.
pub(crate) fn percent(share: f64) -> String {
    let percent = share * 100.0;
    match percent {
        _ if percent > 0.0 && percent < 0.1 => "<0.1 %".to_owned(),
        _ if percent < 10.0 => format!("{percent:.1} %"),
        _ => format!("{percent:.0} %"),
    }
}

/// Returns a count with its thousands apart.
pub(crate) fn count(count: impl Into<u64>) -> String {
    let digits = count.into().to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Returns the decimals that show two digits of a half width, from 2 to 6.
pub(crate) fn decimals(half_width: f64) -> usize {
    if half_width > 0.0 && half_width.is_finite() {
        (1.0 - half_width.log10().floor()).clamp(2.0, 6.0) as usize
    } else {
        3
    }
}

/// Returns the decimals of a column of numbers with these half widths of their intervals.
pub(crate) fn typical_decimals(halves: impl Iterator<Item = f64>) -> usize {
    let mut halves: Vec<f64> = halves.collect();
    halves.sort_unstable_by(f64::total_cmp);
    decimals(halves.get(halves.len() / 2).copied().unwrap_or_default()).min(4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_follow_the_interval() {
        assert_eq!(with_interval(0.61234, 0.6, 0.62), "0.612");
        assert_eq!(with_interval(-12.3456, -20.0, -4.0), "−12.35");
        assert_eq!(with_interval(0.5, 0.5, 0.5), "0.500");
        assert_eq!(plain(0.004_321), "0.00432");
        assert_eq!(plain(123.456), "123.46");
        assert_eq!(rounded(-0.0004, 2), "0.00");
    }

    #[test]
    fn counts_and_shares_are_readable() {
        assert_eq!(count(1_234_567_u64), "1,234,567");
        assert_eq!(count(999_u64), "999");
        assert_eq!(percent(0.0312), "3.1 %");
        assert_eq!(percent(0.781), "78 %");
        assert_eq!(percent(0.0001), "<0.1 %");
    }
}
