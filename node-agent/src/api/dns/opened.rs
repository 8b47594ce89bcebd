//! Which destinations a pod's names were answered with, so that they can be closed when a name is no longer allowed. Used by [`super::pod`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use pilotlight_common::network::NetworkRules;

use crate::network_protocol::{Close, Element, MAX_CLOSE, Opening};

/// Most names remembered of one destination. Those beyond do not keep it open.
const MAX_NAMES: usize = 8;

/// What is known of a pod's open destinations.
#[derive(Debug, Default)]
pub struct Opened {
    /// The destinations, with the names that they were an answer to. A connection can outlive its name's time by hours, so nothing is
    /// forgotten but by [`Opened::forget`].
    elements: BTreeMap<Element, BTreeSet<Arc<str>>>,
    /// Whether there were more than can be remembered.
    overflowed: bool,
}

impl Opened {
    /// Remembers what a name was answered with.
    pub fn remember(&mut self, name: &Arc<str>, openings: &[Opening]) {
        for opening in openings {
            if self.elements.len() >= MAX_CLOSE && !self.elements.contains_key(&opening.element) {
                self.overflowed = true;
                return;
            }
            let names = self.elements.entry(opening.element).or_default();
            if names.len() < MAX_NAMES {
                names.insert(Arc::clone(name));
            }
        }
    }

    /// What these rules do not allow any more. It is forgotten.
    pub fn close(&mut self, rules: &NetworkRules) -> Close {
        if self.overflowed {
            self.forget();
            return Close::All;
        }
        let mut closed = BTreeSet::new();
        self.elements.retain(|element, names| {
            names.retain(|name| rules.ports_of(name).contains(&element.port));
            if names.is_empty() {
                closed.insert(*element);
            }
            !names.is_empty()
        });
        Close::Only(closed)
    }

    /// Nothing is open any more.
    pub fn forget(&mut self) {
        *self = Self::default();
    }

    /// Another life of the agent opened what is not known.
    pub fn inherit(&mut self) {
        self.overflowed = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::dns::fixtures::{rules, tcp};

    fn opening(n: u32) -> Opening {
        Opening {
            element: Element {
                address: std::net::Ipv4Addr::from_bits(n).into(),
                port: tcp(443),
            },
            seconds: 60,
        }
    }

    #[test]
    fn what_no_name_allows_any_more_is_closed() {
        let mut opened = Opened::default();
        opened.remember(&"a.org".into(), &[opening(1), opening(2)]);
        opened.remember(&"b.org".into(), &[opening(2), opening(3)]);
        let close = opened.close(&rules(&[("b.org", 443)]));
        assert_eq!(close, Close::Only([opening(1).element].into()));
        let close = opened.close(&rules(&[("b.org", 80)]));
        let both = [opening(2).element, opening(3).element];
        assert_eq!(close, Close::Only(both.into()), "its port counts");
        assert_eq!(opened.close(&rules(&[])), Close::Only([].into()));
    }

    #[test]
    fn what_cannot_be_remembered_closes_everything() {
        let mut opened = Opened::default();
        let many: Vec<_> = (0..=u32::try_from(MAX_CLOSE).unwrap())
            .map(opening)
            .collect();
        opened.remember(&"a.org".into(), &many);
        assert_eq!(opened.close(&rules(&[("a.org", 443)])), Close::All);
        assert_eq!(opened.close(&rules(&[])), Close::Only([].into()));
        opened.inherit();
        assert_eq!(opened.close(&rules(&[])), Close::All);
    }
}
