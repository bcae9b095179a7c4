//! Numbers as people read them: true minus signs, thousands set apart, times and sizes in fitting units.

/// A number with a fixed count of decimals: `-1234.5` with one decimal is `−1,234.5`. Not a number is `–`.
pub fn fixed(value: f64, decimals: usize) -> String {
    if value.is_nan() {
        return "–".into();
    }
    if value.is_infinite() {
        return if value > 0.0 { "∞" } else { "−∞" }.into();
    }
    let plain = format!("{:.decimals$}", value.abs());
    let (whole, fraction) = plain.split_once('.').unwrap_or((&plain, ""));
    let is_zero = plain.bytes().all(|b| b == b'0' || b == b'.');
    let mut text = String::from(if value < 0.0 && !is_zero { "−" } else { "" });
    for (place, digit) in whole.char_indices() {
        if place > 0 && (whole.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    if !fraction.is_empty() {
        text.push('.');
        text.push_str(fraction);
    }
    text
}

/// A number of unknown size with about four significant digits: `0.8500`, `89.42`, `1,234`, `3.1×10⁻⁵`.
pub fn significant(value: f64) -> String {
    let size = value.abs();
    let is_whole = value.fract() == 0.0 && size < 1e9;
    if !value.is_finite() || is_whole {
        fixed(value, 0)
    } else if !(1e-3..1e9).contains(&size) {
        scientific(value, 2)
    } else {
        fixed(value, (3 - size.log10().floor() as i32).max(0) as usize)
    }
}

/// `mantissa×10ⁿ` with at most so many decimals in the mantissa; a mantissa of one is left out: `10⁻³`.
pub fn scientific(value: f64, decimals: usize) -> String {
    if !value.is_finite() || value == 0.0 {
        return fixed(value, 0);
    }
    let text = format!("{value:.decimals$e}");
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let mantissa = mantissa.replace('-', "−");
    let power = format!("10{}", superscript(exponent));
    let trimmed =
        if mantissa.contains('.') { mantissa.trim_end_matches('0').trim_end_matches('.') } else { mantissa.as_str() };
    match trimmed {
        "1" => power,
        "−1" => format!("−{power}"),
        mantissa => format!("{mantissa}×{power}"),
    }
}

fn superscript(exponent: &str) -> String {
    const DIGITS: [char; 10] = ['⁰', '¹', '²', '³', '⁴', '⁵', '⁶', '⁷', '⁸', '⁹'];
    exponent
        .chars()
        .map(|c| match c.to_digit(10) {
            Some(digit) => DIGITS[digit as usize],
            None => '⁻',
        })
        .collect()
}

/// A time: `0.28 s`, `41 s`, `12 min 5 s`, `2 h 3 min`.
pub fn duration(seconds: f64) -> String {
    if !seconds.is_finite() || seconds < 0.0 {
        return "–".into();
    }
    if seconds < 10.0 {
        return format!("{seconds:.2} s");
    }
    let whole = seconds.round() as u64;
    match (whole / 3600, whole / 60 % 60, whole % 60) {
        (0, 0, s) => format!("{s} s"),
        (0, m, s) => format!("{m} min {s} s"),
        (h, m, _) => format!("{h} h {m} min"),
    }
}

/// A size of memory: `512 MiB`, `3.4 GiB`.
pub fn bytes(count: u64) -> String {
    const STEP: f64 = 1024.0;
    let (mut size, mut unit) = (count as f64, "B");
    for larger in ["KiB", "MiB", "GiB", "TiB"] {
        if size < STEP {
            break;
        }
        (size, unit) = (size / STEP, larger);
    }
    let decimals = usize::from(unit != "B" && size < 10.0);
    format!("{size:.decimals$} {unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fixed_sets_thousands_apart_and_keeps_zero_unsigned() {
        assert_eq!(fixed(-1234.56, 1), "−1,234.6");
        assert_eq!(fixed(999.96, 1), "1,000.0");
        assert_eq!(fixed(-0.04, 1), "0.0");
        assert_eq!(fixed(123456.0, 0), "123,456");
        assert_eq!(fixed(f64::NAN, 2), "–");
        assert_eq!(fixed(f64::NEG_INFINITY, 2), "−∞");
    }

    #[test]
    fn significant_fits_the_size_of_the_number() {
        assert_eq!(significant(0.85), "0.8500");
        assert_eq!(significant(89.421), "89.42");
        assert_eq!(significant(3.0), "3");
        assert_eq!(significant(3.14e-5), "3.14×10⁻⁵");
        assert_eq!(scientific(1e-3, 0), "10⁻³");
        assert_eq!(scientific(-2e12, 0), "−2×10¹²");
    }

    #[test]
    fn times_and_sizes_take_fitting_units() {
        assert_eq!(duration(0.284), "0.28 s");
        assert_eq!(duration(725.4), "12 min 5 s");
        assert_eq!(duration(7400.0), "2 h 3 min");
        assert_eq!(bytes(900), "900 B");
        assert_eq!(bytes(3 * (1 << 30) + (1 << 28)), "3.2 GiB");
        assert_eq!(bytes(512 << 20), "512 MiB");
    }
}
