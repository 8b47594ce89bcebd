//! Kubernetes quantities, read exactly: CPU as millicores, memory and storage as bytes.
//!
//! [`crate::resolve`] reads every quantity of the five kinds through here. Fractions are rounded up, as
//! Kubernetes does, so that a limit is never below what was asked for.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Why a quantity was refused.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum QuantityError {
    /// Not a number with a known suffix.
    #[error("\"{0}\" is not a Kubernetes quantity; write for example 500m, 1.5 or 512Mi")]
    Malformed(String),
    /// Larger than any machine, or beyond what fits.
    #[error("\"{0}\" is too large")]
    TooLarge(String),
    /// Zero where something is needed.
    #[error("\"{0}\" is zero")]
    Zero(String),
}

/// CPU in thousandths of a core.
#[derive(
    Clone, Copy, Debug, Default, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize,
)]
pub struct MilliCpu(pub u64);

/// Memory or storage in bytes.
#[derive(
    Clone, Copy, Debug, Default, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize,
)]
pub struct Bytes(pub u64);

/// One million cores: far beyond any node, and far from overflowing sums.
const MAX_MILLICPU: u128 = 1_000_000_000;
/// Eight pebibytes, for the same reason.
const MAX_BYTES: u128 = 8 << 50;

impl MilliCpu {
    /// Reads a CPU quantity such as `500m`, `1` or `1.5`; zero is refused.
    pub fn parse(text: &str) -> Result<Self, QuantityError> {
        scaled(text, 1000, MAX_MILLICPU).map(Self)
    }

    /// CPUs that hold it: whole ones, rounded up.
    pub fn whole(self) -> u64 {
        self.0.div_ceil(1000)
    }
}

impl Bytes {
    /// Reads a memory or storage quantity such as `512Mi`, `1G` or `1048576`; zero is refused.
    pub fn parse(text: &str) -> Result<Self, QuantityError> {
        scaled(text, 1, MAX_BYTES).map(Self)
    }
}

impl fmt::Display for MilliCpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}m", self.0)
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (unit, suffix) in [(1 << 30, "Gi"), (1 << 20, "Mi"), (1 << 10, "Ki")] {
            if self.0 >= unit && self.0.is_multiple_of(unit) {
                return write!(f, "{}{suffix}", self.0 / unit);
            }
        }
        write!(f, "{}", self.0)
    }
}

/// `text` times `unit`, rounded up, in integers: floating point would make 0.1 of something a little more.
fn scaled(text: &str, unit: u128, max: u128) -> Result<u64, QuantityError> {
    let malformed = || QuantityError::Malformed(shortened(text));
    let number_end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, suffix) = text.split_at(number_end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
        return Err(malformed());
    }
    let (numerator, denominator) = suffix_ratio(suffix).ok_or_else(malformed)?;
    let fraction = fraction.trim_end_matches('0');
    let whole = whole.trim_start_matches('0');
    if whole.len() > 19 {
        return Err(QuantityError::TooLarge(shortened(text)));
    }
    // Nine digits is the resolution that Kubernetes keeps too; what is beyond rounds up.
    let (kept, beyond) = fraction.split_at(fraction.len().min(9));
    let digits: u128 = format!("{whole}{kept:0<9}")
        .parse()
        .map_err(|_| malformed())?;
    let digits = digits + u128::from(!beyond.is_empty());
    let value = digits
        .checked_mul(numerator)
        .and_then(|v| v.checked_mul(unit))
        .ok_or_else(|| QuantityError::TooLarge(shortened(text)))?
        .div_ceil(denominator * 1_000_000_000);
    match value {
        0 => Err(QuantityError::Zero(shortened(text))),
        v if v > max => Err(QuantityError::TooLarge(shortened(text))),
        v => u64::try_from(v).map_err(|_| QuantityError::TooLarge(shortened(text))),
    }
}

/// The factor of a suffix, as a ratio.
fn suffix_ratio(suffix: &str) -> Option<(u128, u128)> {
    Some(match suffix {
        "n" => (1, 1_000_000_000),
        "u" => (1, 1_000_000),
        "m" => (1, 1000),
        "" => (1, 1),
        "k" => (1000, 1),
        "M" => (1_000_000, 1),
        "G" => (1_000_000_000, 1),
        "T" => (1_000_000_000_000, 1),
        "P" => (1_000_000_000_000_000, 1),
        "Ki" => (1 << 10, 1),
        "Mi" => (1 << 20, 1),
        "Gi" => (1 << 30, 1),
        "Ti" => (1 << 40, 1),
        "Pi" => (1 << 50, 1),
        _ => return None,
    })
}

/// Hostile input goes into messages, so it is cut.
fn shortened(text: &str) -> String {
    text.chars().take(40).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn common_spellings_are_read_exactly() {
        for (text, want) in [
            ("500m", 500),
            ("1.0", 1000),
            ("1", 1000),
            ("0.1", 100),
            ("1.5", 1500),
            ("100u", 1),
            (".5", 500),
            ("1.", 1000),
        ] {
            assert_eq!(MilliCpu::parse(text), Ok(MilliCpu(want)), "{text}");
        }
        for (text, want) in [
            ("512Mi", 512 << 20),
            ("1Gi", 1 << 30),
            ("1k", 1000),
            ("1048576", 1 << 20),
            ("0.5Gi", 1 << 29),
            ("1500m", 2),
        ] {
            assert_eq!(Bytes::parse(text), Ok(Bytes(want)), "{text}");
        }
    }

    #[test]
    fn what_is_no_quantity_is_refused_with_its_text() {
        for text in [
            "", ".", "m", "1.2.3", "-1", "+1", "1 Gi", "1gi", "Mi", "1e3", "٣",
        ] {
            assert!(
                matches!(MilliCpu::parse(text), Err(QuantityError::Malformed(_))),
                "{text}"
            );
            assert!(
                matches!(Bytes::parse(text), Err(QuantityError::Malformed(_))),
                "{text}"
            );
        }
        assert_eq!(MilliCpu::parse("0m"), Err(QuantityError::Zero("0m".into())));
        assert!(matches!(
            Bytes::parse("99999999Gi"),
            Err(QuantityError::TooLarge(_))
        ));
        assert!(matches!(
            Bytes::parse(&"9".repeat(400)),
            Err(QuantityError::TooLarge(_))
        ));
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused_without_a_panic(text in "\\PC{0,60}") {
            let _ = MilliCpu::parse(&text);
            let _ = Bytes::parse(&text);
        }

        #[test]
        fn what_is_printed_reads_as_itself(cpu in 1u64..1_000_000_000, bytes in 1u64..(8 << 50)) {
            prop_assert_eq!(MilliCpu::parse(&MilliCpu(cpu).to_string()), Ok(MilliCpu(cpu)));
            prop_assert_eq!(Bytes::parse(&Bytes(bytes).to_string()), Ok(Bytes(bytes)));
        }

        #[test]
        fn a_larger_number_is_never_a_smaller_quantity(a in 0u32..10_000_000, b in 0u32..10_000_000, fraction in 0u32..1000) {
            let (low, high) = (a.min(b), a.max(b));
            let read = |whole: u32| MilliCpu::parse(&format!("{whole}.{fraction:03}")).map_or(0, |m| m.0);
            // Beyond the largest the answer is a refusal, not a small number.
            if high < 1_000_000 { prop_assert!(read(low) <= read(high)); }
        }
    }
}
