//! The last names that a pod was refused, so that its user sees what to allow. Used by [`super::pod`].

use std::collections::VecDeque;

/// Most names kept of one pod.
pub const MAX_REFUSED: usize = 16;
/// Longest name that is told; escaped ones can be longer than 253 bytes.
const MAX_LENGTH: usize = 253;

/// A name that was refused.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RefusedName {
    /// The name, in lower case, with everything unusual escaped.
    pub name: String,
    /// How often it was asked for.
    pub times: u64,
}

/// The last names that were refused, the latest at the end.
#[derive(Debug, Default)]
pub struct Refused(VecDeque<RefusedName>);

impl Refused {
    /// Takes one in.
    pub fn add(&mut self, mut name: String) {
        // Escaped it is ASCII, so every byte is a character.
        name.truncate(MAX_LENGTH);
        let known = self.0.iter().position(|refused| refused.name == name);
        let times = known
            .and_then(|at| self.0.remove(at))
            .map_or(0, |refused| refused.times);
        if self.0.len() >= MAX_REFUSED {
            self.0.pop_front();
        }
        self.0.push_back(RefusedName {
            name,
            times: times.saturating_add(1),
        });
    }

    /// Gives them away.
    pub fn take(&mut self) -> Vec<RefusedName> {
        std::mem::take(&mut self.0).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_names_are_kept_each_once() {
        let mut refused = Refused::default();
        for n in 0..100 {
            refused.add(format!("{n}.org"));
        }
        refused.add("90.org".to_owned());
        refused.add("x".repeat(1000));
        let taken = refused.take();
        assert_eq!(taken.len(), MAX_REFUSED);
        assert_eq!(taken[MAX_REFUSED - 1].name.len(), MAX_LENGTH);
        assert_eq!((taken[14].name.as_str(), taken[14].times), ("90.org", 2));
        assert!(refused.take().is_empty());
    }
}
