//! "None of these values", said with tests that container runtimes have: they know no negated mask. Called by `builtin`.

use crate::rule::Test;

/// The bits of an argument that the kernel takes as `unsigned int`.
const BITS: u32 = 32;

/// Tests of which one holds exactly when the lower 32 bits are none of `values`.
///
/// Each excluded value is a path down a binary tree; what branches off all of these paths is let through, a branch
/// being a mask of the upper bits it shares. For n values these are about 32 + n tests.
#[must_use]
pub fn all_but(values: &[u32]) -> Vec<Test> {
    let mut tests = Vec::new();
    branch(values, 0, BITS, &mut tests);
    tests
}

/// Goes on below a node whose upper bits are those of `prefix` and whose lower `free` bits are open.
fn branch(values: &[u32], prefix: u64, free: u32, tests: &mut Vec<Test>) {
    let below: Vec<u32> = values
        .iter()
        .copied()
        .filter(|value| u64::from(*value) >> free == prefix >> free)
        .collect();
    if below.is_empty() {
        let mask = (u64::from(u32::MAX) >> free) << free;
        tests.push(Test::Masked {
            mask,
            value: prefix,
        });
        return;
    }
    let Some(next) = free.checked_sub(1) else {
        return;
    };
    branch(&below, prefix, next, tests);
    branch(&below, prefix | (1 << next), next, tests);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::rule::Condition;

    fn passes(tests: &[Test], argument: u64) -> usize {
        tests
            .iter()
            .filter(|test| {
                Condition {
                    arg: 0,
                    test: **test,
                }
                .holds(&[argument, 0, 0, 0, 0, 0])
            })
            .count()
    }

    #[test]
    fn nothing_excluded_lets_everything_through() {
        assert_eq!(all_but(&[]), [Test::Masked { mask: 0, value: 0 }]);
    }

    proptest! {
        #[test]
        fn exactly_the_excluded_values_are_refused_whatever_the_upper_half(
            values in proptest::collection::vec(any::<u32>(), 0..6),
            upper in any::<u32>(),
            other in any::<u32>(),
        ) {
            let tests = all_but(&values);
            prop_assert!(tests.len() <= 1 + 32 * values.len());
            let high = u64::from(upper) << 32;
            for value in &values {
                prop_assert_eq!(passes(&tests, high | u64::from(*value)), 0);
                for bit in 0..32 {
                    let near = value ^ (1 << bit);
                    let expected = usize::from(!values.contains(&near));
                    prop_assert_eq!(passes(&tests, high | u64::from(near)), expected);
                }
            }
            prop_assert_eq!(passes(&tests, high | u64::from(other)), usize::from(!values.contains(&other)));
        }
    }
}
