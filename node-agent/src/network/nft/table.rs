//! One pod's table: makes it, changes it, and compares it with what it must be. Made by [`super::pod_table`] and
//! [`super::node_table`].
//!
//! The table itself says in the names of chains without rules what it is, so that the next life of this process finds what stands:
//! `rules_<digest>` which network rules it holds, `ranges_<hash>` what its sets of ranges hold, `made_<fingerprint>` what it was when
//! it was made. What names were answered with comes and goes, and nobody else writes it: it is not compared.

use std::collections::BTreeMap;
use std::io;

use ipnet::IpNet;
use pilotlight_common::network::RulesDigest;
use sha2::{Digest, Sha256};

use super::batch::{Batch, Key};
use super::drift;
use super::elements::{self, ALLOWED, EGRESS, INGRESS, LIVE, name};
use super::expression::Family;
use super::rules::{self, DROPPED_IN, Place, REFUSED_OUT};
use super::socket::NetfilterSocket;
use crate::network::table::{Arming, PodTable, TableError, TableState};
use crate::network_protocol::{Close, Configure, Element, Opening};
use crate::protocol::PodUid;

/// Counts up whenever tables that older versions made must not stay.
const VERSION: u32 = 1;
/// Prefix of the chain that says which rules the table holds.
const RULES: &str = "rules_";
/// Prefix of the chain that says what its sets of ranges hold.
const RANGES: &str = "ranges_";
/// Prefix of the chain that says what the table was when it was made.
const MADE: &str = "made_";

/// One pod's table.
#[derive(Debug)]
pub struct Table {
    socket: NetfilterSocket,
    name: String,
    pod: PodUid,
    place: Place,
    armed: Option<Armed>,
}

/// What is known of a table that stands.
#[derive(Debug)]
struct Armed {
    arming: Arming,
    digest: RulesDigest,
    /// Of all of it, the proxy's ports too.
    fingerprint: String,
    /// What its sets of ranges hold, sorted.
    ranges: BTreeMap<String, Vec<Key>>,
    /// When it was last seen to be what it must be.
    generation: Option<u32>,
}

impl Table {
    pub(super) fn new(socket: NetfilterSocket, name: String, pod: &PodUid, place: Place) -> Self {
        Self {
            socket,
            name,
            pod: pod.clone(),
            place,
            armed: None,
        }
    }

    fn chain_names(&self, arming: &Arming) -> Vec<&'static str> {
        rules::chains(&self.place)
            .into_iter()
            .chain(rules::proxy_chains(&self.place, arming.proxy))
            .map(|chain| chain.name)
            .collect()
    }

    fn proxy_chain_names(&self, arming: &Arming) -> Vec<&'static str> {
        rules::proxy_chains(&self.place, arming.proxy)
            .into_iter()
            .map(|chain| chain.name)
            .collect()
    }

    fn fingerprint(&mut self, arming: &Arming, except: &[&str]) -> io::Result<String> {
        let chains = self.chain_names(arming);
        drift::fingerprint(&mut self.socket, &self.name, &chains, except)
    }

    /// What the name of the chain says that is made with the table: the table as it is, and what it was made for.
    fn made(&mut self, arming: &Arming) -> io::Result<String> {
        let proxy = self.proxy_chain_names(arming);
        let fingerprint = self.fingerprint(arming, &proxy)?;
        let Arming {
            proxy: _,
            node_addresses,
            ingress_ranges,
        } = arming;
        let made_for = format!(
            "{VERSION} {} {:?} {node_addresses:?} {ingress_ranges:?} {fingerprint}",
            self.pod, self.place
        );
        let hash = Sha256::digest(made_for);
        Ok(format!("{MADE}{}", hex::encode(&hash[..8])))
    }

    /// What the table says, where it is exactly what it would be if it were made now, but for the proxy's ports.
    fn standing(&mut self, arming: &Arming) -> io::Result<Option<RulesDigest>> {
        let names = drift::chains(&mut self.socket, &self.name)?;
        let said = |prefix: &str| {
            let mut found = names.iter().filter_map(|name| name.strip_prefix(prefix));
            // Two of one kind mean nothing.
            found.next().filter(|_| found.next().is_none())
        };
        let (Some(digest), Some(ranges), Some(made)) = (
            said(RULES).and_then(RulesDigest::parse),
            said(RANGES),
            said(MADE),
        ) else {
            return Ok(None);
        };
        let said = (format!("{RANGES}{ranges}"), format!("{MADE}{made}"));
        let found = self.made(arming).and_then(|made| {
            let ranges = drift::static_elements(&mut self.socket, &self.name)?;
            Ok((ranges_chain(&ranges), made))
        });
        match found {
            Ok(found) => Ok((found == said).then_some(digest)),
            // A chain of it is not there.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Makes the table anew in one step: whatever was there holds until then.
    fn make(&mut self, arming: &Arming) -> Result<(), TableError> {
        let mut batch = Batch::new(&self.name);
        batch.remove_table();
        batch.make_table();
        for counter in [REFUSED_OUT, DROPPED_IN] {
            batch.make_counter(counter);
        }
        for (number, set) in (1..).zip(elements::all()) {
            batch.make_set(&set, number);
        }
        let always = always(arming);
        for (set, keys) in &always {
            add_ranges(&mut batch, set, keys);
        }
        batch.make_chain(&ranges_chain(&always), None);
        let chains = rules::chains(&self.place);
        let proxy = rules::proxy_chains(&self.place, arming.proxy);
        for chain in chains.iter().chain(&proxy) {
            batch.make_chain(chain.name, Some(&chain.hook));
            batch.add_rules(chain.name, &chain.rules);
        }
        batch.make_chain(&rules_chain(RulesDigest::FRESH), None);
        self.socket.commit(&batch).map_err(|source| {
            // Where a part of nf_tables is missing, the kernel says that it does not find it.
            let missing = matches!(
                source.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::Unsupported
            );
            if missing {
                TableError::Unsupported(format!("the kernel has not all of nf_tables: {source}"))
            } else {
                failed("make the table")(source)
            }
        })?;
        let made = self.made(arming).map_err(failed("read the table back"))?;
        let mut batch = Batch::new(&self.name);
        batch.make_chain(&made, None);
        self.socket
            .commit(&batch)
            .map_err(failed("sign the table"))?;
        self.remember(arming, RulesDigest::FRESH)
    }

    /// Keeps what the table is now as what it must be.
    fn remember(&mut self, arming: &Arming, digest: RulesDigest) -> Result<(), TableError> {
        let read = failed("read the table back");
        let fingerprint = self.fingerprint(arming, &[]).map_err(read)?;
        let ranges = drift::static_elements(&mut self.socket, &self.name).map_err(read)?;
        self.armed = Some(Armed {
            arming: arming.clone(),
            digest,
            fingerprint,
            ranges,
            generation: None,
        });
        Ok(())
    }

    fn is_intact(&mut self) -> io::Result<bool> {
        // Before the table is read: a change meanwhile is seen the next time.
        let generation = drift::generation(&mut self.socket)?;
        let Some(armed) = self.armed.as_ref() else {
            return Ok(false);
        };
        if armed.generation == Some(generation) {
            return Ok(true);
        }
        let (arming, digest) = (armed.arming.clone(), armed.digest);
        let found = self.fingerprint(&arming, &[]).and_then(|fingerprint| {
            let ranges = drift::static_elements(&mut self.socket, &self.name)?;
            let says = drift::has_chain(&mut self.socket, &self.name, &rules_chain(digest))?;
            Ok((fingerprint, ranges, says))
        });
        let (fingerprint, ranges, says) = match found {
            Ok(found) => found,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error),
        };
        let Some(armed) = self.armed.as_mut() else {
            return Ok(false);
        };
        let intact = says && fingerprint == armed.fingerprint && ranges == armed.ranges;
        armed.generation = intact.then_some(generation);
        Ok(intact)
    }

    fn change(&mut self, configure: &Configure, close_all: bool) -> Result<(), TableError> {
        let Some(armed) = self.armed.as_ref() else {
            return Err(stale("it is not armed"));
        };
        let mut batch = Batch::new(&self.name);
        let known = armed.digest == configure.previous || armed.digest == configure.digest;
        match &configure.close {
            Close::Only(elements) if known && !close_all => close(&mut batch, elements),
            Close::Only(_) | Close::All => {
                for family in Family::BOTH {
                    batch.flush_set(&name(ALLOWED, family));
                    batch.flush_set(&name(LIVE, family));
                }
            }
        }
        let mut ranges = elements::ranges(EGRESS, &configure.egress);
        ranges.extend(elements::ranges(INGRESS, &configure.ingress));
        ranges.extend(always(&armed.arming));
        let nothing = Vec::new();
        for set in elements::all() {
            let (old, new) = (
                armed.ranges.get(&set.name).unwrap_or(&nothing),
                ranges.get(&set.name).unwrap_or(&nothing),
            );
            if old != new {
                batch.flush_set(&set.name);
                add_ranges(&mut batch, &set.name, new);
            }
        }
        if armed.ranges != ranges {
            batch.remove_chain(&ranges_chain(&armed.ranges));
            batch.make_chain(&ranges_chain(&ranges), None);
        }
        if armed.digest != configure.digest {
            batch.remove_chain(&rules_chain(armed.digest));
            batch.make_chain(&rules_chain(configure.digest), None);
        }
        self.socket
            .commit(&batch)
            .map_err(|source| match source.kind() {
                io::ErrorKind::NotFound => stale("a part of it is gone"),
                _ => failed("change the rules")(source),
            })?;
        if let Some(armed) = self.armed.as_mut() {
            armed.digest = configure.digest;
            armed.ranges = ranges;
        }
        Ok(())
    }
}

impl PodTable for Table {
    fn arm(&mut self, arming: &Arming) -> Result<RulesDigest, TableError> {
        let standing = self
            .standing(arming)
            .map_err(failed("read what table there is"))?;
        let Some(digest) = standing else {
            self.make(arming)?;
            return Ok(RulesDigest::FRESH);
        };
        let mut batch = Batch::new(&self.name);
        for chain in rules::proxy_chains(&self.place, arming.proxy) {
            batch.flush_chain(chain.name);
            batch.add_rules(chain.name, &chain.rules);
        }
        self.socket
            .commit(&batch)
            .map_err(failed("change the proxy's ports"))?;
        self.remember(arming, digest)?;
        Ok(digest)
    }

    fn configure(&mut self, configure: &Configure) -> Result<(), TableError> {
        match self.change(configure, false) {
            // A full set takes not even what is taken out again at once. Nothing open at all is stricter, and works.
            Err(TableError::Kernel { source, .. })
                if source.raw_os_error() == Some(nix::errno::Errno::ENFILE as i32) =>
            {
                self.change(configure, true)
            }
            result => result,
        }
    }

    fn open(&mut self, digest: RulesDigest, openings: &[Opening]) -> Result<(), TableError> {
        match self.armed.as_ref() {
            None => return Err(stale("it is not armed")),
            Some(armed) if armed.digest != digest => {
                return Err(stale("it holds other rules"));
            }
            Some(_) => {}
        }
        // The last time said of a destination counts.
        let mut times: BTreeMap<(String, Key), u64> = BTreeMap::new();
        for opening in openings {
            let (family, key) = elements::destination(&opening.element);
            let milliseconds = u64::from(opening.seconds) * 1000;
            times.insert((name(ALLOWED, family), key), milliseconds);
        }
        let mut batch = Batch::new(&self.name);
        for family in Family::BOTH {
            let set = name(ALLOWED, family);
            let (keys, elements): (Vec<Key>, Vec<(Key, Option<u64>)>) = times
                .iter()
                .filter(|((of, _), _)| *of == set)
                .map(|((_, key), time)| (key.clone(), (key.clone(), Some(*time))))
                .unzip();
            // Kernels before 6.12 leave the time of an element that is there.
            batch.remove(&set, &keys);
            batch.add(&set, &elements);
        }
        self.socket
            .commit(&batch)
            .map_err(|source| match source.kind() {
                io::ErrorKind::NotFound => stale("a part of it is gone"),
                _ => failed("open destinations")(source),
            })
    }

    fn check(&mut self) -> Result<TableState, TableError> {
        let Some(armed) = self.armed.as_ref() else {
            return Err(stale("it is not armed"));
        };
        let arming = armed.arming.clone();
        let intact = self
            .is_intact()
            .map_err(failed("compare the table with what it must be"))?;
        if !intact {
            self.make(&arming)?;
        }
        let mut count = |counter| {
            drift::packets(&mut self.socket, &self.name, counter).map_err(failed("read counters"))
        };
        let (refused_out, dropped_in) = (count(REFUSED_OUT)?, count(DROPPED_IN)?);
        Ok(TableState {
            digest: self.armed.as_ref().map_or(RulesDigest::FRESH, |a| a.digest),
            intact,
            refused_out,
            dropped_in,
        })
    }
}

fn rules_chain(digest: RulesDigest) -> String {
    format!("{RULES}{digest}")
}

/// `ranges` has no empty lists, and each list is sorted.
fn ranges_chain(ranges: &BTreeMap<String, Vec<Key>>) -> String {
    let mut hash = Sha256::new();
    for (set, keys) in ranges {
        hash.update(format!("{set} {}", keys.len()));
        for Key { first, last } in keys {
            hash.update(first);
            hash.update(last.as_deref().unwrap_or_default());
        }
    }
    format!("{RANGES}{}", hex::encode(&hash.finalize()[..8]))
}

fn always(arming: &Arming) -> BTreeMap<String, Vec<Key>> {
    let addresses = arming.node_addresses.iter().map(|a| IpNet::from(*a));
    elements::always(addresses.chain(arming.ingress_ranges.iter().copied()))
}

fn add_ranges(batch: &mut Batch, set: &str, keys: &[Key]) {
    let elements: Vec<_> = keys.iter().map(|key| (key.clone(), None)).collect();
    batch.add(set, &elements);
}

fn close(batch: &mut Batch, elements: &std::collections::BTreeSet<Element>) {
    for family in Family::BOTH {
        let keys: Vec<Key> = elements
            .iter()
            .map(elements::destination)
            .filter(|(of, _)| *of == family)
            .map(|(_, key)| key)
            .collect();
        for set in [ALLOWED, LIVE] {
            batch.remove(&name(set, family), &keys);
        }
    }
}

fn stale(why: &str) -> TableError {
    TableError::Stale(format!(
        "the pod's table cannot be used: {why}; it is armed again"
    ))
}

fn failed(step: &'static str) -> impl Fn(io::Error) -> TableError + Copy {
    move |source| TableError::Kernel { step, source }
}
